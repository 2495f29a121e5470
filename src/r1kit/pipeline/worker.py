"""A process of rank 1 or more: waits for rank 0's orders, runs the same stage code, writes no file."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="r1kit.pipeline.worker", description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    # Ctrl-C reaches the whole terminal group; rank 0 alone decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work(arguments.store, arguments.rank, arguments.size, arguments.timeout, arguments.device)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when rank 0 ends, however it ends (Linux only)."""
    if sys.platform != "linux":
        return
    set_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # Rank 0 was gone before the kernel was told.
        os._exit(1)


def work(store: str, rank: int, size: int, timeout: float, device: str) -> None:
    """Run every stage rank 0 announces, until it announces None."""
    from r1kit.config.load import parse_recipe
    from r1kit.pipeline.kinds import StageContext, load_runners, run_stage
    from r1kit.pipeline.process import tune_process
    from r1kit.sandbox import use_sandbox
    from r1kit.training.parallel import World, device_of_rank
    from r1kit.training.recorder import Interrupted, NullRecorder

    tune_process(device_of_rank(device, rank))
    world = World.connect(store, rank, size, timeout, device)
    while (order := world.broadcast(None, "order")) is not None:
        recipe = parse_recipe(order["recipe"], "the recipe of rank 0")
        use_sandbox(recipe.sandbox)
        name = order["stage"]
        settings = recipe.stages[name]
        context = StageContext(
            name=name,
            settings=settings,
            task=recipe.task,
            seed=recipe.seed,
            dtype=recipe.dtype,
            root=Path(order["root"]),
            inputs={key: Path(path) for key, path in order["inputs"].items()},
            world=world,
            recorder=NullRecorder(),
        )
        try:
            run_stage(load_runners(order["runners"])[settings.kind], context)
        except Interrupted:
            # Every rank stops at the same step; rank 0 says so.
            return
    world.close()


if __name__ == "__main__":
    main()

"""What the tests run in two processes: `python -m training.rank_jobs DIRECTORY SIZE JOB...`.

Python and torch are loaded once; every job then runs in fresh forks joined by gloo. A job gets its world and returns
arrays by name, which the test compares over ranks or with a single process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from r1kit.config.presets import PRESETS
from r1kit.training import rl
from r1kit.training.parallel import SUMMED, PeerError, World

from .helpers import UPDATE_CASES, muon_steps, token_stepped, updated
from .judged import preference_step
from .preset_updates import VARIATIONS, Cut, preset_gradients
from .stage import ListRecorder, even_tokens, open_stage, write_base
from .test_native import trained_session
from .test_optim_native import common_cases, native_kinds, stepped

Arrays = dict[str, np.ndarray]

# A job that loses a peer, and how long its survivors may wait.
DEADLINE_SECONDS = 15.0  # also to come up in, on a machine where other tests overload every core


def collectives(world: World) -> Arrays:
    """Every call of World once, with values that differ by rank."""
    sizes = [0, 5] if world.rank == 0 else [3, 0]
    gathered = [world.gather_bytes(bytes([world.rank + 65]) * n) for n in sizes]
    tensor = torch.full((2,), float(world.rank + 1))
    world.barrier()
    return {
        "gathered": np.array([b"|".join(parts).decode() for parts in gathered]),
        "gather": np.array(world.gather({"rank": world.rank})[1]["rank"]),
        "broadcast": np.array(world.broadcast({"value": world.rank + 7})["value"]),
        "broadcast_": world.broadcast_(tensor.clone()).numpy(),
        "all_reduce_": world.all_reduce_(tensor.clone()).numpy(),
        "sum": np.array(world.sum([1.0, 0.1 * (world.rank + 1)])),
        "shard": np.array(world.shard(range(5))),
    }


def shared_memory(world: World) -> Arrays:
    """Sums of windows beside those of gloo, twice, of lengths that ranks do not share evenly; and a common vector."""
    found: Arrays = {"shares": np.array(world.shares)}
    generator = torch.Generator().manual_seed(world.rank)
    for length in (1, 7, 2 * SUMMED + 1):
        window = world.window(length, torch.float32)
        for turn in range(2):
            window.copy_(torch.randn(length, generator=generator))
            found[f"gloo {length} {turn}"] = world.all_reduce_(window.clone()).numpy()
            found[f"window {length} {turn}"] = world.all_reduce_(window).numpy().copy()
    common = world.common(5)
    common[world.part(5)] = world.rank + 1.0
    world.barrier()
    found["common"] = common.numpy().copy()
    world.barrier()
    return found


def common_master(world: World) -> Arrays:
    """Steps of the compiled optimisers where both ranks have one master."""
    return {
        f"{case}/{name}": values
        for case, (native, settings) in common_cases().items()
        for name, values in stepped(native, settings, world).items()
    }


def native_session(world: World) -> Arrays:
    """Pre-training on one master, on two that gloo joins, and stopped and resumed: what was trained, and how."""
    found: Arrays = {}
    for kind in native_kinds():
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(world.broadcast(folder)) / "checkpoints"
            for name, ranks, stopped in (
                ("shared", world, None),
                ("gloo", replace(world, shares=False), None),
                ("resumed", world, directory),
            ):
                state, common = trained_session(kind, ranks, stopped)
                found |= {f"{kind}/{name}/{key}": values for key, values in state.items()}
                found[f"{kind}/{name}/is_common"] = np.array(common)
            world.barrier()  # before the folder goes
    return found


def peer_dies(world: World) -> Arrays:
    """Rank 1 is killed while rank 0 waits for its gradients."""
    world.barrier("all are there")
    if world.rank == 1:
        time.sleep(1.0)  # rank 0 has left the barrier by then, and waits
        os._exit(0)
    return _waited(lambda: world.all_reduce_(torch.zeros(4), "gradients"))


def window_peer_dies(world: World) -> Arrays:
    """The same, of gradients in shared memory."""
    window = world.window(4, torch.float32)
    if world.rank == 1:
        time.sleep(1.0)
        os._exit(0)
    return _waited(lambda: world.all_reduce_(window, "gradients"))


def peer_hangs(world: World) -> Arrays:
    """Rank 1 never comes: rank 0 gives up at the deadline."""
    if world.rank == 1:
        time.sleep(DEADLINE_SECONDS + 3)
        os._exit(0)
    return _waited(lambda: world.barrier("checkpoint"))


def _waited(call: Callable[[], object]) -> Arrays:
    started = time.monotonic()
    try:
        call()
    except PeerError as error:
        return {"error": np.array(str(error)), "seconds": np.array(time.monotonic() - started)}
    return {"error": np.array(""), "seconds": np.array(time.monotonic() - started)}


def muon(world: World) -> Arrays:
    return muon_steps(world)


def supervised(world: World) -> Arrays:
    return token_stepped(world)


def update(world: World) -> Arrays:
    return {f"{case}/{k}": v for case in UPDATE_CASES for k, v in updated(world, UPDATE_CASES[case]).items()}


REAL_RANK_PRESETS = (*PRESETS, *VARIATIONS)


def presets(world: World) -> Arrays:
    """One update of every preset in two micro-batches for each rank; threads do the other cuts (test_presets.py)."""
    with tempfile.TemporaryDirectory() as folder:
        base = write_base(Path(folder) / "base")
        return {
            f"{name}/{key}": value
            for name in REAL_RANK_PRESETS
            for key, value in preset_gradients(world, name, base, Cut(world.size, parts=2)).items()
        }


# In deterministic mode what is sampled does not depend on which rank samples it.
RANKS_STAGE = {"engine": {"slots": 8, "deterministic": True}}


def rl_stage(world: World) -> Arrays:
    """Two steps of a small RL stage; the policy after them and the rows of metrics."""
    with tempfile.TemporaryDirectory() as folder, patch.object(rl, "make_reward", lambda settings, **_: even_tokens):
        base, recorder = write_base(Path(folder) / "base"), ListRecorder()
        run = open_stage(base, Path(folder) / "checkpoints", world, recorder, **RANKS_STAGE)
        run.advance()
        run.advance()
    return {"weights": run.session.flat.master.numpy(), "rows": np.array(json.dumps(recorder.rows))}


def preference(world: World) -> Arrays:
    """One preference step."""
    return preference_step(world)


JOBS: dict[str, Callable[[World], Arrays]] = {
    job.__name__: job
    for job in (
        collectives,
        shared_memory,
        common_master,
        native_session,
        peer_dies,
        window_peer_dies,
        peer_hangs,
        muon,
        supervised,
        preference,
        update,
        presets,
        rl_stage,
    )
}


def _run(job: str, directory: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    world = World.connect(directory / f"{job}.store", rank, size, DEADLINE_SECONDS if "peer" in job else 60.0)
    np.savez(directory / f"{job}-{rank}.npz", **JOBS[job](world))
    if "peer" not in job:
        world.close()


def main() -> None:
    directory, size, jobs = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    context = multiprocessing.get_context("fork")
    for job in jobs:
        ranks = [context.Process(target=_run, args=(job, directory, rank, size)) for rank in range(size)]
        for process in ranks:
            process.start()
        for rank, process in enumerate(ranks):
            process.join(60)
            if process.exitcode != 0:
                raise SystemExit(f"{job}: rank {rank} ended with {process.exitcode}")
        for rank in range(size):
            # A rank that died on purpose has nothing to say.
            path = directory / f"{job}-{rank}.npz"
            if not path.exists():
                np.savez(path)


if __name__ == "__main__":
    main()

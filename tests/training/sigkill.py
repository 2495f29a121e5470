"""Stages with everything on that a checkpoint has to bring back, run in a forked child that kills itself at a moment.

`python -m tests.training.sigkill BASE NATIVE DIRECTORY=MOMENT,MOMENT...`: NATIVE is off, or the type of products of the
compiled passes that sample and train; a MOMENT is phase:count, the count-th call inside that phase of the attempt, or
phase@rank:count, that of one of its processes; after the last one the stage runs to its end. One import serves all
attempts and directories.
The stage here is `rl`; sigkill_stages.py has the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from r1kit.engines.local import LocalEngine
from r1kit.pipeline.metrics import MetricsLog
from r1kit.tasks.countdown import Countdown
from r1kit.training import checkpoints, rl, rollback
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder, Paused

from .stage import TASK, even_tokens, stage_settings

SETTINGS: dict[str, Any] = {
    "steps": 7,
    "problems_per_step": 3,
    "samples_per_problem": 4,
    "token_budget": 80,
    "checkpoint_every": 2,
    "algorithm": {"kl_coef": 0.1, "reference_refresh": 3, "minibatches": 2},
    "dynamic_sampling": {"rounds": 2, "max_age": 2},
    "evaluate": {"every": 4, "problems": 2, "samples": 2, "max_tokens": 6},
    "pools": {"enabled": True},
    "mismatch": {"correction": "token_tis"},
    "schedule": [
        {"until": {"steps": 2}},
        {
            "set": {"sampling.max_tokens": 10, "sampling.temperature": 1.2},
            "until": {"truncated_above": 0.1, "window": 2},
        },
        {"set": {"samples_per_problem": 3, "reward.weights.accuracy": 2.0}},
    ],
    "alarms": {"no_useful_group": {"action": "rollback"}, "rollback": {"limit": 1}},
}
Targets = Mapping[str, Sequence[tuple[Any, str]]]
# What is called in each phase.
TARGETS: Targets = {
    "sampling": [(LocalEngine, "_advance")],
    "verifying": [(Countdown, "verify")],
    "backward": [(torch.Tensor, "backward")],
    "writing": [(checkpoints, "flush"), (rollback, "flush")],
}
PHASES = tuple(TARGETS)
SICK = 5  # the step in which nothing is rewarded: the stage rolls back once, then pauses once


class FileRecorder(NullRecorder):
    """metrics.jsonl, as a run directory has it."""

    def __init__(self, path: Path) -> None:
        self.log = MetricsLog(path)

    def metrics(
        self, stage: str, step: int, values: Mapping[str, Any], clock: Mapping[str, float], kind: str = "train"
    ) -> None:
        self.log.append(stage, kind, step, values, clock)

    def truncate(self, stage: str, step: int) -> None:
        self.log.truncate(stage, step)


def reward(problem: Any, rollouts: Any, *, max_tokens: int, step: int) -> list[dict[str, float]]:
    values = even_tokens(problem, rollouts, max_tokens=max_tokens, step=step)
    return [{"accuracy": 0.0} for _ in values] if step == SICK else values


def train(base: Path, native: str, directory: Path) -> None:
    """Run the stage to its end, going on where an alarm paused it."""
    settings = stage_settings(**SETTINGS, native=native, engine={"slots": 8, "native": native})
    directory.mkdir(parents=True, exist_ok=True)
    recorder = FileRecorder(directory / "metrics.jsonl")
    with patch.object(rl, "make_reward", lambda settings, **_: reward):
        while True:
            try:
                rl.train_rl(
                    settings, stage="rl", model_path=base, task=TASK, seed=5, world=World.single(),
                    recorder=recorder, directory=directory / "checkpoints", dtype="float32",
                )  # fmt: skip
                return
            except Paused:
                continue


def counting(real: Callable[..., Any], count: int, rank: str = "") -> Callable[..., Any]:
    """`real`, but its `count`-th call (by `rank`) ends in SIGKILL, half of them before the call and half after."""
    calls = 0

    def call(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        deadly = calls == count and rank in ("", str(dist.get_rank() if dist.is_initialized() else 0))
        if deadly and count % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        value = real(*args, **named)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    return call


def arm(moment: str, targets: Targets) -> None:
    """Patch what is called in the phase of the moment (in a child that will not come back).

    anywhere:count is that many milliseconds of its own time: a timer whose signal ends a process as SIGKILL does.
    """
    phase, _, count = moment.partition(":")
    if phase == "anywhere":
        signal.setitimer(signal.ITIMER_VIRTUAL, int(count) / 1000)
        return
    phase, _, rank = phase.partition("@")
    (first, name), *others = targets[phase]
    deadly = counting(getattr(first, name), int(count), rank)
    for owner in (first, *(owner for owner, _ in others)):
        setattr(owner, name, deadly)


def attempt(run: Callable[[], None], targets: Targets, moment: str | None) -> bool:
    """Fork, run, and say whether the child was killed."""
    child = os.fork()
    if child == 0:
        if moment:
            arm(moment, targets)
        code = 1
        try:
            run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGVTALRM)
    assert killed or status == 0, f"the child of moment {moment} failed with status {status}"
    return killed


def launched(module: str, *arguments: str) -> list[int]:
    """`main` of a module like this one in a process of its own; the numbers that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def main() -> None:
    torch.set_num_threads(1)
    base, native = Path(sys.argv[1]), sys.argv[2]
    for text in sys.argv[3:]:
        directory, _, moments = text.partition("=")
        run = partial(train, base, native, Path(directory))
        print(sum(attempt(run, TARGETS, moment) for moment in moments.split(",") if moment))
        attempt(run, TARGETS, None)


if __name__ == "__main__":
    main()

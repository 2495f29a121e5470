"""Training over a fixed set of units: which ones a step takes, and the loop that logs, measures, saves and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from r1kit.training.checkpoints import checkpoint_path
from r1kit.training.optim import schedule, warmup_length
from r1kit.training.recorder import Interrupted, Recorder
from r1kit.training.sampling import derived_seed
from r1kit.training.session import Session


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[derived_seed("epochs", seed), epoch]))
    return generator.permutation(count)


@dataclass(frozen=True)
class UnitOrder:
    """Every epoch takes each of `count` units once, in an order keyed by seed and epoch; its last step may be smaller.

    A step is a function of its number alone: a resumed run takes what it would have taken.
    """

    count: int
    per_step: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.per_step)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def units(self, step: int) -> list[int]:
        """Indices of the units of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.count, self.seed, epoch)
        return order[place * self.per_step : (place + 1) * self.per_step].tolist()


class Trainee(Protocol):
    """What a stage brings to the loop."""

    session: Session

    def train(self, chosen: list[int], lr_scale: float) -> Mapping[str, float]:
        """One optimiser step on these units; metrics, equal on every rank."""
        ...

    def measure(self, step: int, total: int) -> None:
        """Whatever is measured after a step, where it is due."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint keeps beside weights and optimiser."""
        ...


def train_epochs(trainee: Trainee, order: UnitOrder, settings: Any, stage: str, recorder: Recorder) -> Path:
    """Train to the end of the last epoch; the path of the last checkpoint. Interrupted where the user asks to stop."""
    session, world, total = trainee.session, trainee.session.world, order.steps
    warmup = warmup_length(settings, stage, total)
    for step in range(session.start_step + 1, total + 1):
        started = time.perf_counter()
        scale = schedule(step - 1, total, warmup=warmup, decay=settings.decay, minimum=settings.lr_floor)
        metrics = trainee.train(order.units(step - 1), scale)
        seconds = time.perf_counter() - started
        if step % settings.log_every == 0 or step == total:
            values = {**metrics, "lr": settings.optimizer.lr * scale, "epoch": step / order.steps_per_epoch}
            recorder.metrics(stage, step, values, {"step_s": seconds})
        recorder.progress(stage, step, total, loss=metrics["loss"])
        trainee.measure(step, total)
        stop = world.broadcast(recorder.should_stop(), "stop")
        if step % settings.checkpoint_every == 0 or step == total or stop:
            session.save(step, trainee.state())
        if stop and step < total:
            raise Interrupted(f"{stage}: stopped after step {step} of {total}; the same command goes on from there")
    return checkpoint_path(session.directory, total)


def optimise(
    session: Session, settings: Any, lr_scale: float, gradient: Callable[[], Mapping[str, float]]
) -> dict[str, float]:
    """One optimiser step on the gradient that `gradient()` adds; its sums over all ranks, and the gradient's norm."""
    session.flat.zero_grad()
    sums = gradient()
    # A rank without a share names no sum: the others' names are taken.
    names = sorted({name for part in session.world.gather(sorted(sums), "names of metrics") for name in part})
    session.reduce_gradients()
    norm = session.flat.clip_grad_(settings.grad_clip)
    session.step_(lr_scale)
    totals = session.world.sum([sums.get(name, 0.0) for name in names], "metrics")
    return {**dict(zip(names, totals, strict=True)), "grad_norm": norm}

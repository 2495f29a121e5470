"""Training steps of r1kit alone, without sampling: `train_step` of pre-training and `update` of RL, whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from harness.phases import PhaseClock
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.training.pretraining import next_batch, train_step
from r1kit.training.session import Session
from r1kit.training.update import update
from workers.batches import WARM_UP_STEPS, Batches, Work, examples_of


@contextmanager
def watched(clock: PhaseClock, session: Session) -> Iterator[None]:
    """Time forward, backward, communication, optimiser and what is left of `session` as phases."""
    compiled = session.network is not session.model
    parts = [
        (session.network, "_forward" if compiled else "forward", "forward"),
        (torch.autograd, "backward", "backward"),
        (session, "reduce_gradients", "all-reduce and waiting"),
        (session.optimizer, "step_", "optimiser"),
    ]
    with ExitStack() as stack:
        for owner, name, phase in parts:
            stack.enter_context(clock.wrapped(owner, name, phase))
        stack.enter_context(clock.phase("packing, loss and the rest"))
        yield


class OurPretraining(Batches):
    """Documents made, tokenised, packed and trained on; order "steps", "seed", "native"."""

    def prepare(self, order: dict[str, Any]) -> None:
        self.steps, self.clock, self.work = order["steps"], PhaseClock(), Work()
        self.stream = self.documents(order)
        self.session = Session(
            self.nowhere,
            self.world,
            self.pretraining.optimizer,
            lambda: load_model(self.checkpoint, dtype=self.dtype),
            load_tokenizer(self.checkpoint),
            dtype=self.dtype,
            keep_checkpoints=1,
            native=self.native(order),
        )
        for _ in range(WARM_UP_STEPS):
            self._step()
        self.work = Work()

    def _step(self) -> None:
        with self.clock.phase("documents"):
            batch = next_batch(self.stream, self.pretraining.tokens_per_step)
        train_step(self.session, batch, self.pretraining, lr_scale=1e-3)
        tokens = sum(len(d) - 1 for d in batch)
        self.work.add(tokens, tokens)

    def run(self) -> dict[str, Any]:
        self.clock.seconds.clear()
        with watched(self.clock, self.session):
            for _ in range(self.steps):
                self._step()
        return self.figures(self.work, self.clock.seconds)


class OurUpdate(Batches):
    """The policy update of RL steps; order "steps", "seed", "problems", "max_tokens", "native"."""

    def prepare(self, order: dict[str, Any]) -> None:
        self.rl = self.sampler(order)
        steps = self.group_steps(self.rl, order)
        for groups in steps[:WARM_UP_STEPS]:
            update(self.rl.session, groups, self.rl.settings, 1e-3, None)
        self.timed = steps[WARM_UP_STEPS:]

    def run(self) -> dict[str, Any]:
        clock, work = PhaseClock(), Work()
        with watched(clock, self.rl.session):
            for groups in self.timed:
                update(self.rl.session, groups, self.rl.settings, 1e-3, None)
        for example in (e for groups in self.timed for e in examples_of(groups)):
            work.add(len(example.inputs), example.trained_tokens)
        return self.figures(work, clock.seconds)

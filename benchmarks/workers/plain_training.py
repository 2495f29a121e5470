"""The training peer: forward and backward of the same batches through Transformers, then clipping and fused
AdamW.

Nothing clever, nothing slow: one padded batch after another with an attention mask, SDPA attention, the loss
of every token from `cross_entropy`, DistributedDataParallel where there are two processes. Padding and target
arrays are made inside the clock, as ours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.phases import PhaseClock
from workers.batches import WARM_UP_STEPS, Batches, Work, examples_of

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """One sequence: arrays over its predicted tokens; targets are IGNORED where nothing is trained."""

    inputs: np.ndarray
    targets: np.ndarray
    old_logprobs: np.ndarray
    advantage: float


@dataclass(frozen=True)
class Step:
    """The rows of one optimiser step over all ranks, and the useful tokens in them."""

    rows: list[Row]
    processed: int
    scored: int


class TransformersTraining(Batches):
    """Order: "kind", "dtype", "micro" (rows of one forward pass), "steps", "seed".

    "layout" of pre-training: "documents" (each a padded row) or "rows" (documents one after another, cut into
    rows of equal length without padding; attention then crosses documents, which ours does not do).
    """

    def prepare(self, order: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        self.order = order
        self.model = AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=order["dtype"]).train()
        self.parallel = torch.nn.parallel.DistributedDataParallel(self.model) if self.size > 1 else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        steps = self._pretraining(order) if order["kind"] == "pretrain" else self._rollouts(order)
        self.clock = PhaseClock()
        for step in steps[:WARM_UP_STEPS]:
            self._step(step)
        self.timed = steps[WARM_UP_STEPS:]

    def _pretraining(self, order: dict[str, Any]) -> list[Step]:
        steps = []
        for batch in self.document_steps(order):
            useful = sum(len(d) - 1 for d in batch)
            if order["layout"] == "rows":
                width = self.pretraining.document_length + 1
                flat = np.concatenate(batch)
                batch = [flat[i : i + width] for i in range(0, len(flat), width) if len(flat) - i > 1]
            rows = [Row(d[:-1], d[1:], np.zeros(len(d) - 1, np.float32), 0.0) for d in batch]
            steps.append(Step(rows, useful, useful))
        return steps

    def _rollouts(self, order: dict[str, Any]) -> list[Step]:
        rl = self.sampler(order)
        self.clip = rl.settings.algorithm
        steps = []
        for groups in self.group_steps(rl, order):
            examples = examples_of(groups)
            rows = [
                Row(e.inputs, np.where(e.mask, e.targets, IGNORED), e.old_logprobs, float(e.advantages[0]))
                for e in examples
            ]
            steps.append(Step(rows, sum(len(r.inputs) for r in rows), sum(e.trained_tokens for e in examples)))
        return steps

    def _step(self, step: Step) -> None:
        mine = step.rows[self.rank :: self.size]
        self.optimizer.zero_grad(set_to_none=True)
        starts = range(0, len(mine), self.order["micro"])
        for start in starts:
            rows = mine[start : start + self.order["micro"]]
            # Gradients of accumulated micro-batches meet once, at the last.
            alone = self.size == 1 or start == starts[-1]
            with nullcontext() if alone else self.parallel.no_sync():
                loss = self._loss(rows) * self.size / step.scored
                with self.clock.phase("backward"):
                    loss.backward()
        with self.clock.phase("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    def _loss(self, rows: Sequence[Row]) -> Tensor:
        """Sum over the trained tokens of one padded batch."""
        inputs, targets = padded([r.inputs for r in rows], 0), padded([r.targets for r in rows], IGNORED)
        mask = padded([np.ones(len(r.inputs), np.int64) for r in rows], 0)
        with self.clock.phase("forward"):
            logits = self.parallel(input_ids=inputs, attention_mask=mask, use_cache=False).logits
        with self.clock.phase("loss"):
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
            ).float()
            if self.order["kind"] == "pretrain":
                return losses.sum()
            old = padded([r.old_logprobs for r in rows], 0)
            advantages = torch.tensor([r.advantage for r in rows])[:, None].expand(old.shape).flatten()
            ratio = torch.exp(-losses - old.flatten())
            clipped = ratio.clamp(1 - self.clip.clip_low, 1 + self.clip.clip_high)
            return -(torch.minimum(ratio * advantages, clipped * advantages) * (targets.flatten() != IGNORED)).sum()

    def run(self) -> dict[str, Any]:
        self.clock, work = PhaseClock(), Work()
        with self.clock.phase("padding and the rest"):
            for step in self.timed:
                self._step(step)
        for step in self.timed:
            work.add(step.processed, step.scored)
        return self.figures(work, self.clock.seconds)


def padded(arrays: Sequence[np.ndarray], value: float) -> Tensor:
    """[rows, longest], padded on the right."""
    out = np.full((len(arrays), max(map(len, arrays))), value, dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)

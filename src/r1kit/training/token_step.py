"""One optimiser step on weighted next-token losses: what pre-training and supervised fine-tuning share.

    loss = -sum_t w_t log p(x_t | x_<t) / sum_t w_t        over all sequences of the step, on all ranks

The denominator is that of the whole step, so micro-batches, packing, order and ranks leave the gradient unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.token_accuracy import correct_tokens
from r1kit.models.attention import packed_attention, positions
from r1kit.models.native.head import token_logprobs
from r1kit.models.native.training import NativePass
from r1kit.training.neftune import EmbeddingNoise
from r1kit.training.packing import MicroBatch, balanced_shards, plan
from r1kit.training.session import Session

# Sequences planned at a time where there may be very many: planning takes the square of their number.
PLANNED = 1024


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Token ids int64 [T] and the weight of predicting each, float32 [T]; that of the first is never read.

    `key` names the sequence where randomness depends on it.
    """

    token_ids: np.ndarray
    weights: np.ndarray
    key: int = 0

    def __len__(self) -> int:
        """Tokens that the model reads: all but the last."""
        return len(self.token_ids) - 1

    @property
    def predicted(self) -> int:
        """Tokens that are learned."""
        return int((self.weights[1:] > 0).sum())


@dataclass(frozen=True)
class StepResult:
    """`loss` in nats per unit of weight, `norm` of the gradient before clipping; `accuracy` of the learned tokens, None
    where it was not asked for."""

    loss: float
    norm: float
    accuracy: float | None


def token_step(
    session: Session,
    batch: Sequence[TokenSequence],
    settings: Any,
    lr_scale: float,
    *,
    accuracy: bool = False,
    noise: EmbeddingNoise | None = None,
    best_fit: bool = True,
) -> StepResult:
    """One optimiser step on `batch`, which is equal on every rank. ValueError where nothing in it is learned."""
    session.flat.zero_grad()
    totals = backward(session, batch, settings.token_budget, accuracy=accuracy, noise=noise, best_fit=best_fit)
    session.reduce_gradients()
    norm = session.flat.clip_grad_(settings.grad_clip)
    session.step_(lr_scale)
    loss, correct = session.world.sum(totals, "loss")
    return StepResult(loss, norm, correct / sum(s.predicted for s in batch) if accuracy else None)


def backward(
    session: Session,
    batch: Sequence[TokenSequence],
    token_budget: int,
    *,
    accuracy: bool = False,
    noise: EmbeddingNoise | None = None,
    best_fit: bool = True,
) -> tuple[float, float]:
    """Add this rank's part of the gradient; (its part of the loss, its correct tokens)."""
    total = _denominator(batch)
    mine = _shard(session, batch)
    loss_sum, correct = 0.0, 0.0
    for micro in plan([len(s) for s in mine], token_budget, best_fit=best_fit, apart=_apart(session)):
        if noise is not None:
            noise.set_batch(micro, [len(s) for s in mine], [s.key for s in mine])
        hidden, targets, weights = _predict(session, micro, mine)
        logprobs, _ = token_logprobs(session.network, hidden, targets)
        loss = -(logprobs * weights).sum() / total
        loss.backward()
        loss_sum += loss.item()
        if accuracy:
            correct += float(correct_tokens(hidden.detach(), session.network.head_weight.detach(), targets).sum())
    if noise is not None:
        noise.clear()
    return loss_sum, correct


@torch.no_grad()
def evaluate_tokens(session: Session, batch: Sequence[TokenSequence], token_budget: int) -> tuple[float, float]:
    """(loss in nats per unit of weight, accuracy of the learned tokens) of `batch`, over all ranks."""
    total = _denominator(batch)
    mine = _shard(session, batch)
    sums = [0.0, 0.0]
    for start in range(0, len(mine), PLANNED):
        part = mine[start : start + PLANNED]
        for micro in plan([len(s) for s in part], token_budget, best_fit=True, apart=_apart(session)):
            hidden, targets, weights = _predict(session, micro, part)
            logprobs, _ = token_logprobs(session.network, hidden, targets)
            sums[0] -= float((logprobs * weights).sum()) / total
            sums[1] += float(correct_tokens(hidden, session.network.head_weight, targets).sum())
    loss, correct = session.world.sum(sums, "held-out loss")
    return loss, correct / sum(s.predicted for s in batch)


def _predict(session: Session, micro: MicroBatch, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states at the learned positions [N, D], their targets [N] and weights [N].

    This is the one place where supervised training calls the model.
    """
    device = session.world.device
    inputs = micro.tensor([s.token_ids[:-1] for s in sequences], 0).to(device)
    targets = micro.tensor([s.token_ids[1:] for s in sequences], 0).to(device)
    weights = micro.tensor([s.weights[1:] for s in sequences], 0)
    learned = weights.nonzero().squeeze(1).to(device)
    weights = weights.to(device)
    hidden = session.network(inputs, positions(micro.segments).to(device), packed_attention(micro.segments))
    if len(learned) == len(weights):
        return hidden, targets, weights
    return hidden.index_select(0, learned), targets[learned], weights[learned]


def _apart(session: Session) -> bool:
    """Whether segments cost nothing: the compiled pass goes from sequence to sequence in any case."""
    return isinstance(session.network, NativePass)


def _denominator(batch: Sequence[TokenSequence]) -> float:
    total = float(sum(np.sum(s.weights[1:], dtype=np.float64) for s in batch))
    if total <= 0:
        raise ValueError(f"none of the {len(batch)} sequences of this step has a token to learn")
    return total


def _shard(session: Session, batch: Sequence[TokenSequence]) -> list[TokenSequence]:
    world = session.world
    return [batch[i] for i in balanced_shards([len(s.token_ids) for s in batch], world.size)[world.rank]]

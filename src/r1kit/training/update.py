"""The policy update of one RL step: advantages, the clipped loss over global denominators, optional KL, one optimiser
step per minibatch.

Every rank holds all groups of the step, so advantages and denominators are global without communication; each rank
runs its share of the rollouts and the gradients are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.advantages import group_advantages
from r1kit.algorithms.aggregation import denominator, token_weights
from r1kit.algorithms.entropy import chunked_logprobs
from r1kit.algorithms.kl import kl_estimate
from r1kit.algorithms.policy_loss import policy_loss
from r1kit.models.attention import packed_attention, positions
from r1kit.models.loading import LanguageModel
from r1kit.records import Group, Rollout
from r1kit.training.packing import MicroBatch, balanced_shards, plan
from r1kit.training.session import Session

# Sums over trained tokens that `update` reports as means, in the order in which ranks add them.
_SUMS = ("loss", "tokens", "ratio", "clip_low", "clip_high", "approx_kl", "entropy", "kl", "padded_tokens")


@dataclass(frozen=True)
class Example:
    """One rollout as the trainer sees it: arrays over its predicted tokens, [T - 1]."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    old_logprobs: np.ndarray
    temperatures: np.ndarray
    advantage: float

    @classmethod
    def of(cls, rollout: Rollout, advantage: float) -> Example:
        ids = rollout.token_ids.astype(np.int64)
        return cls(
            ids[:-1],
            ids[1:],
            rollout.loss_mask[1:],
            rollout.logprobs[1:],
            np.where(rollout.loss_mask[1:], rollout.temperatures[1:], np.float32(1.0)),
            advantage,
        )

    @property
    def trained_tokens(self) -> int:
        return int(self.mask.sum())


def update(
    session: Session,
    groups: Sequence[Group],
    settings: Any,
    lr_scale: float,
    reference: LanguageModel | None,
) -> dict[str, float]:
    """Train on `groups`; one optimiser step per minibatch. Returns metrics, equal on every rank."""
    algorithm = settings.algorithm
    rewards_PG = torch.tensor(np.stack([g.rewards for g in groups]))
    advantages_PG = group_advantages(rewards_PG, scale=algorithm.advantage)
    examples = [
        Example.of(rollout, float(advantage))
        for group, row in zip(groups, advantages_PG, strict=True)
        for rollout, advantage in zip(group, row, strict=True)
    ]
    # A response without advantage adds nothing to the gradient, but its tokens count in the denominator.
    totals = dict.fromkeys(_SUMS, 0.0)
    norms = []
    for minibatch in np.array_split(np.arange(len(examples)), algorithm.minibatches):
        chosen = [examples[i] for i in minibatch]
        z = denominator(
            algorithm.aggregation,
            tokens=sum(e.trained_tokens for e in chosen),
            sequences=len(chosen),
            max_tokens=settings.sampling.max_tokens,
        )
        session.flat.zero_grad()
        for name, value in _accumulate(session, chosen, z, settings, reference).items():
            totals[name] += value
        session.reduce_gradients()
        norms.append(session.flat.clip_grad_(settings.grad_clip))
        session.optimizer.step_(lr_scale)
    sums = dict(zip(_SUMS, session.world.sum([totals[n] for n in _SUMS], "metrics"), strict=True))
    tokens = max(sums["tokens"], 1.0)
    means = {name: sums[name] / tokens for name in _SUMS if name not in ("loss", "tokens", "padded_tokens")}
    return {
        "loss": sums["loss"] / algorithm.minibatches,
        **means,
        "grad_norm": float(np.mean(norms)),
        "tokens_trained": sums["tokens"],
        "padding": 1.0 - sum(len(e.inputs) for e in examples) / max(sums["padded_tokens"], 1.0),
    }


def _accumulate(
    session: Session, examples: Sequence[Example], z: float, settings: Any, reference: LanguageModel | None
) -> dict[str, float]:
    """Forward and backward of this rank's share of `examples`; sums of metrics over its tokens."""
    world = session.world
    mine = [examples[i] for i in balanced_shards([len(e.inputs) for e in examples], world.size)[world.rank]]
    totals = dict.fromkeys(_SUMS, 0.0)
    for micro in plan([len(e.inputs) for e in mine], settings.token_budget):
        loss, metrics = micro_loss(session.model, micro, mine, z, settings, reference)
        loss.backward()
        totals["loss"] += loss.item()
        totals["padded_tokens"] += micro.tokens
        for name, value in metrics.items():
            if name in totals:
                totals[name] += float(value)
    return totals


def micro_loss(
    model: Any,
    micro: MicroBatch,
    examples: Sequence[Example],
    z: float,
    settings: Any,
    reference: LanguageModel | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one micro-batch (its part of the global sum over Z) and sums of metrics over its trained tokens."""
    algorithm = settings.algorithm
    flat_mask = micro.tensor([e.mask for e in examples], False)
    chosen = flat_mask.nonzero().squeeze(1)

    def trained(arrays: list[np.ndarray]) -> Tensor:
        return micro.tensor(arrays, 0)[chosen]

    inputs, targets = micro.tensor([e.inputs for e in examples], 0), trained([e.targets for e in examples])
    temperatures = trained([e.temperatures for e in examples])
    advantages = trained([np.full(len(e.inputs), e.advantage, dtype=np.float32) for e in examples])
    lengths = np.array([e.trained_tokens for e in examples])
    owners = trained([np.full(len(e.inputs), i) for i, e in enumerate(examples)])
    weights = token_weights(algorithm.aggregation, torch.from_numpy(lengths), owners)
    at = positions(micro.segments)
    attend = packed_attention(micro.segments)

    hidden = model(inputs, at, attend)
    logprobs, entropy = chunked_logprobs(hidden[chosen], model.head_weight, targets, temperatures)
    loss, metrics = policy_loss(
        logprobs,
        trained([e.old_logprobs for e in examples]),
        advantages,
        torch.ones_like(targets, dtype=torch.bool),
        z,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        dual_clip=algorithm.dual_clip,
        weights_T=weights,
    )
    metrics["entropy"] = entropy.sum()
    if reference is not None:
        with torch.no_grad():
            hidden = reference(inputs, at, attend)[chosen]
            theirs, _ = chunked_logprobs(hidden, reference.head_weight, targets, temperatures)
        kl_T = kl_estimate(logprobs, theirs, algorithm.kl_estimator)
        loss = loss + algorithm.kl_coef * (kl_T * weights).sum() / z
        metrics["kl"] = kl_T.detach().sum()
    return loss, metrics

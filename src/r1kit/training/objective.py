"""The loss of one micro-batch: its part of the step's policy loss, KL, entropy bonus, likelihood and value loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.aggregation import denominator, token_weights
from r1kit.algorithms.kl import kl_estimate
from r1kit.algorithms.policy_loss import policy_loss, positive_nll
from r1kit.models.native.head import token_logprobs
from r1kit.training.examples import Example, MicroTokens
from r1kit.training.roles import Roles


@dataclass(frozen=True)
class Scales:
    """Numbers of the whole minibatch, on all ranks: the denominator of the policy loss, its trained tokens, those of
    right responses; and the entropy coefficient that acts."""

    z: float
    tokens: int
    positive_tokens: int = 0
    entropy_coef: float = 0.0

    @classmethod
    def of(cls, examples: Sequence[Example], settings: Any, entropy_coef: float = 0.0) -> Scales:
        """Of the examples of a minibatch, which every rank holds. ValueError where none has a trained token."""
        tokens = sum(e.trained_tokens for e in examples)
        z = denominator(
            settings.algorithm.aggregation,
            tokens=tokens,
            sequences=len(examples),
            max_tokens=settings.sampling.max_tokens,
        )
        return cls(z, tokens, sum(e.trained_tokens for e in examples if e.outcome == 1.0), entropy_coef)


def micro_loss(
    model: Any, tokens: MicroTokens, scales: Scales, settings: Any, roles: Roles
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one micro-batch (its part of the global sums) and sums of metrics over its trained tokens."""
    a, examples = settings.algorithm, tokens.examples
    hidden = tokens.forward(model)
    logprobs, entropy = token_logprobs(
        model, hidden, tokens.targets_T, tokens.temperatures_T, entropy_gradient=scales.entropy_coef > 0
    )
    lengths = torch.from_numpy(np.array([e.trained_tokens for e in examples])).to(tokens.device)
    weights = token_weights(a.aggregation, lengths, tokens.owners_T)
    # The policy term alone is corrected, as in TRL and verl: a token that a correction masks is still held by its KL.
    policy_weights = weights if examples[0].weights is None else weights * tokens.trained([e.weights for e in examples])
    if examples[0].carries is not None:
        policy_weights = policy_weights * tokens.trained([e.carries for e in examples])
    loss, metrics = policy_loss(
        logprobs,
        tokens.trained([e.old_logprobs for e in examples]),
        tokens.trained([e.advantages for e in examples]),
        torch.ones_like(tokens.targets_T, dtype=torch.bool),
        scales.z,
        clip_low=a.clip_low,
        clip_high=a.clip_high,
        dual_clip=a.dual_clip,
        weights_T=policy_weights,
        objective=a.objective,
        sequence_T=tokens.owners_T,
    )
    metrics["entropy"] = entropy.detach().sum()
    if roles.reference is not None and a.kl_in == "loss":
        with torch.no_grad():
            theirs, _ = tokens.logprobs(roles.reference_network)
        kl_T = kl_estimate(logprobs, theirs, a.kl_estimator)
        loss = loss + a.kl_coef * (kl_T * weights).sum() / scales.z
        metrics["kl"] = kl_T.detach().sum()
    if scales.entropy_coef:
        loss = loss - scales.entropy_coef * entropy.sum() / scales.tokens
    if a.positive_nll:
        right = torch.tensor([e.outcome == 1.0 for e in examples], device=tokens.device)[tokens.owners_T]
        loss = loss + a.positive_nll * positive_nll(logprobs, right, float(scales.positive_tokens))
    if roles.critic is not None and roles.critic.shared:
        values = roles.critic.head(hidden)
        value, value_metrics = roles.critic.loss(tokens, values, float(scales.tokens))
        loss = loss + roles.critic.settings.coef * value
        metrics |= value_metrics | {"value_loss": value.detach()}
    return loss, metrics

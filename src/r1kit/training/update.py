"""The update of one RL step: credit for every token, the objective over global denominators, one optimiser step per
minibatch; the critic and the process reward model where there are any.

Every rank holds all groups of the step, so advantages and denominators are global without communication; each rank
runs its share of the rollouts and the gradients are summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from r1kit.algorithms.entropy_control import high_entropy_mask
from r1kit.algorithms.gae import explained_variance
from r1kit.algorithms.kl import kl_estimate
from r1kit.records import Group
from r1kit.training.credit import Credit, TokenScores, assign, filter_groups
from r1kit.training.examples import Example, at_trained_tokens, by_example, micro_batches
from r1kit.training.objective import Scales, micro_loss
from r1kit.training.roles import Roles
from r1kit.training.session import Session

# Sums over trained tokens that `update` reports as means, in the order in which ranks add them.
_SUMS = ("loss", "tokens", "ratio", "clip_low", "clip_high", "approx_kl", "entropy", "kl", "padded_tokens")
_VALUE_SUMS = ("value_loss", "value_error", "value_clip")


def update(
    session: Session,
    groups: Sequence[Group],
    settings: Any,
    lr_scale: float,
    roles: Roles | None = None,
    token_weights_of: Mapping[int, np.ndarray] | None = None,
    *,
    step: int = 0,
) -> dict[str, float]:
    """Train on `groups`; one optimiser step per minibatch. Returns metrics, equal on every rank.

    `token_weights_of`: factor of each token's policy loss by id() of the rollout, since a problem may be in a step
    twice (r1kit.training.mismatch). `step`: steps done.
    """
    roles, a = roles or Roles(), settings.algorithm
    offered, groups = groups, filter_groups(groups, a)
    examples = [
        Example.of(r, weights=None if token_weights_of is None else token_weights_of[id(r)]) for g in groups for r in g
    ]
    metrics: dict[str, float] = {}
    trained = sum(e.trained_tokens for e in examples)
    if a.group_filter is not None:
        metrics["tokens_filtered"] = float(_tokens(offered) - _tokens(groups))
    if settings.dynamic_sampling.truncated == "mask":
        metrics["tokens_masked"] = float(_tokens(groups) - trained)
    if not trained:
        return {**metrics, "loss": 0.0, "grad_norm": 0.0, "tokens_trained": 0.0}  # all of it is masked

    # 1. what other models say of the tokens
    if roles.process is not None and a.process.update == "before":
        metrics |= roles.process.update(examples, settings.token_budget, lr_scale)
    scores = _scores(session, examples, settings, roles)

    # 2. credit
    credit = assign(groups, examples, a, scores, _part_weights(settings))
    examples = _credited(examples, credit, scores)
    if a.entropy.top_share < 1:
        examples = _forking(session, examples, settings)

    # 3. critic, policy, process reward model
    critic = roles.critic
    if critic is not None and credit.returns is not None and scores.values is not None:
        metrics["value_explained"] = explained_variance(scores.values, credit.returns)
        alone = step < critic.settings.pretrain_steps
        if alone or not critic.shared:
            metrics |= critic.update(session.network, examples, settings.token_budget, lr_scale, settings.grad_clip)
        if alone:
            return {**metrics, "tokens_trained": float(trained)}
    metrics |= _update_policy(session, examples, settings, lr_scale, roles)
    if scores.kl is not None:
        metrics["kl"] = scores.kl.mean().item()
    if roles.process is not None and a.process.update == "after":
        metrics |= roles.process.update(examples, settings.token_budget, lr_scale)
    return metrics


def _tokens(groups: Sequence[Group]) -> int:
    return sum(rollout.response_length for group in groups for rollout in group)


def _scores(session: Session, examples: Sequence[Example], settings: Any, roles: Roles) -> TokenScores:
    """KL in the reward, values and process rewards of all trained tokens, under the models as they are now."""
    a, budget, world = settings.algorithm, settings.token_budget, session.world
    kl = None
    if roles.reference is not None and a.kl_in == "reward":
        theirs = at_trained_tokens(lambda tokens: tokens.logprobs(roles.reference_network)[0], examples, budget, world)
        sampled = torch.from_numpy(np.concatenate([e.old_logprobs[e.mask] for e in examples]))
        kl = kl_estimate(sampled, theirs, a.kl_estimator)
    values = None if roles.critic is None else roles.critic.score(session.network, examples, budget)
    process, process_at = (None, None) if roles.process is None else roles.process.score(examples, budget)
    return TokenScores(kl, values, process, process_at)


def _part_weights(settings: Any) -> dict[str, float]:
    return (
        {name: part.weight for name, part in settings.reward.resolved().items()}
        if settings.algorithm.per_reward
        else {}
    )


def _credited(examples: Sequence[Example], credit: Credit, scores: TokenScores) -> list[Example]:
    """The examples with their advantages and, with a critic, old values and returns."""
    columns: dict[str, list[Any]] = {"advantages": by_example(credit.advantages, examples)}
    if credit.returns is not None and scores.values is not None:
        columns |= {"returns": by_example(credit.returns, examples), "old_values": by_example(scores.values, examples)}
    return [replace(e, **{name: column[i] for name, column in columns.items()}) for i, e in enumerate(examples)]


def _forking(session: Session, examples: Sequence[Example], settings: Any) -> list[Example]:
    """Policy gradient at the tokens of highest entropy in the whole step only (80/20)."""
    entropy = at_trained_tokens(
        lambda tokens: tokens.logprobs(session.network)[1], examples, settings.token_budget, session.world
    )
    keeps = by_example(high_entropy_mask(entropy, settings.algorithm.entropy.top_share).float(), examples)
    return [replace(e, carries=kept) for e, kept in zip(examples, keeps, strict=True)]


def _update_policy(
    session: Session, examples: Sequence[Example], settings: Any, lr_scale: float, roles: Roles
) -> dict[str, float]:
    """Minibatches of the policy (and of a critic on its trunk)."""
    algorithm, critic = settings.algorithm, roles.critic if roles.critic and roles.critic.shared else None
    names = _SUMS if critic is None else (*_SUMS, *_VALUE_SUMS)
    # A response without advantage adds nothing to the gradient, but its tokens count in the denominator.
    totals = dict.fromkeys(names, 0.0)
    norms = []
    for minibatch in np.array_split(np.arange(len(examples)), algorithm.minibatches):
        chosen = [examples[i] for i in minibatch]
        if not any(e.trained_tokens for e in chosen):
            continue  # all of its responses are masked or empty
        scales = Scales.of(chosen, settings, roles.entropy.acting)
        session.flat.zero_grad()
        if critic is not None:
            critic.flat.zero_grad()
        for name, value in _accumulate(session, chosen, scales, settings, roles).items():
            totals[name] = totals.get(name, 0.0) + value
        session.reduce_gradients()
        norms.append(session.flat.clip_grad_(settings.grad_clip))
        session.step_(lr_scale)
        if critic is not None:
            critic.step_(lr_scale, settings.grad_clip)
    sums = dict(zip(names, session.world.sum([totals[n] for n in names], "metrics"), strict=True))
    tokens = max(sums["tokens"], 1.0)
    summed = ("loss", "tokens", "padded_tokens", "value_loss")
    metrics = {"loss": sums["loss"] / algorithm.minibatches}
    metrics |= {name: sums[name] / tokens for name in names if name not in summed}
    if critic is not None:
        metrics["value_loss"] = sums["value_loss"] / algorithm.minibatches
    if roles.entropy.kept or roles.entropy.acting:
        metrics["entropy_coef"] = roles.entropy.acting
    roles.entropy.observe(metrics["entropy"], algorithm.entropy)
    return {
        **metrics,
        "grad_norm": float(np.mean(norms)) if norms else 0.0,
        "tokens_trained": sums["tokens"],
        "padding": 1.0 - sum(len(e.inputs) for e in examples) / max(sums["padded_tokens"], 1.0),
    }


def _accumulate(
    session: Session, examples: Sequence[Example], scales: Scales, settings: Any, roles: Roles
) -> dict[str, float]:
    """Forward and backward of this rank's share of `examples`; sums of metrics over its tokens."""
    totals = dict.fromkeys(("loss", "padded_tokens"), 0.0)
    for tokens in micro_batches(examples, settings.token_budget, session.world):
        loss, metrics = micro_loss(session.network, tokens, scales, settings, roles)
        loss.backward()
        totals["loss"] += loss.item()
        totals["padded_tokens"] += tokens.micro.tokens
        for name, value in metrics.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals

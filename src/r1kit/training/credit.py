"""Who gets the credit: from judged groups to an advantage for every trained token of the step.

Every rank holds all groups of the step, so baselines, scales and whitening are global without communication. Arrays
are flat over trained tokens (T) of responses (N), in the order of the examples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.advantages import group_advantages, per_reward_advantages
from r1kit.algorithms.gae import gae, length_adaptive_lambda, rewards_to_go, whiten
from r1kit.algorithms.group_filters import gfpo_keep, roc_keep
from r1kit.algorithms.implicit_prm import process_advantages
from r1kit.records import Group
from r1kit.training.examples import Example, outcome
from r1kit.training.sampling import derived_seed


@dataclass(frozen=True)
class TokenScores:
    """What models say of the trained tokens, float32 [T] each; None where no such model is at work.

    `kl`: the estimate that acts in the reward, without its coefficient; `process_at`: where process rewards stand.
    """

    kl: Tensor | None = None
    values: Tensor | None = None
    process: Tensor | None = None
    process_at: Tensor | None = None


@dataclass(frozen=True)
class Credit:
    """Advantages of the policy and targets of the critic, float32 [T]."""

    advantages: Tensor
    returns: Tensor | None = None


def filter_groups(groups: Sequence[Group], algorithm: Any) -> list[Group]:
    """The groups with the responses that are trained (`algorithm.group_filter`)."""
    settings = algorithm.group_filter
    if settings is None:
        return list(groups)
    kept = []
    for group in groups:
        # By sample: neither ties nor draws may depend on the order in which a group's responses stand.
        group = replace(group, rollouts=tuple(sorted(group, key=lambda r: r.sample)))
        keep = min(settings.keep, len(group))
        if settings.kind == "gfpo":
            lengths = torch.tensor([[float(r.loss_mask.sum()) for r in group]])
            rows = gfpo_keep(torch.from_numpy(group.rewards)[None], lengths, keep, by=settings.by)
        else:
            rows = roc_keep(*_roc_arrays(group), keep, _draws(group))
        kept.append(replace(group, rollouts=tuple(group.rollouts[i] for i in rows[0].tolist())))
    return kept


def _roc_arrays(group: Group) -> tuple[Tensor, Tensor]:
    """Which responses are right, and how untidy each is: a broken format and a cut response count 1 each."""
    formats = [r.verdicts.get("format") for r in group]
    broken = [0.0 if v is None or v.score is None else 1.0 - v.score for v in formats]
    penalties = [b + float(r.truncated) for b, r in zip(broken, group, strict=True)]
    return torch.tensor([[outcome(r) == 1.0 for r in group]]), torch.tensor([penalties])


def _draws(group: Group) -> Tensor:
    """Uniform numbers of a group, equal on every rank and in a resumed run."""
    version = max(int(r.policy_versions.max()) for r in group)
    generator = np.random.Generator(np.random.Philox(key=derived_seed("roc", group.problem.id, version)))
    return torch.from_numpy(1.0 - generator.random((1, len(group))))


def assign(
    groups: Sequence[Group],
    examples: Sequence[Example],
    algorithm: Any,
    scores: TokenScores,
    part_weights: Mapping[str, float] | None = None,
) -> Credit:
    """Advantages and returns of the trained tokens of `examples`, one for each rollout of `groups`, in order.

    `part_weights`: weights of the reward parts by name, for `per_reward`; 1 where a name is missing.
    """
    lengths_N = torch.tensor([e.trained_tokens for e in examples])
    owners_T = torch.repeat_interleave(torch.arange(len(examples)), lengths_N)
    rewards_N = torch.tensor([r.reward for g in groups for r in g], dtype=torch.float64)
    a, returns = algorithm, None
    penalty_T = None if scores.kl is None else a.kl_coef * scores.kl.double()
    if a.baseline == "critic":
        rewards_T = _token_rewards(rewards_N, lengths_N, penalty_T)
        advantages, returns = _of_critic(rewards_T, scores, lengths_N, a)
    elif a.baseline == "none":
        scaled_N = _of_groups(groups, rewards_N, lengths_N, a, part_weights)
        rewards_T = _token_rewards(scaled_N.double(), lengths_N, penalty_T)
        advantages = rewards_to_go(rewards_T, lengths_N, gamma=a.gamma)
    else:
        if penalty_T is not None:
            rewards_N = rewards_N.index_add(0, owners_T, -penalty_T)
        advantages = _of_groups(groups, rewards_N, lengths_N, a, part_weights)[owners_T]
    if scores.process is not None:
        members = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(g) for g in groups]))
        process = process_advantages(scores.process, lengths_N, members, at_T=scores.process_at, gamma=a.gamma)
        advantages = a.process.outcome_coef * advantages + a.process.coef * process
    return Credit(whiten(advantages) if a.advantage == "whiten" else advantages, returns)


def _token_rewards(rewards_N: Tensor, lengths_N: Tensor, penalty_T: Tensor | None) -> Tensor:
    """Less the penalty at every token, and the response's reward at its last one: float64 [T]."""
    rewards_T = torch.zeros(int(lengths_N.sum()), dtype=torch.float64) if penalty_T is None else -penalty_T
    some = lengths_N > 0
    rewards_T[lengths_N.cumsum(0)[some] - 1] += rewards_N[some]
    return rewards_T


def _of_critic(rewards_T: Tensor, scores: TokenScores, lengths_N: Tensor, a: Any) -> tuple[Tensor, Tensor]:
    assert scores.values is not None
    values = scores.values.double()
    lam = a.gae_lambda if a.gae_alpha is None else length_adaptive_lambda(lengths_N, a.gae_alpha)
    advantages = gae(rewards_T, values, lengths_N, gamma=a.gamma, lam=lam)
    returns = gae(rewards_T, values, lengths_N, gamma=a.gamma, lam=a.gae_lambda_critic).double() + values
    return advantages, returns.float()


def _of_groups(
    groups: Sequence[Group], rewards_N: Tensor, lengths_N: Tensor, a: Any, part_weights: Mapping[str, float] | None
) -> Tensor:
    """One advantage for each response: float32 [N]. Groups of one size are one batch (a schedule may change it)."""
    starts = np.concatenate([[0], np.cumsum([len(g) for g in groups])])
    by_size: dict[int, list[int]] = defaultdict(list)
    for p, group in enumerate(groups):
        by_size[len(group)].append(p)
    advantages_N = torch.zeros(len(rewards_N))
    for size, members in by_size.items():
        rows_PG = torch.from_numpy(starts[members])[:, None] + torch.arange(size)
        if a.per_reward:
            found = _per_reward([groups[p] for p in members], part_weights or {})
        else:
            scale: Any = "none" if a.advantage == "whiten" else a.advantage
            found = group_advantages(
                rewards_N[rows_PG], scale=scale, baseline=a.baseline, lengths_PG=lengths_N[rows_PG]
            )
        advantages_N[rows_PG] = found
    return advantages_N


def _per_reward(groups: Sequence[Group], part_weights: Mapping[str, float]) -> Tensor:
    """GDPO. A part's values carry their weight already, which normalising takes away: it is given again."""
    names = sorted({name for g in groups for r in g for name in r.rewards})
    parts_KPG = torch.tensor([[[r.rewards.get(name, 0.0) for r in g] for g in groups] for name in names])
    return per_reward_advantages(parts_KPG, [abs(part_weights.get(name, 1.0)) for name in names])

"""Advantages of whole responses: how much better one was than what the policy usually does on the same problem.

The methods here compare rewards with one another; no value model is needed. Every token of a response gets its
response's advantage. They are one formula, A = (r - baseline) / scale:

    method                    baseline                       scale
    GRPO                      group                          std
    Dr. GRPO                  group                          none
    Lite-PPO                  group                          batch_std
    RLOO                      leave_one_out                  none
    OPO                       length_weighted                none
    REINFORCE++               none                           `gae.whiten` over the tokens of the batch
    REINFORCE++-baseline      group                          `gae.whiten` over the tokens of the batch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Baseline = Literal["group", "leave_one_out", "length_weighted", "none"]
AdvantageScale = Literal["none", "std", "batch_std"]


def group_advantages(
    rewards_PG: Tensor,
    *,
    scale: AdvantageScale,
    baseline: Baseline = "group",
    lengths_PG: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Rewards of shape [P problems, G samples] to advantages of the same shape, float32, without gradient.

    Baselines b_i of r_i within its group:

        group            mean(r)
        leave_one_out    mean of the other G - 1 rewards; r_i - b_i = G / (G - 1) * (r_i - mean(r))
                         (RLOO; Ahmadian et al. 2024, arXiv:2402.14740, eq. 7)
        length_weighted  sum_j |o_j| r_j / sum_j |o_j|, the baseline of least variance where gradient norms grow with
                         length (OPO; Hao et al. 2025, arXiv:2505.23585, eq. 12); `lengths_PG` are the |o_j|
        none             0

    Scales:

        std              std(r) + eps of the group (GRPO; Shao et al. 2024, arXiv:2402.03300, section 4.1.2, and
                         DeepSeek-R1, arXiv:2501.12948, eq. 3). The sample standard deviation (divided by G - 1), as
                         the public GRPO trainers take it; the papers do not say
        none             1 (Dr. GRPO; Liu et al. 2025, arXiv:2503.20783, section 3.2): a problem that is nearly always
                         or never solved weighs no more than its spread says, and in a group that is all wrong a small
                         format bonus cannot be blown up to the whole gradient
        batch_std        std + eps of all rewards of the batch (Lite-PPO; Liu et al. 2025, arXiv:2508.08221)

    Statistics are taken in float64. With a baseline of the group, a group of equal rewards gives exactly 0 (not
    rounding noise over eps). Raises ValueError on another shape, on G < 2 where the baseline or the scale is the
    group's, on a reward that is not finite, and on lengths that do not fit.
    """
    _check(rewards_PG, scale, baseline, lengths_PG)
    rewards = rewards_PG.detach().double()
    advantages = rewards - _baselines(rewards, baseline, lengths_PG)
    if scale == "std":
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + eps)
    elif scale == "batch_std":
        spread = rewards.std() if rewards.numel() > 1 else rewards.new_zeros(())
        advantages = torch.where(spread > 0, advantages / (spread + eps), 0.0)
    if baseline == "none":
        return advantages.float()
    varied_P1 = rewards.amax(dim=1, keepdim=True) > rewards.amin(dim=1, keepdim=True)
    return torch.where(varied_P1, advantages, 0.0).float()


def per_reward_advantages(parts_KPG: Tensor, weights: Sequence[float], *, eps: float = 1e-6) -> Tensor:
    """K rewards of each response, normalised apart and then summed: [K, P, G] to [P, G], float32.

    GDPO (Liu et al. 2026, arXiv:2601.05242):

        A_k,i = (r_k,i - mean(r_k)) / (std(r_k) + eps)      within the group, for each reward k
        S_i   = sum_k weights_k A_k,i
        A_i   = (S_i - mean(S)) / (std(S) + eps)            over the whole batch

    Summed first, rewards (1, 0) and (0, 1) of a group look alike and their difference is lost. Sample standard
    deviations. A batch without any spread gives exactly 0. Raises as `group_advantages`, and where `weights` does
    not have K entries.
    """
    if parts_KPG.ndim != 3 or len(weights) != parts_KPG.shape[0]:
        raise ValueError(
            f"per_reward_advantages: parts have shape {tuple(parts_KPG.shape)} and there are {len(weights)} weights: "
            "expected [rewards, problems, samples] and one weight for each reward"
        )
    apart = [
        w * group_advantages(part, scale="std", eps=eps).double() for w, part in zip(weights, parts_KPG, strict=True)
    ]
    total = torch.stack(apart).sum(dim=0)
    spread = total.std() if total.numel() > 1 else total.new_zeros(())
    return torch.where(spread > 0, (total - total.mean()) / (spread + eps), 0.0).float()


def _baselines(rewards_PG: Tensor, baseline: Baseline, lengths_PG: Tensor | None) -> Tensor:
    """b of the docstring, [P, 1] or [P, G], float64."""
    if baseline == "none":
        return torch.zeros_like(rewards_PG)
    if baseline == "leave_one_out":
        others = rewards_PG.shape[1] - 1
        return (rewards_PG.sum(dim=1, keepdim=True) - rewards_PG) / others
    if baseline == "length_weighted":
        assert lengths_PG is not None
        # A response without a trained token has no say; a group of such responses falls back to weight 1.
        lengths = lengths_PG.double()
        lengths = torch.where(lengths.sum(dim=1, keepdim=True) > 0, lengths, 1.0)
        return (lengths * rewards_PG).sum(dim=1, keepdim=True) / lengths.sum(dim=1, keepdim=True)
    return rewards_PG.mean(dim=1, keepdim=True)


def _check(rewards_PG: Tensor, scale: str, baseline: str, lengths_PG: Tensor | None) -> None:
    if scale not in get_args(AdvantageScale):
        raise ValueError(f"group_advantages: scale is {scale!r}, expected one of {list(get_args(AdvantageScale))}")
    if baseline not in get_args(Baseline):
        raise ValueError(f"group_advantages: baseline is {baseline!r}, expected one of {list(get_args(Baseline))}")
    least = 1 if baseline == "none" and scale != "std" else 2
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < least:
        raise ValueError(
            f"group_advantages: rewards have shape {tuple(rewards_PG.shape)}, expected [problems, samples] "
            f"with at least {least} samples per problem; raise samples_per_problem"
        )
    if baseline == "length_weighted" and (lengths_PG is None or lengths_PG.shape != rewards_PG.shape):
        found = None if lengths_PG is None else tuple(lengths_PG.shape)
        raise ValueError(f"group_advantages: lengths have shape {found}, expected that of the rewards")
    finite_PG = torch.isfinite(rewards_PG)
    if not bool(finite_PG.all()):
        bad = (~finite_PG).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"group_advantages: groups {bad} hold a reward that is not finite; drop failed groups first")

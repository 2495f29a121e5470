"""Advantages: how much better a response was than what the policy usually does on the same problem.

Both methods here compare the G responses of one problem with one another; no value model is needed. Every
token of a response gets its response's advantage.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

AdvantageScale = Literal["none", "std"]


def group_advantages(rewards_PG: Tensor, *, scale: AdvantageScale, eps: float = 1e-6) -> Tensor:
    """Rewards of shape [P problems, G samples] to advantages of the same shape, float32, without gradient.

    scale="std" (GRPO; Shao et al. 2024, arXiv:2402.03300, section 4.1.2, and DeepSeek-R1, arXiv:2501.12948,
    eq. 3):

        A_i = (r_i - mean(r)) / (std(r) + eps)

    with the sample standard deviation (divided by G - 1), as the public GRPO trainers take it; the paper does
    not say.

    scale="none" (Dr. GRPO; Liu et al. 2025, arXiv:2503.20783, section 3.2): A_i = r_i - mean(r). Without the
    division, a problem that is nearly always or nearly never solved weighs no more than its reward spread
    says, and in a group that is all wrong a small format bonus cannot be blown up to the whole gradient.

    Statistics are taken in float64, and a group of equal rewards gives exactly 0 (not rounding noise over
    eps). Raises ValueError on another shape, on G < 2 (one sample has no baseline), and on a reward that is
    not finite.
    """
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(
            f"group_advantages: rewards have shape {tuple(rewards_PG.shape)}, expected [problems, samples] "
            "with at least 2 samples per problem; raise samples_per_problem"
        )
    if scale not in ("none", "std"):
        raise ValueError(f"group_advantages: scale is {scale!r}, expected 'none' or 'std'")
    rewards = rewards_PG.detach().double()
    if not bool(torch.isfinite(rewards).all()):
        bad = (~torch.isfinite(rewards)).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"group_advantages: groups {bad} hold a reward that is not finite; drop failed groups first")
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "std":
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + eps)
    varied_P1 = rewards.amax(dim=1, keepdim=True) > rewards.amin(dim=1, keepdim=True)
    return torch.where(varied_P1, advantages, 0.0).float()

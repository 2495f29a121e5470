"""What is done about entropy: a bonus whose coefficient adapts, and gradient on the high-entropy tokens only."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_coefficient(
    coefficient: float, entropy: float, *, target: float, delta: float, maximum: float
) -> tuple[float, float]:
    """(the coefficient that acts in the next step, the one to carry on) of Skywork-OR1's adaptive bonus.

        c_{k+1} = c_k + delta  where entropy_k <= target, else c_k - delta,   in [0, maximum]
        acting  = c_{k+1}      where entropy_k <= target, else 0

    He et al. 2025, arXiv:2505.22312, section 4.2: a fixed coefficient is either too weak late or explodes. `entropy`:
    mean over the trained tokens of the step just done, in nats. Raises ValueError on numbers below 0.
    """
    if min(coefficient, target, delta, maximum) < 0:
        raise ValueError(
            f"entropy_coefficient: coefficient {coefficient}, target {target}, delta {delta}, maximum {maximum}: "
            "none may be negative"
        )
    low = entropy <= target
    following = min(max(coefficient + (delta if low else -delta), 0.0), maximum)
    return (following if low else 0.0), following


def high_entropy_mask(entropy_T: Tensor, share: float) -> Tensor:
    """True for the tokens in the top `share` of entropy: bool [T].

    The 80/20 rule (Wang et al. 2025, arXiv:2506.01939, eq. 6; share = 0.2): the policy gradient of the step is taken
    at forking tokens only, 1[H_t >= tau] with tau the (1 - share) quantile over all tokens of the step. Pass the whole
    step's, every rank's: the threshold is global. The loss denominator stays that of all tokens. Ties are all kept.
    Raises ValueError where share is not in (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"high_entropy_mask: share is {share}, expected a number in (0, 1] (0.2 is usual)")
    if not len(entropy_T):
        return torch.zeros(0, dtype=torch.bool)
    # Not torch.quantile, which refuses more than 2^24 numbers: the same linear interpolation between two order ones.
    position = (1.0 - share) * (len(entropy_T) - 1)
    ordered = entropy_T.detach().double().sort().values
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    threshold = ordered[low] + (ordered[high] - ordered[low]) * (position - low)
    return entropy_T.double() >= threshold

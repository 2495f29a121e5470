"""The critic's loss: squared error against returns, with a bound on how far the value may move."""

from __future__ import annotations

import torch
from torch import Tensor


def value_loss(
    values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, denominator: float, *, clip: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimise (a scalar with gradient through `values_T`) and metrics that are sums over tokens.

        L = (1 / denominator) * sum_t  1/2 max( (V_t - R_t)^2, (clip(V_t, V_old - c, V_old + c) - R_t)^2 )

    The clip is that of the PPO code base (Schulman et al. 2017; Engstrom et al. 2020, arXiv:2005.12729, section 3);
    clip=None is plain regression. Arrays are [T] over trained tokens: values now, values when the batch was scored,
    and the critic's targets (no gradient through either). `denominator`: trained tokens of the whole step.

    Metrics: "value_clip", tokens whose gradient the bound cut; "value_error", (V - R)^2. Raises ValueError on unequal
    shapes and on bounds that make no sense.
    """
    if not values_T.shape == old_values_T.shape == returns_T.shape or values_T.ndim != 1:
        raise ValueError(
            f"value_loss: values {tuple(values_T.shape)}, old values {tuple(old_values_T.shape)}, returns "
            f"{tuple(returns_T.shape)}: expected one flat shape [T] for all"
        )
    if not denominator > 0 or (clip is not None and not clip > 0):
        raise ValueError(f"value_loss: denominator is {denominator}, clip {clip}: each must be positive")
    returns_T, old_values_T = returns_T.detach(), old_values_T.detach()
    plain_T = (values_T - returns_T).square()
    if clip is None:
        error_T, cut_T = plain_T, torch.zeros_like(plain_T, dtype=torch.bool)
    else:
        near_T = values_T.clamp(old_values_T - clip, old_values_T + clip)
        clipped_T = (near_T - returns_T).square()
        error_T, cut_T = torch.maximum(plain_T, clipped_T), (clipped_T > plain_T) & (near_T != values_T)
    metrics = {"value_clip": cut_T.sum().float(), "value_error": plain_T.detach().sum().float()}
    return 0.5 * error_T.sum() / denominator, metrics

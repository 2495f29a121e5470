"""The clipped policy-gradient loss of PPO, GRPO and DAPO, as a sum over one flat stream of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from r1kit.algorithms.kl import MAX_LOG_RATIO


def policy_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    mask_T: Tensor,
    denominator: float,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    weights_T: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimise (a scalar with gradient through `logprobs_T`) and metrics that are sums over masked
    tokens.

    With the ratio rho_t = exp(logprobs_t - old_logprobs_t):

        L = - (1 / denominator) * sum_t  mask_t * weights_t * phi(rho_t, A_t)
        phi(rho, A) = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)
        and where dual_clip = c is given and A < 0:  max(phi, c A)

    PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7) has clip_low = clip_high; DAPO's Clip-Higher
    (arXiv:2503.14476, eq. 8) has clip_high > clip_low (0.28 and 0.2) so that unlikely tokens keep room to
    grow; dual clip: Ye et al. 2020, arXiv:1912.09729, eq. 5. One update per batch is strictly on-policy: rho
    = 1, and the gradient is A grad log policy.

    Arrays are [T]: log-probs in nats under the policy in training and under the policy that sampled (no
    gradient), both at the sampling temperature; `mask_T` bool, True where the policy chose the token. Values
    at masked tokens, NaN included, touch neither loss nor gradient. `denominator` and `weights_T` (default 1)
    come from `r1kit.algorithms.aggregation`: global over the step, so micro-batches and ranks add.

    Metrics, float32 scalars without gradient, each a sum over masked tokens (divide by "tokens" at the end):
    "tokens"; "ratio"; "clip_low" and "clip_high", tokens whose gradient the lower (A < 0) or upper (A > 0)
    bound cut; "dual_clip", those cut by c; "approx_kl", rho - 1 - log rho, an estimate of KL(old || policy).

    The log-ratio is clamped to +-20, beyond which a token has no gradient. Raises ValueError on unequal
    shapes and on bounds that make no sense.
    """
    _check(logprobs_T, old_logprobs_T, advantages_T, mask_T, denominator, clip_low, clip_high, dual_clip)
    mask_T = mask_T.bool()
    zero = logprobs_T.new_zeros(())
    advantages_T = torch.where(mask_T, advantages_T.detach(), zero)
    # `where` and not a product: what stands at a masked token may be infinite, and 0 * inf is NaN.
    log_ratio_T = torch.where(mask_T, logprobs_T - old_logprobs_T.detach(), zero)
    log_ratio_T = log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_T = log_ratio_T.exp()

    gain_T = torch.minimum(ratio_T * advantages_T, ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages_T)
    if dual_clip is not None:
        gain_T = torch.where(advantages_T < 0, torch.maximum(gain_T, dual_clip * advantages_T), gain_T)
    weighted_T = gain_T if weights_T is None else gain_T * weights_T
    loss = -weighted_T.sum() / denominator

    with torch.no_grad():
        below = (ratio_T < 1.0 - clip_low) & (advantages_T < 0)
        above = (ratio_T > 1.0 + clip_high) & (advantages_T > 0)
        far = torch.zeros_like(below) if dual_clip is None else (ratio_T > dual_clip) & (advantages_T < 0)
        drift_T = torch.expm1(log_ratio_T) - log_ratio_T
        metrics = {
            "tokens": mask_T.sum().float(),
            "ratio": torch.where(mask_T, ratio_T, zero).sum().float(),
            "clip_low": below.sum().float(),
            "clip_high": above.sum().float(),
            "dual_clip": far.sum().float(),
            "approx_kl": drift_T.sum().float(),
        }
    return loss, metrics


def _check(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    mask_T: Tensor,
    denominator: float,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> None:
    shapes = {tuple(x.shape) for x in (logprobs_T, old_logprobs_T, advantages_T, mask_T)}
    if len(shapes) != 1 or logprobs_T.ndim != 1:
        raise ValueError(f"policy_loss: arrays have shapes {sorted(shapes)}, expected one flat shape [T] for all")
    if not (math.isfinite(denominator) and denominator > 0):
        raise ValueError(f"policy_loss: denominator is {denominator}, expected a positive number of the global step")
    if clip_low < 0 or clip_high < 0:
        raise ValueError(f"policy_loss: clip_low={clip_low}, clip_high={clip_high}: neither may be negative")
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(f"policy_loss: dual_clip is {dual_clip}, expected more than 1 (3 is usual), or None")

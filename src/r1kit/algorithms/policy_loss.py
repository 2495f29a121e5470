"""Policy-gradient losses as sums over one flat stream of tokens: PPO's clip and what was made of it."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from r1kit.algorithms.kl import MAX_LOG_RATIO

Objective = Literal["clip", "gspo", "cispo", "gmpo", "reinforce"]


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
    objective: Objective = "clip",
    sequence_T: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimise (a scalar with gradient through `logprobs_T`) and metrics that are sums over masked
    tokens.

        L = - (1 / denominator) * sum_t  mask_t * weights_t * phi_t

    With the ratio rho_t = exp(logprobs_t - old_logprobs_t) and A_t the advantage:

        clip       phi = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)
                   and where dual_clip = c is given and A < 0:  max(phi, c A)
        gspo       the same with one ratio for the response, s = exp(mean_t log rho_t)
        cispo      phi = sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log pi: every token keeps a gradient
        gmpo       phi = A exp(mean_t l_t), l_t = min(log rho, clip(log rho, -clip_low, clip_high)) where A > 0, with
                   max in place of min where A < 0: the geometric mean of the clipped ratios
        reinforce  phi = A log pi

    clip: PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7) has clip_low = clip_high; DAPO's Clip-Higher
    (arXiv:2503.14476, eq. 8) has clip_high > clip_low (0.28 and 0.2) so that unlikely tokens keep room to
    grow; dual clip: Ye et al. 2020, arXiv:1912.09729, eq. 5. GSPO: Zheng et al. 2025, arXiv:2507.18071, eq. 5. CISPO:
    MiniMax 2025, arXiv:2506.13585, eq. 4. GMPO: Zhao et al. 2025, arXiv:2507.20673, eq. 4. One update per batch is
    strictly on-policy: rho = 1, and every objective has the gradient A grad log policy (gspo and gmpo: of the mean).

    Arrays are [T]: log-probs in nats under the policy in training and under the policy that sampled (no
    gradient), both at the sampling temperature; `mask_T` bool, True where the policy chose the token. Values
    at masked tokens, NaN included, touch neither loss nor gradient. `denominator` and `weights_T` (default 1)
    come from `r1kit.algorithms.aggregation`: global over the step, so micro-batches and ranks add. `sequence_T` (gspo
    and gmpo) names the response of each token, which must stand whole in the stream, and its tokens share one A; with
    the aggregation sequence_mean the sum over tokens is then the papers' mean over responses.

    Metrics, float32 scalars without gradient, each a sum over masked tokens (divide by "tokens" at the end):
    "tokens"; "ratio"; "clip_low" and "clip_high", tokens beyond the lower bound (A < 0) or the upper one (A > 0), which
    cuts their gradient (cispo: bounds it); "dual_clip", those cut by c; "approx_kl", rho - 1 - log rho, an estimate of
    KL(old || policy).

    The log-ratio is clamped to +-20, beyond which a token has no gradient. Raises ValueError on unequal
    shapes, on bounds that make no sense and on a missing `sequence_T`.
    """
    _check(logprobs_T, old_logprobs_T, advantages_T, mask_T, denominator, clip_low, clip_high, dual_clip)
    _check_objective(objective, sequence_T, logprobs_T)
    mask_T = mask_T.bool()
    zero = logprobs_T.new_zeros(())
    advantages_T = torch.where(mask_T, advantages_T.detach(), zero)
    # `where` and not a product: what stands at a masked token may be infinite, and 0 * inf is NaN.
    log_ratio_T = torch.where(mask_T, logprobs_T - old_logprobs_T.detach(), zero)
    log_ratio_T = log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    drift_T = torch.expm1(log_ratio_T.detach()) - log_ratio_T.detach()
    if objective == "gspo":
        log_ratio_T = _response_means(log_ratio_T, mask_T, sequence_T)
    ratio_T = log_ratio_T.exp()
    low, high = 1.0 - clip_low, 1.0 + clip_high
    if objective == "gmpo":
        low, high = math.exp(-clip_low), math.exp(clip_high)

    if objective in ("clip", "gspo"):
        gain_T = _clipped(ratio_T, advantages_T, low, high, dual_clip)
    elif objective == "gmpo":
        one_sided_T = _one_sided(log_ratio_T, advantages_T, clip_low, clip_high)
        gain_T = _response_means(one_sided_T, mask_T, sequence_T).exp() * advantages_T
    else:
        factor_T = ratio_T.detach().clamp(low, high) if objective == "cispo" else torch.ones_like(ratio_T)
        gain_T = factor_T * advantages_T * torch.where(mask_T, logprobs_T, zero)
    weighted_T = gain_T if weights_T is None else gain_T * weights_T
    loss = -weighted_T.sum() / denominator

    with torch.no_grad():
        bounded, cut = objective != "reinforce", dual_clip is not None and objective in ("clip", "gspo")
        metrics_T = {
            "tokens": mask_T,
            "ratio": torch.where(mask_T, ratio_T, zero),
            "clip_low": (ratio_T < low) & (advantages_T < 0) & bounded,
            "clip_high": (ratio_T > high) & (advantages_T > 0) & bounded,
            "dual_clip": (ratio_T > (dual_clip or 0.0)) & (advantages_T < 0) & cut,
            "approx_kl": drift_T,
        }
        return loss, {name: value_T.sum().float() for name, value_T in metrics_T.items()}


def _clipped(ratio_T: Tensor, advantages_T: Tensor, low: float, high: float, dual_clip: float | None) -> Tensor:
    """min(rho A, clip(rho) A), and at least c A where A < 0."""
    gain_T = torch.minimum(ratio_T * advantages_T, ratio_T.clamp(low, high) * advantages_T)
    if dual_clip is None:
        return gain_T
    return torch.where(advantages_T < 0, torch.maximum(gain_T, dual_clip * advantages_T), gain_T)


def _one_sided(log_ratio_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """l of gmpo: log-ratios held back on the side to which the advantage pushes."""
    near_T = log_ratio_T.clamp(-clip_low, clip_high)
    return torch.where(advantages_T > 0, torch.minimum(log_ratio_T, near_T), torch.maximum(log_ratio_T, near_T))


def positive_nll(logprobs_T: Tensor, positive_T: Tensor, denominator: float) -> Tensor:
    """Negative log-likelihood of right responses, a scalar: -(1 / denominator) * sum_t positive_t log pi_t.

    VAPO's positive-example loss (arXiv:2504.05118, eq. 11; weight 0.1). `positive_T` bool, True at the trained tokens
    of right responses; `denominator` counts them over the whole step. 0 where there is none (denominator 0).
    """
    if denominator == 0:
        return (logprobs_T * 0.0).sum()
    return -torch.where(positive_T.bool(), logprobs_T, 0.0).sum() / denominator


def _response_means(x_T: Tensor, mask_T: Tensor, sequence_T: Tensor | None) -> Tensor:
    """The mean of x over the masked tokens of each response, at each of its tokens: [T]; x is 0 elsewhere."""
    assert sequence_T is not None
    owners = sequence_T.long()
    count = int(owners.max()) + 1 if len(owners) else 0
    sums_N = x_T.new_zeros(count).index_add(0, owners, x_T)
    tokens_N = x_T.new_zeros(count).index_add(0, owners, mask_T.to(x_T.dtype))
    return torch.where(mask_T, (sums_N / tokens_N.clamp(min=1))[owners], x_T.new_zeros(()))


def _check_objective(objective: str, sequence_T: Tensor | None, logprobs_T: Tensor) -> None:
    if objective not in get_args(Objective):
        raise ValueError(f"policy_loss: objective is {objective!r}, expected one of {list(get_args(Objective))}")
    if objective in ("gspo", "gmpo") and (sequence_T is None or sequence_T.shape != logprobs_T.shape):
        raise ValueError(f"policy_loss: {objective} needs sequence_T, the response of each token, of shape [T]")


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

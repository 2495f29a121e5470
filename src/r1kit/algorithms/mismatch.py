"""The same policy computed twice, by the engine that sampled and by the trainer: how far apart, and what to do.

Sampling and training run different kernels, shapes and number formats, so the log-prob of a sampled token differs a
little between the two; over a long response the little adds up. With d_t = log p_trainer(t) - log p_engine(t) at the
same weights, importance sampling puts the trainer's expectation right: each token is weighted by exp(d), or exp of the
response's sum. The weights here bound or mask that correction. All are constants to the gradient:

    token_tis        min(exp(d_t), C)                     truncated IS (Yao et al. 2025, "Your efficient RL framework
                                                          secretly brings you off-policy RL training")
    sequence_tis     min(exp(sum_t d_t), C)               the same on whole responses
    masked_is        exp(d_t) inside [low, high], else 0  IcePop (Ling team 2025, "Every step evolves")
    geometric_mask   1 where exp(mean_t d_t) lies inside  sequence mask on the geometric mean of the ratios
                     [low, high], else 0

Arrays are flat, [T], with the index of each token's response in `sequence_T`, as in `aggregation`; everything here is
over sampled tokens only.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from r1kit.algorithms.kl import MAX_LOG_RATIO

Correction = Literal["token_tis", "sequence_tis", "masked_is", "geometric_mask"]


def correction_weights(
    correction: Correction,
    trainer_logprobs_T: Tensor,
    engine_logprobs_T: Tensor,
    sequence_T: Tensor,
    *,
    cap: float = 2.0,
    low: float = 0.5,
    high: float = 5.0,
) -> Tensor:
    """Weight of each token's policy loss, float32 [T] without gradient; the table above says which.

    `cap` is the C of the truncated forms; `low` and `high` bound the masked ones (IcePop publishes 0.5 and 5; of the
    geometric mean, 0.999 and 1.002 are usual). Log-ratios are clamped to +-20. Raises ValueError on an unknown name,
    unequal shapes, or bounds without 1 between them.
    """
    log_ratio_T = _log_ratio(trainer_logprobs_T, engine_logprobs_T, sequence_T)
    if correction not in get_args(Correction):
        raise ValueError(f"correction is {correction!r}, expected one of {', '.join(get_args(Correction))}")
    if not (low < 1 < high and cap > 1):
        raise ValueError(f"correction_weights: low={low}, high={high}, cap={cap}: expected low < 1 < high and cap > 1")
    if correction == "token_tis":
        return _ratio(log_ratio_T).clamp(max=cap)
    if correction == "masked_is":
        ratio_T = _ratio(log_ratio_T)
        return torch.where((ratio_T >= low) & (ratio_T <= high), ratio_T, 0.0)
    sums_N, counts_N = _by_sequence(log_ratio_T, sequence_T)
    if correction == "sequence_tis":
        return _ratio(sums_N).clamp(max=cap)[sequence_T]
    mean_N = _ratio(sums_N / counts_N.clamp(min=1))
    return ((mean_N >= low) & (mean_N <= high)).float()[sequence_T]


def gap_statistics(trainer_logprobs_T: Tensor, engine_logprobs_T: Tensor, sequence_T: Tensor) -> dict[str, float]:
    """How far trainer and engine are apart, before anything is masked. Nats, or shares.

    Per token: `gap_mean`, `gap_p95`, `gap_max` of |d_t|; `gap_k3`, the mean of exp(d) - 1 - d, an estimate of
    KL(engine || trainer); `gap_ess`, the effective sample size (sum w)^2 / (n sum w^2) of w = exp(d), as a share of n.
    Per response the same of its sum of d, under `gap_sequence_*`. Empty where there is no token.
    """
    log_ratio_T = _log_ratio(trainer_logprobs_T, engine_logprobs_T, sequence_T)
    if not len(log_ratio_T):
        return {}
    sums_N, counts_N = _by_sequence(log_ratio_T, sequence_T)
    sums_N = sums_N[counts_N > 0]
    tokens = {f"gap_{name}": value for name, value in _spread(log_ratio_T).items()}
    return tokens | {f"gap_sequence_{name}": value for name, value in _spread(sums_N).items() if name != "k3"}


def _spread(log_ratio_N: Tensor) -> dict[str, float]:
    size_N = log_ratio_N.abs()
    clamped_N = log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    weight_N = clamped_N.exp()
    return {
        "mean": size_N.mean().item(),
        # Not torch.quantile, which refuses more than 16 million values; the smallest value that 95 % do not exceed.
        "p95": size_N.kthvalue(max(1, -(-95 * len(size_N) // 100))).values.item(),
        "max": size_N.max().item(),
        "k3": (torch.expm1(clamped_N) - clamped_N).mean().item(),
        "ess": (weight_N.sum().square() / (len(weight_N) * weight_N.square().sum())).item(),
    }


def _log_ratio(trainer_logprobs_T: Tensor, engine_logprobs_T: Tensor, sequence_T: Tensor) -> Tensor:
    """d_t in float64."""
    shapes = {tuple(x.shape) for x in (trainer_logprobs_T, engine_logprobs_T, sequence_T)}
    if len(shapes) != 1 or trainer_logprobs_T.ndim != 1:
        raise ValueError(f"mismatch: arrays have shapes {sorted(shapes)}, expected one flat shape [T] for all")
    return trainer_logprobs_T.detach().double() - engine_logprobs_T.detach().double()


def _ratio(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().float()


def _by_sequence(log_ratio_T: Tensor, sequence_T: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of d, number of tokens) of each response, [N]."""
    count = int(sequence_T.max()) + 1 if len(sequence_T) else 0
    zeros_N = log_ratio_T.new_zeros(count)
    return zeros_N.index_add(0, sequence_T, log_ratio_T), zeros_N.index_add(0, sequence_T, torch.ones_like(log_ratio_T))

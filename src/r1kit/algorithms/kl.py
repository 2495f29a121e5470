"""Estimators of KL(policy || reference), one value per sampled token.

After Schulman, "Approximating KL Divergence" (2020). With x sampled from the policy and k = log policy(x) -
log reference(x), all three are estimates of the reverse KL; as *losses* they differ, because the gradient
flows through the log-prob of the sampled token only and not through the sampling:

    estimator   value              mean    gradient (times grad log policy)   in expectation that of
    k1          k                  exact   1                                  nothing: 0, only noise
    k2          k^2 / 2            biased  k                                  KL(policy || reference)
    k3          exp(-k) - 1 + k    exact   1 - exp(-k)                        KL(reference || policy)
    k3_k2       that of k3         exact   k                                  KL(policy || reference)

(on-policy; the tests prove the table by enumerating a small vocabulary). k3_k2 takes the value of one and the
gradient of the other (straight through): a low-variance number to watch, and the penalty that was meant. k3 is what
GRPO and DeepSeek-R1 use (arXiv:2402.03300 eq. 4, arXiv:2501.12948 eq. 2); it is never negative and of low variance. k1
belongs in the reward or in a log, never in a loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3", "k3_k2"]

# exp of a larger log-ratio leaves float32's useful range; a token this far off is a fault to log, not to
# learn from.
MAX_LOG_RATIO = 20.0


def k1(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """log(policy / reference) per token, in nats; of either sign."""
    return logprobs_T - reference_logprobs_T


def k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """Half the squared log-ratio per token: as a loss, its on-policy gradient is that of the reverse KL."""
    return 0.5 * (logprobs_T - reference_logprobs_T).square()


def k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """reference/policy - 1 - log(reference/policy) per token: unbiased, never negative, the GRPO penalty.

    The log-ratio is clamped to +-20 inside the exponential.
    """
    log_ratio = reference_logprobs_T - logprobs_T
    # expm1 keeps the value exact to rounding where policy and reference nearly agree, which is nearly always.
    return torch.expm1(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)) - log_ratio


def k3_k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2."""
    straight = k2(logprobs_T, reference_logprobs_T)
    return straight + (k3(logprobs_T, reference_logprobs_T) - straight).detach()


_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "k3_k2": k3_k2}


def kl_estimate(logprobs_T: Tensor, reference_logprobs_T: Tensor, estimator: KLEstimator) -> Tensor:
    """The named estimator per token: log-probs [T] of policy (with gradient) and reference to values [T], in
    nats.

    Both must be of the same tokens at the same temperature. Values at tokens that were not sampled mean
    nothing: multiply by the loss mask. Raises ValueError on an unknown name or unequal shapes.
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(f"kl_estimate: estimator is {estimator!r}, expected one of {sorted(_ESTIMATORS)}")
    if logprobs_T.shape != reference_logprobs_T.shape:
        raise ValueError(
            f"kl_estimate: log-probs have shape {tuple(logprobs_T.shape)}, the reference's "
            f"{tuple(reference_logprobs_T.shape)}"
        )
    return _ESTIMATORS[estimator](logprobs_T, reference_logprobs_T)

"""Log-probs and entropy of the policy at chosen tokens, straight from hidden states and the head's weight.

The logits of a step, [T, V], are the largest array of RL training: 16k tokens of a 152k vocabulary take 10 GB
in float32. Here they exist one chunk of tokens at a time; the backward pass makes them again. Where the whole
array is small (the tiny vocabularies), its probabilities are kept instead, because making them again would
cost more than it saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements (4 bytes) of one chunk of logits that stay in a core's cache; never fewer than MIN_ROWS tokens,
# because each chunk reads the whole head once.
CACHED_ELEMENTS = 1 << 18
MIN_ROWS = 256
# Up to this many probabilities (64 MiB) are kept for the backward pass rather than made again.
KEEP_ELEMENTS = 1 << 24


def chunked_logprobs(
    hidden_TD: Tensor,
    head_weight_VD: Tensor,
    targets_T: Tensor,
    temperature_T: Tensor | float = 1.0,
    chunk: int | None = None,
    *,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """(logprobs [T], entropy [T]), float32, in nats, of softmax(hidden @ head.T / temperature).

    `hidden_TD`: hidden states at the positions that predict `targets_T` (int64 [T]); pass trained positions
    only. `head_weight_VD`: the output matrix, of the same dtype. `temperature_T`: one positive number or one
    per token. `chunk`: tokens per chunk; by default, as many as fit a core's cache, at least 256.

    Log-probs carry gradient to `hidden_TD` and `head_weight_VD`, exact as that of log_softmax. Entropy carries
    one with `entropy_gradient` only (as a rule it is watched, not trained); the backward pass then takes more
    passes over the chunk. Softmax runs in float32 whatever the dtype; the head's gradient
    is summed in float32. Memory: 2 * chunk * V floats, plus T * V where T * V <= 2^24 and a gradient is
    wanted. Not twice differentiable. Raises ValueError on shapes, dtypes or temperatures that do not fit.
    """
    check_logprob_inputs(hidden_TD, head_weight_VD, targets_T, temperature_T)
    tokens, vocabulary = hidden_TD.shape[0], head_weight_VD.shape[0]
    rows = chunk if chunk is not None else max(MIN_ROWS, CACHED_ELEMENTS // vocabulary)
    scale_T: Tensor | None = None
    if isinstance(temperature_T, Tensor):
        scale_T = temperature_T.detach().to(device=hidden_TD.device, dtype=torch.float32)
    elif temperature_T != 1.0:
        scale_T = torch.full((tokens,), float(temperature_T), dtype=torch.float32, device=hidden_TD.device)
    wants_gradient = torch.is_grad_enabled() and (hidden_TD.requires_grad or head_weight_VD.requires_grad)
    keep = wants_gradient and tokens * vocabulary <= KEEP_ELEMENTS and not entropy_gradient
    logprobs_T, entropy_T = _ChunkedLogprobs.apply(
        hidden_TD, head_weight_VD, targets_T.long(), scale_T, rows, keep, entropy_gradient
    )
    return logprobs_T, entropy_T


def check_logprob_inputs(
    hidden_TD: Tensor, head_weight_VD: Tensor, targets_T: Tensor, temperature_T: Tensor | float
) -> None:
    """ValueError where shapes, dtypes or temperatures do not fit one another."""
    fits = hidden_TD.ndim == head_weight_VD.ndim == 2 and hidden_TD.shape[1] == head_weight_VD.shape[1]
    if not fits or targets_T.shape != hidden_TD.shape[:1]:
        raise ValueError(
            f"chunked_logprobs: hidden {tuple(hidden_TD.shape)}, head {tuple(head_weight_VD.shape)}, targets "
            f"{tuple(targets_T.shape)}: expected [T, D], [V, D] and [T]"
        )
    if hidden_TD.dtype != head_weight_VD.dtype:
        raise ValueError(f"chunked_logprobs: hidden is {hidden_TD.dtype}, the head {head_weight_VD.dtype}: cast one")
    if isinstance(temperature_T, Tensor):
        if temperature_T.shape != targets_T.shape or not bool((temperature_T > 0).all()):
            raise ValueError("chunked_logprobs: temperature_T must hold one positive number per token")
    elif not temperature_T > 0:
        raise ValueError(f"chunked_logprobs: temperature is {temperature_T}, expected a positive number")


def _logits_into(
    buffer_RV: Tensor, hidden_CD: Tensor, head_VD: Tensor, temperature_T: Tensor | None, part: slice
) -> Tensor:
    """float32 logits [C, V] divided by temperature, in the buffer: a fresh array would page-fault."""
    logits_CV = buffer_RV[: hidden_CD.shape[0]]
    if hidden_CD.dtype == torch.float32:
        torch.mm(hidden_CD, head_VD.t(), out=logits_CV)
    else:
        logits_CV.copy_(torch.mm(hidden_CD, head_VD.t()))
    return logits_CV if temperature_T is None else logits_CV.div_(temperature_T[part, None])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right in place, the sum in float32 whatever the dtype of the factors."""
    if left.dtype == total.dtype:
        return total.addmm_(left, right)
    return total.add_(torch.mm(left, right))


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        head_VD: Tensor,
        targets_T: Tensor,
        temperature_T: Tensor | None,
        rows: int,
        keep: bool,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        tokens, vocabulary = hidden_TD.shape[0], head_VD.shape[0]
        rows = min(rows, tokens)
        logprobs_T = hidden_TD.new_empty(tokens, dtype=torch.float32)
        entropy_T = torch.empty_like(logprobs_T)
        logits_RV, logp_RV = hidden_TD.new_empty((2, rows, vocabulary), dtype=torch.float32)
        probs_TV = hidden_TD.new_empty((tokens, vocabulary), dtype=torch.float32) if keep else None
        for start in range(0, tokens, max(rows, 1)):
            part = slice(start, start + rows)
            logits_CV = _logits_into(logits_RV, hidden_TD[part], head_VD, temperature_T, part)
            logp_CV = torch.log_softmax(logits_CV, dim=-1, out=logp_RV[: len(logits_CV)])
            logprobs_T[part] = logp_CV.gather(1, targets_T[part, None])[:, 0]
            # The buffer of the logits is free now: it, or the kept array, takes the probabilities.
            probs_CV = torch.exp(logp_CV, out=logits_CV if probs_TV is None else probs_TV[part])
            entropy_T[part] = logp_CV.mul_(probs_CV).sum(dim=-1).neg_()
        kept_entropy_T = entropy_T if entropy_gradient else None
        ctx.save_for_backward(hidden_TD, head_VD, targets_T, temperature_T, probs_TV, kept_entropy_T)
        ctx.rows = rows
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_T)
        return logprobs_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor, entropy_grad_T: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TD, head_VD, targets_T, temperature_T, probs_TV, entropy_T = ctx.saved_tensors
        grad_T = grad_T.float() if temperature_T is None else grad_T.float() / temperature_T
        if entropy_T is not None and temperature_T is not None:
            entropy_grad_T = entropy_grad_T / temperature_T
        tokens, rows, vocabulary = hidden_TD.shape[0], ctx.rows, head_VD.shape[0]
        to_hidden, to_head = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden_TD) if to_hidden else None
        head_grad = torch.zeros_like(head_VD, dtype=torch.float32) if to_head else None
        delta_RV = grad_T.new_empty((rows, vocabulary))
        logits_RV = torch.empty_like(delta_RV) if probs_TV is None else None
        for start in range(0, tokens, max(rows, 1)):
            part = slice(start, start + rows)
            hidden_CD, grad_C1 = hidden_TD[part], grad_T[part, None]
            delta_CV = delta_RV[: len(hidden_CD)]
            if logits_RV is None:
                torch.mul(probs_TV[part], -grad_C1, out=delta_CV)
            else:
                logits_CV = _logits_into(logits_RV, hidden_CD, head_VD, temperature_T, part)
                torch.softmax(logits_CV, dim=-1, out=delta_CV)
                if entropy_T is None:
                    delta_CV.mul_(-grad_C1)
                else:
                    # d entropy / d logit = -p * (log p + entropy), beside the log-prob's -p.
                    shift_C1 = entropy_T[part, None] - torch.logsumexp(logits_CV, dim=-1, keepdim=True)
                    logits_CV.add_(shift_C1).mul_(entropy_grad_T[part, None]).add_(grad_C1)
                    delta_CV.mul_(logits_CV.neg_())
            # d logprob / d logit = onehot - p
            factor_CV = delta_CV.scatter_add_(1, targets_T[part, None], grad_C1).to(hidden_TD.dtype)
            if hidden_grad is not None:
                torch.mm(factor_CV, head_VD, out=hidden_grad[part])
            if head_grad is not None:
                head_grad = _add_product(head_grad, factor_CV.t(), hidden_CD)
        return hidden_grad, None if head_grad is None else head_grad.to(head_VD.dtype), *(None,) * 5

"""Fused building blocks of the decoder, each with a hand-written backward.

On a CPU the time outside matrix products is memory traffic, so each block touches its activations as few times as it
can: the gain of a norm is folded into the weight behind it, a residual is added inside the product, RoPE is one complex
multiplication, and SwiGLU writes both halves of its gradient in place. Every block equals the plain formula in its
docstring to rounding (tests/models/test_functional.py checks values and gradients in float64).

Array names carry their axes: T tokens, D model width, N outputs, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_normalize(x_TD: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + eps) over the last axis, without gain (Zhang & Sennrich 2019, arXiv 1910.07467).

    Returns the normalised array and the reciprocal root mean square [T, 1]. Half-precision input is normalised in
    float32 and returned in its own dtype, as Transformers does.
    """
    if x_TD.dtype in (torch.float32, torch.float64):
        square = torch.linalg.vector_norm(x_TD, dim=-1, keepdim=True).square_()
        rstd = square.mul_(1.0 / x_TD.shape[-1]).add_(eps).rsqrt_()
        return x_TD * rstd, rstd
    normed, rstd = rms_normalize(x_TD.float(), eps)
    return normed.to(x_TD.dtype), rstd


def _rms_backward(grad_TD: Tensor, normed_TD: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of `rms_normalize`: rstd * (g - n * mean(g * n))."""
    dot = torch.linalg.vecdot(grad_TD, normed_TD).mul_(1.0 / normed_TD.shape[-1]).unsqueeze(-1)
    return torch.addcmul(grad_TD, normed_TD, dot, value=-1.0).mul_(rstd.to(grad_TD.dtype))


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, gain_D: Tensor, weight_ND: Tensor, bias_N: Tensor | None, eps: float) -> Tensor:
        normed, rstd = rms_normalize(x_TD, eps)
        folded = weight_ND * gain_D
        ctx.save_for_backward(normed, rstd, gain_D, weight_ND, folded)
        ctx.has_bias = bias_N is not None
        return F.linear(normed, folded, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TN: Tensor) -> tuple[Tensor | None, ...]:
        normed, rstd, gain, weight, folded = ctx.saved_tensors
        grad_folded = grad_TN.t() @ normed
        grad_gain = (grad_folded * weight).sum(0)
        grad_x = _rms_backward(grad_TN @ folded, normed, rstd)
        grad_bias = grad_TN.sum(0) if ctx.has_bias else None
        return grad_x, grad_gain, grad_folded.mul_(gain), grad_bias, None


def norm_linear(x_TD: Tensor, gain_D: Tensor, weight_ND: Tensor, bias_N: Tensor | None, eps: float) -> Tensor:
    """linear(rms_norm(x) * gain), [T, N]. In training the gain is folded into the weight (fewer passes over x)."""
    if torch.is_grad_enabled() and x_TD.dtype == weight_ND.dtype:
        return _NormLinear.apply(x_TD, gain_D, weight_ND, bias_N, eps)
    normed, _ = rms_normalize(x_TD, eps)
    return F.linear(normed * gain_D, weight_ND, bias_N)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
        normed, rstd = rms_normalize(x_TD, eps)
        ctx.save_for_backward(normed, rstd, gain_D)
        return normed * gain_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        normed, rstd, gain = ctx.saved_tensors
        axes = tuple(range(grad_TD.ndim - 1))
        return _rms_backward(grad_TD * gain, normed, rstd), (grad_TD * normed).sum(axes), None


def rms_norm(x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """rms_normalize(x) * gain; any number of leading axes."""
    if torch.is_grad_enabled():
        return _RmsNorm.apply(x_TD, gain_D, eps)
    return rms_normalize(x_TD, eps)[0] * gain_D


def _rotate(x_THK: Tensor, phase_TC: Tensor) -> Tensor:
    pairs = x_THK.float() if x_THK.dtype in (torch.bfloat16, torch.float16) else x_THK
    turned = torch.view_as_complex(pairs.unflatten(-1, (-1, 2))) * phase_TC.unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2).to(x_THK.dtype)


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_THK: Tensor, phase_TC: Tensor) -> Tensor:
        ctx.save_for_backward(phase_TC)
        return _rotate(x_THK, phase_TC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THK: Tensor) -> tuple[Tensor, None]:
        (phase_TC,) = ctx.saved_tensors
        return _rotate(grad_THK.contiguous(), phase_TC.conj().resolve_conj()), None


def rope(x_THK: Tensor, phase_TC: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) on interleaved pairs, as one complex product.

    phase_TC [T, K/2] complex: attention_scaling * exp(i * position * inv_freq). The backward turns the other way.
    """
    if torch.is_grad_enabled():
        return _Rope.apply(x_THK, phase_TC)
    return _rotate(x_THK, phase_TC)


class _SwigluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up_TF: Tensor, weight_DI: Tensor, residual_TD: Tensor) -> Tensor:
        gate, up = gate_up_TF.chunk(2, dim=-1)
        activated = F.silu(gate)
        product = activated * up
        ctx.save_for_backward(gate_up_TF, activated, product, weight_DI)
        return torch.addmm(residual_TD, product, weight_DI.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        gate_up, activated, product, weight = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_product = grad_TD @ weight
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
        torch.mul(grad_product, activated, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad_product.mul_(up), gate, grad_input=grad_gate)
        return grad_gate_up, grad_TD.t() @ product, grad_TD


def swiglu_linear(gate_up_TF: Tensor, weight_DI: Tensor, residual_TD: Tensor) -> Tensor:
    """residual + linear(silu(gate) * up) with gate, up the halves of the last axis (Shazeer 2020, arXiv 2002.05202)."""
    if torch.is_grad_enabled():
        return _SwigluLinear.apply(gate_up_TF, weight_DI, residual_TD)
    gate, up = gate_up_TF.chunk(2, dim=-1)
    return torch.addmm(residual_TD, F.silu(gate).mul_(up), weight_DI.t())

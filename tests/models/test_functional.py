"""The decoder's fused blocks against the plain formulas they stand for.

Why this matters: every block has a backward written by hand. A wrong term there trains a model that looks healthy and
learns worse, and nothing else would say so.

Not exercised here: speed; CUDA; second derivatives (the blocks refuse them on purpose).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r1kit.models.functional import norm_linear, rms_norm, rms_normalize, rope, swiglu_linear

EPS = 1e-6
PHASE_TC = torch.polar(torch.full((5, 4), 1.3, dtype=torch.float64), torch.linspace(0, 9, 20).double().view(5, 4))


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def plain_rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * gain


def plain_rope(x_THK: Tensor) -> Tensor:
    """Each pair (a, b) turned by its angle and scaled: two real rotations, no complex numbers."""
    cos, sin = PHASE_TC.real.unsqueeze(1), PHASE_TC.imag.unsqueeze(1)
    a, b = x_THK[..., 0::2], x_THK[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def plain_swiglu(gate_up: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return residual + F.linear(gate * torch.sigmoid(gate) * up, weight)


@dataclass(frozen=True)
class Block:
    """A fused block, its formula, and inputs that both take."""

    fused: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


BLOCKS = {
    "rms_norm": Block(lambda x, g: rms_norm(x, g, EPS), plain_rms_norm, (draw(5, 6), draw(6))),
    "rms_norm of heads": Block(lambda x, g: rms_norm(x, g, EPS), plain_rms_norm, (draw(5, 2, 6), draw(6))),
    "norm_linear": Block(
        lambda x, g, w: norm_linear(x, g, w, None, EPS),
        lambda x, g, w: F.linear(plain_rms_norm(x, g), w),
        (draw(5, 6), draw(6), draw(7, 6)),
    ),
    "norm_linear with bias": Block(
        lambda x, g, w, b: norm_linear(x, g, w, b, EPS),
        lambda x, g, w, b: F.linear(plain_rms_norm(x, g), w, b),
        (draw(5, 6), draw(6), draw(7, 6), draw(7)),
    ),
    "rope": Block(lambda x: rope(x, PHASE_TC), plain_rope, (draw(5, 2, 8),)),
    "swiglu_linear": Block(swiglu_linear, plain_swiglu, (draw(5, 8), draw(6, 4), draw(5, 6))),
}


@pytest.fixture(params=BLOCKS.values(), ids=BLOCKS.keys())
def block(request: pytest.FixtureRequest) -> Block:
    return request.param


def leaves(block: Block) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in block.inputs]


def test_value_and_gradients_equal_the_plain_formula(block: Block) -> None:
    fused_inputs, plain_inputs = leaves(block), leaves(block)
    fused, plain = block.fused(*fused_inputs), block.plain(*plain_inputs)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    weight = draw(*plain.shape, seed=1)
    for got, want in zip(
        torch.autograd.grad((fused * weight).sum(), fused_inputs),
        torch.autograd.grad((plain * weight).sum(), plain_inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_gradients_equal_finite_differences(block: Block) -> None:
    assert torch.autograd.gradcheck(block.fused, leaves(block))


def test_sampling_computes_what_training_computes(block: Block) -> None:
    """Without gradients the blocks take another path; log-probs of engine and trainer must agree to rounding."""
    with torch.no_grad():
        sampled = block.fused(*block.inputs)
        assert not sampled.requires_grad
    torch.testing.assert_close(sampled, block.fused(*leaves(block)).detach(), rtol=1e-12, atol=1e-12)


def test_inputs_are_left_as_they_were(block: Block) -> None:
    """The blocks work in place on their own arrays only."""
    inputs = leaves(block)
    block.fused(*inputs).sum().backward()
    with torch.no_grad():
        block.fused(*inputs)
    for before, after in zip(block.inputs, inputs, strict=True):
        assert torch.equal(before, after)


def test_rope_takes_a_slice_of_a_wider_array() -> None:
    """The decoder rotates queries and keys where they lie, in the middle of the fused projection."""
    qkv = draw(5, 3, 8)
    torch.testing.assert_close(rope(qkv[:, :2], PHASE_TC), plain_rope(qkv[:, :2]), rtol=1e-12, atol=1e-12)


def test_rope_depends_on_distance_only() -> None:
    q, k = draw(1, 1, 8), draw(1, 1, 8, seed=5)
    turns = torch.polar(torch.ones(9, 4, dtype=torch.float64), torch.arange(9).double().outer(draw(4).abs()))
    near = (rope(q, turns[3:4]) * rope(k, turns[1:2])).sum()
    far = (rope(q, turns[8:9]) * rope(k, turns[6:7])).sum()
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_float32(dtype: torch.dtype) -> None:
    """300^2 overflows float16, and a bfloat16 mean of squares is off by percents: neither may happen inside."""
    x = (draw(4, 64) * 300).to(dtype)
    normed, _ = rms_normalize(x, EPS)
    want = plain_rms_norm(x.double(), torch.ones(64, dtype=torch.float64))
    assert normed.dtype == dtype
    torch.testing.assert_close(normed.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_half_precision_gradients_flow_through_every_block() -> None:
    for block in BLOCKS.values():
        inputs = [x.bfloat16().requires_grad_() for x in block.inputs]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        block.fused(*inputs).sum().backward()
        block.plain(*exact).sum().backward()
        for got, want in zip(inputs, exact, strict=True):
            assert got.grad is not None
            assert got.grad.dtype == torch.bfloat16
            assert (got.grad - want.grad).norm() <= 0.03 * want.grad.norm() + 0.03

"""Packed causal attention against one sequence at a time.

Why this matters: the trainer lays sequences of many lengths end to end. If a token saw a neighbour's tokens or padding,
the policy would be trained on a context that it never had when it sampled.

Not exercised here: attention over the engine's cache (tests/engines); CUDA.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r1kit.models import attention
from r1kit.models.attention import Segment, causal_attention, packed_attention, positions

SEGMENTS = [Segment(2, 7), Segment(1, 4), Segment(3, 2), Segment(1, 1)]
HEAD_SHAPES = pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])


def heads_of(tokens: int, heads: int, groups: int, width: int = 8, seed: int = 0) -> list[Tensor]:
    """Random query [T, H, K], key and value [T, G, K] in float64, wanting gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(tokens, heads, width), (tokens, groups, width), (tokens, groups, width)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def one_by_one(segments: list[Segment], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The reference: repeat keys and values, and attend within each sequence on its own."""
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
    lengths = [s.length for s in segments for _ in range(s.rows)]
    outputs = []
    for parts in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        out = F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in parts), is_causal=True)
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


@HEAD_SHAPES
def test_packed_equals_one_sequence_at_a_time(heads: int, groups: int) -> None:
    packed_inputs = heads_of(sum(s.tokens for s in SEGMENTS), heads, groups)
    plain_inputs = [x.detach().clone().requires_grad_() for x in packed_inputs]
    packed = packed_attention(SEGMENTS)(0, *packed_inputs)
    plain = one_by_one(SEGMENTS, *plain_inputs)
    torch.testing.assert_close(packed, plain, rtol=1e-12, atol=1e-12)
    weight = torch.linspace(-1, 1, plain.numel(), dtype=torch.float64).view_as(plain)
    (packed * weight).sum().backward()
    (plain * weight).sum().backward()
    for got, want in zip(packed_inputs, plain_inputs, strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-11, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    q, k, v = (x.unsqueeze(0) for x in heads_of(4, 2, 1, width=2))
    assert torch.autograd.gradcheck(causal_attention, [x.detach().requires_grad_() for x in (q, k, v)])


@HEAD_SHAPES
def test_long_sequences_take_the_fused_kernel_and_agree(
    heads: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (x.unsqueeze(0) for x in heads_of(12, heads, groups))
    explicit = causal_attention(q, k, v)
    monkeypatch.setattr(attention, "EXPLICIT_LENGTH_LIMIT", 11)
    fused = causal_attention(q, k, v)
    torch.testing.assert_close(fused, explicit, rtol=1e-12, atol=1e-12)


def test_the_limit_itself_is_seamless() -> None:
    """One token more than the limit switches kernels; the tokens before must not notice."""
    limit = attention.EXPLICIT_LENGTH_LIMIT
    q, k, v = (x.detach().unsqueeze(0) for x in heads_of(limit + 1, 2, 1, width=4))
    short = causal_attention(q[:, :limit], k[:, :limit], v[:, :limit])
    torch.testing.assert_close(causal_attention(q, k, v)[:, :limit], short, rtol=1e-10, atol=1e-12)


def test_no_token_sees_padding_or_another_sequence() -> None:
    """Change everything after position 2 of sequence 0, and all of sequence 1: sequence 0 stands as it was, bitwise."""
    segments = [Segment(2, 5)]
    q, k, v = (x.detach() for x in heads_of(10, 4, 2))
    before = packed_attention(segments)(0, q, k, v)
    for x in (q, k, v):
        x[3:] = 1e6
    after = packed_attention(segments)(0, q, k, v)
    assert torch.equal(before[:3], after[:3])


def test_padding_receives_and_sends_no_gradient() -> None:
    """A loss on the first 3 of 5 tokens leaves the gradient of the other 2 exactly 0."""
    inputs = heads_of(5, 4, 2)
    packed_attention([Segment(1, 5)])(0, *inputs)[:3].square().sum().backward()
    for x in inputs:
        assert x.grad is not None
        assert not x.grad[3:].any()
        assert x.grad[:3].any()


def test_half_precision_stays_close() -> None:
    inputs = [x.detach() for x in heads_of(20, 4, 2)]
    exact = packed_attention([Segment(2, 10)])(0, *inputs)
    half = packed_attention([Segment(2, 10)])(0, *(x.bfloat16() for x in inputs))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=0.03, atol=0.03)


def test_positions_count_within_each_sequence() -> None:
    assert positions([Segment(2, 3), Segment(1, 2)]).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_segments_that_do_not_cover_the_tokens_are_refused() -> None:
    q, k, v = heads_of(9, 2, 1)
    with pytest.raises(RuntimeError, match="split"):
        packed_attention([Segment(2, 4)])(0, q, k, v)

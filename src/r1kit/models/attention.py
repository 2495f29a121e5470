"""Causal attention for training over sequences of different lengths, without padding waste.

A micro-batch is a flat run of tokens made of segments; a segment is `rows` sequences padded to one `length`. Sequences
sorted by length make segments nearly free of padding, and right padding needs no mask under causal attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Above this length the [L, L] score matrix no longer stays in cache and the fused kernel wins.
EXPLICIT_LENGTH_LIMIT = 512


class Segment(NamedTuple):
    """`rows` sequences of `length` tokens each (padding included), contiguous in the flat token axis."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@lru_cache(maxsize=256)
def _causal_bias(length: int, repeat: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [length * repeat, length]: 0 where key <= query, -inf elsewhere."""
    query = torch.arange(length).repeat_interleave(repeat)
    allowed = torch.arange(length)[None, :] <= query[:, None]
    return torch.zeros(length * repeat, length, dtype=dtype).masked_fill_(~allowed, -math.inf)


class _ExplicitAttention(torch.autograd.Function):
    """softmax(scale * q k^T + bias) v for q [B, Q, K], k and v [B, S, K]; batched products, one fused softmax."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        scores = torch.baddbmm(bias.expand(q.shape[0], -1, -1), q, k.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        grad_v = torch.bmm(weights.transpose(1, 2), grad_out)
        grad_weights = torch.bmm(grad_out, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_q = torch.bmm(grad_scores, k).mul_(ctx.scale)
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q).mul_(ctx.scale)
        return grad_q, grad_k, grad_v, None, None


def causal_attention(q_BLHK: Tensor, k_BLGK: Tensor, v_BLGK: Tensor) -> Tensor:
    """Causal grouped-query attention of B sequences of one length L; returns [B, L, H, K].

    The query heads of one key/value group are folded into the query axis, so keys and values are never repeated.
    """
    rows, length, heads, width = q_BLHK.shape
    groups = k_BLGK.shape[2]
    repeat = heads // groups
    if q_BLHK.device.type != "cpu" or length > EXPLICIT_LENGTH_LIMIT:
        q, k, v = (x.transpose(1, 2) for x in (q_BLHK, k_BLGK, v_BLGK))
        # A GPU's fused kernels for float32 want a key head for every query head; else [L, L] scores would be made.
        if q.device.type != "cpu" and q.dtype == torch.float32 and repeat > 1:
            k, v, repeat = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1), 1
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=repeat > 1).transpose(1, 2)
    bias = _causal_bias(length, repeat, q_BLHK.dtype)

    def by_group(x: Tensor, per_group: int) -> Tensor:
        x = x.reshape(rows, length, groups, per_group, width).transpose(1, 2)
        return x.reshape(rows * groups, length * per_group, width)

    q, k, v = by_group(q_BLHK, repeat), by_group(k_BLGK, 1), by_group(v_BLGK, 1)
    out = _ExplicitAttention.apply(q, k, v, bias, width**-0.5)
    out = out.reshape(rows, groups, length, repeat, width).transpose(1, 2)
    return out.reshape(rows, length, heads, width)


@dataclass(frozen=True)
class PackedAttention:
    """The trainer's `attend`: causal within each sequence of each segment, nothing across."""

    segments: tuple[Segment, ...]

    def __call__(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor) -> Tensor:
        sizes = [s.tokens for s in self.segments]
        parts = []
        splits = zip(self.segments, q_THK.split(sizes), k_TGK.split(sizes), v_TGK.split(sizes), strict=True)
        for segment, q, k, v in splits:
            shape = (segment.rows, segment.length)
            out = causal_attention(q.unflatten(0, shape), k.unflatten(0, shape), v.unflatten(0, shape))
            parts.append(out.flatten(0, 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def packed_attention(segments: Sequence[Segment]) -> PackedAttention:
    """`attend` over these segments."""
    return PackedAttention(tuple(segments))


def sequence_lengths(segments: Sequence[Segment]) -> np.ndarray:
    """The length of every sequence, padding included, int64."""
    return np.repeat(np.array([s.length for s in segments], dtype=np.int64), [s.rows for s in segments])


def positions(segments: Sequence[Segment]) -> Tensor:
    """Position of every token within its own sequence, int64 [T]."""
    lengths = sequence_lengths(segments)
    starts = np.cumsum(lengths) - lengths
    return torch.from_numpy(np.arange(lengths.sum()) - np.repeat(starts, lengths))

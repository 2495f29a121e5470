"""Deterministic mode: which shapes make a row independent of its neighbours on this machine, by measurement.

A matrix product of few rows may take another code path than one of many, and then one row's last bits depend
on how many rows stand beside it. That is a property of the machine's BLAS, not of ours, so the engine asks it
once, with the model's own weights, and settles on the cheapest form that gave equal bits:

1. rows padded to a multiple of 16, at most 256 in a pass (hardly any cost);
2. else: passes of exactly 64 rows, and every prompt in a pass of its own.

Attention has a ladder likewise: spans padded to 16 positions, 64, 256, else always the whole cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from r1kit.engines.attention import DecodeAttention
from r1kit.engines.cache import KVCache, Span
from r1kit.models.decoder import Attend

ROW_UNIT = 16
SAFE_ROWS = 64
MOST_ROWS = 256
PADDINGS = (16, 64, 256)
LARGE = 20_000_000  # parameters
UNLIMITED = 1 << 30


class Sizes(Protocol):
    """What the engine reads of a model's configuration."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def num_heads(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def max_positions(self) -> int: ...


class Model(Protocol):
    """What the engine runs: `r1kit.models.decoder.Decoder`, or a Transformers model behind the same face."""

    @property
    def config(self) -> Sizes: ...

    def __call__(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor: ...

    def logits(self, hidden_TD: Tensor) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True)
class Shapes:
    """How batches are shaped. `exact` tells whether equal bits were proved for it.

    row_unit: passes are padded to a multiple of this many rows; pass_rows: at most this many rows in one
    pass; prompts_together: prompts share a pass; padding: spans end at a multiple of this many positions (0:
    the whole cache).
    """

    row_unit: int = 1
    pass_rows: int = UNLIMITED
    prompts_together: bool = True
    padding: int = 8
    exact: bool = False

    def describe(self) -> str:
        if not self.exact:
            return "not deterministic: rows may differ in their last bits with the batch they are in"
        together = "together" if self.prompts_together else "one by one"
        span = f"to a multiple of {self.padding} positions" if self.padding else "over the whole cache"
        rows = f"rows padded to a multiple of {self.row_unit}, at most {self.pass_rows} in a pass"
        return f"{rows}; prompts {together}; attention {span}"


def settle(model: Model) -> Shapes:
    """The cheapest shapes that keep every row's bits, for this model, machine and number of threads.

    Asked once for models of one make: the answer depends on shapes and memory layout, not on the weights, and
    not on the number of slots either, which must not change what is sampled.
    """
    layout = tuple((p.shape, p.stride(), p.dtype, p.device) for p in model.parameters())
    question = (type(model), layout, torch.get_num_threads())
    if question not in _answers:
        _answers[question] = _ask(model)
    return _answers[question]


_answers: dict[tuple[object, ...], Shapes] = {}


@torch.inference_mode()
def _ask(model: Model) -> Shapes:
    on_cpu = next(model.parameters()).device.type == "cpu"
    large = on_cpu and sum(p.numel() for p in model.parameters()) > LARGE
    # Every size that will occur is asked for. A large model fills a CPU with few rows, or with one prompt.
    most = SAFE_ROWS if large else MOST_ROWS
    alike = _rows_keep_bits(model, most)
    return Shapes(
        row_unit=ROW_UNIT if alike else SAFE_ROWS,
        pass_rows=most if alike else SAFE_ROWS,
        prompts_together=alike and not large,
        padding=next((p for p in PADDINGS if _attention_keeps_bits(model, p)), 0),
        exact=True,
    )


def _rows_keep_bits(model: Model, most: int) -> bool:
    """Whether rows come out the same in a pass of `most` rows and in all smaller ones, and in another order."""
    device = next(model.parameters()).device
    everything = torch.arange(most, device=device)
    ids, positions = everything * 7919 % model.config.vocab_size, everything % model.config.max_positions

    def run(rows: Tensor) -> Tensor:
        hidden = model(ids[rows], positions[rows], lambda layer, q, k, v: q)
        return torch.cat([hidden, model.logits(hidden)], dim=-1)

    expected = run(everything)
    for count in range(ROW_UNIT, most + 1, ROW_UNIT):
        backwards = everything[most - count :].flip(0)
        if not torch.equal(run(backwards), expected[backwards]):
            return False
    return True


def _attention_keeps_bits(model: Model, padding: int) -> bool:
    """Whether a slot's attention is the same alone and among others, padded little and much."""
    c = model.config
    parameter = next(model.parameters())
    slots, longest = 5, 2 * max(padding, 256)
    cache = KVCache(
        layers=1,
        slots=slots,
        kv_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        dtype=parameter.dtype,
        device=parameter.device,
    )
    cache.reserve(longest)
    cache.data.copy_(_pattern(cache.data))
    q_THK = _pattern(torch.empty(slots, c.num_heads, c.head_dim, dtype=parameter.dtype, device=parameter.device))
    for filled in (1, padding - 1, padding, padding + 1, 100, 256, 300, longest - padding - 1):
        if not 0 < filled <= longest:
            continue
        cache.mask.fill_(-torch.inf)
        cache.mask[..., :filled] = 0
        least = -(-filled // padding) * padding
        alone = _attend_one(cache, q_THK, Span(2, 3, least))
        for length in range(least, longest + 1, padding):
            if not torch.equal(_attend_one(cache, q_THK, Span(0, slots, length)), alone):
                return False
    return True


def _attend_one(cache: KVCache, q_THK: Tensor, span: Span) -> Tensor:
    """The output of slot 2 when it is attended within `span`."""
    out_THK = torch.empty_like(q_THK)
    DecodeAttention(cache, [span], out_THK[span.start :])(0, q_THK[span.start :])
    return out_THK[2]


def _pattern(like: Tensor) -> Tensor:
    """Fixed numbers in [-1, 1) of the shape of `like`, without touching the global random state."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(like.shape, generator=generator) * 2 - 1).to(like)

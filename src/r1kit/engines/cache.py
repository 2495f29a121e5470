"""The key/value cache: one slot per running response, kept dense.

Layout [2, layers, slots, kv_heads, length, head_dim]: the keys of one slot and head are contiguous, so
attention over slots [a, b) and the first L positions is a plain batched matrix product on a view, nothing
copied or gathered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.sequence import Prefix
from r1kit.models.memory import advise_huge_pages

# Slots start this many positions past a power of two, so that their rows do not fall into the same cache
# sets.
_SKEW = 16
_MAX_VIEWS = 512
# The sum over positions runs in windows of this many: a matrix product chooses by its length how to split a
# long sum, and the bits of a result must not depend on how far its span is padded.
WINDOW = 256


class Span(NamedTuple):
    """Slots [start, stop), attended over the first `length` positions of the cache."""

    start: int
    stop: int
    length: int


class SpanViews(NamedTuple):
    """What attention of one span reads, N = slots x kv heads: per layer keys [N, head_dim, L] and values
    [N, L, head_dim], the latter cut into windows of `WINDOW` positions; and the additive mask [slots, 1, L].
    """

    keys: list[Tensor]
    values: list[tuple[Tensor, ...]]
    mask: Tensor


class KVCache:
    """Keys, values and the mask of what is filled, for a fixed number of slots; the length grows on
    demand.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.slots, self.kv_heads, self.head_dim = slots, kv_heads, head_dim
        self.layers = layers
        self.length = 0
        self._dtype, self._device = dtype, device
        self._views: dict[Span, SpanViews] = {}
        self._allocate(_SKEW)

    def _allocate(self, length: int) -> None:
        shape = (2, self.layers, self.slots, self.kv_heads, length, self.head_dim)
        self.data = torch.zeros(shape, dtype=self._dtype, device=self._device)
        advise_huge_pages(self.data)
        # 0 where a position is filled, -inf where not: added to the scores.
        self.mask = torch.full((self.slots, 1, length), -torch.inf, dtype=self._dtype, device=self._device)
        self.length = length
        rows = self.data.view(2, self.layers, -1, self.head_dim)
        self._rows = list(zip(rows[0], rows[1], strict=True))  # per layer: a row is one position of one head
        self._views.clear()

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.mask.nbytes

    @property
    def bytes_per_position(self) -> int:
        """Bytes of keys and values of one position of one slot in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.data.element_size()

    def reserve(self, length: int) -> None:
        """Make room for `length` positions per slot; what is cached stays."""
        if length <= self.length:
            return
        old_data, old_mask, old_length = self.data, self.mask, self.length
        self._allocate(-(-length // 64) * 64 + _SKEW)
        self.data[..., :old_length, :] = old_data
        self.mask[..., :old_length] = old_mask

    def load(self, slot: int, prefix: Prefix) -> None:
        """Start a slot with the keys and values of a prefix."""
        length = prefix.length
        self.data[:, :, slot, :, :length] = prefix.keys_values
        self.mask[slot, :, :length] = 0
        self.mask[slot, :, length:] = -torch.inf

    def snapshot(self, slot: int, length: int) -> Tensor:
        """A copy of the first `length` positions of a slot: [2, layers, kv_heads, length, head_dim]."""
        return self.data[:, :, slot, :, :length].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the `length` filled positions of one slot over another."""
        self.data[:, :, target, :, :length] = self.data[:, :, source, :, :length]
        self.mask[target] = self.mask[source]

    def open(self, first: int, positions: np.ndarray) -> Tensor:
        """Mark `positions` (int64 [n]) of slots first, first + 1, ... as filled; returns the index `append`
        writes to.
        """
        slots = np.arange(first, first + len(positions))
        index = slots * self.length + positions
        self.mask.view(-1).index_fill_(0, torch.from_numpy(index).to(self._device), 0)
        heads = np.arange(self.kv_heads) * self.length
        rows = (slots * (self.kv_heads * self.length) + positions)[:, None] + heads
        return torch.from_numpy(rows.reshape(-1)).to(self._device)

    def append(self, layer: int, index: Tensor, keys_nGK: Tensor, values_nGK: Tensor) -> None:
        """Write one new position per slot; `index` comes from `open`."""
        keys, values = self._rows[layer]
        keys.index_copy_(0, index, keys_nGK.reshape(-1, self.head_dim))
        values.index_copy_(0, index, values_nGK.reshape(-1, self.head_dim))

    def views(self, span: Span) -> SpanViews:
        """The views of a span; kept, since making them anew for every layer costs as much as a small
        product.
        """
        if span not in self._views:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            start, stop, length = span
            rows = (stop - start) * self.kv_heads
            filled = self.data[:, :, start:stop, :, :length].view(2, self.layers, rows, length, self.head_dim)
            self._views[span] = SpanViews(
                keys=list(filled[0].transpose(2, 3)),
                values=[values.split(WINDOW, dim=1) for values in filled[1]],
                mask=self.mask[start:stop, :, :length],
            )
        return self._views[span]

"""The key/value cache of the compiled passes: blocks of 32 positions in the order in which they are read.

[slots, layers, kv_heads, 2 (keys, values), blocks, 32 * head_dim]; what a block holds inside, decode_attention.h says.
Which slot a running response has is a number in a table, so closing a gap copies nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.sequence import Prefix
from r1kit.models.memory import buffer

BLOCK = 32  # positions, as in decode_attention.h


def blocks(length: int) -> int:
    """Blocks that hold so many positions."""
    return -(-length // BLOCK)


class BlockCache:
    """Keys and values for a fixed number of running responses; the length grows on demand."""

    def __init__(self, *, layers: int, slots: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        self._shape = (slots, layers, kv_heads, 2)
        self._unit, self._dtype = BLOCK * head_dim, dtype
        self.slots = np.arange(slots)  # of each running response
        self._allocate(1)

    def _allocate(self, count: int) -> None:
        shape = (*self._shape, count, self._unit)
        size = math.prod(shape) * self._dtype.itemsize
        # Zeros: what is not filled yet is read, and must be numbers.
        self.data = buffer(size)[:size].zero_().view(self._dtype).view(shape)

    @property
    def blocks(self) -> int:
        return self.data.shape[4]

    @property
    def length(self) -> int:
        return self.blocks * BLOCK

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def bytes_per_position(self) -> int:
        """Bytes of keys and values of one position of one slot in one layer."""
        return 2 * self._shape[2] * self._unit // BLOCK * self.data.element_size()

    def reserve(self, length: int) -> None:
        """Make room for `length` positions per slot; what is cached stays."""
        if length <= self.length:
            return
        old = self.data
        self._allocate(blocks(length) | 1)  # odd, or all slots would fall into the same sets of a core's cache
        self.data[..., : old.shape[4], :] = old

    def load(self, row: int, prefix: Prefix) -> None:
        """Start a response with the keys and values of a prefix."""
        self.data[self.slots[row], ..., : prefix.keys_values.shape[3], :] = prefix.keys_values

    def snapshot(self, row: int, length: int) -> Tensor:
        """A copy of the first `length` positions of a response, up to whole blocks."""
        return self.data[self.slots[row], ..., : blocks(length), :].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """Response `source` takes the place of `target`, which has ended."""
        self.slots[[source, target]] = self.slots[[target, source]]

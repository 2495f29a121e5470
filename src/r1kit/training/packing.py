"""Micro-batches without padding waste: sequences sorted by length, cut where padding would cost more than a cut.

`plan` is pure: lengths in, micro-batches of segments out. Every sequence stands in exactly one segment, and the
gradient does not depend on the plan because losses are sums over global denominators (tests/training/test_packing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from r1kit.models.attention import Segment

# What one more segment costs, in tokens' worth of time: its own attention calls in every layer. Measured with
# benchmarks/train.py; the optimum is flat.
SEGMENT_COST_TOKENS = 24


@dataclass(frozen=True)
class MicroBatch:
    """Segments of one forward pass; `members[i]` are the sequence indices of `segments[i]`, one a row."""

    segments: tuple[Segment, ...]
    members: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.segments)

    def alone(self) -> tuple[list[int], MicroBatch]:
        """The sequences that are in it, in its order; and itself, counting in these alone."""
        own = [index for rows in self.members for index in rows]
        ends = np.cumsum([len(rows) for rows in self.members])
        members = tuple(tuple(range(end - len(rows), end)) for rows, end in zip(self.members, ends, strict=True))
        return own, MicroBatch(self.segments, members)

    def fill(self, arrays: Sequence[np.ndarray], padding: float | int) -> np.ndarray:
        """Per-sequence arrays laid out flat along the token axis, padded at the right: [tokens]."""
        own = [arrays[index] for rows in self.members for index in rows]
        if sum(map(len, own)) == self.tokens:
            return np.concatenate(own)
        out = np.full(self.tokens, padding, dtype=arrays[0].dtype)
        start = 0
        for segment, rows in zip(self.segments, self.members, strict=True):
            for index in rows:
                out[start : start + len(arrays[index])] = arrays[index]
                start += segment.length
        return out

    def tensor(self, arrays: Sequence[np.ndarray], padding: float | int) -> Tensor:
        return torch.from_numpy(self.fill(arrays, padding))


def plan(lengths: Sequence[int], token_budget: int, *, best_fit: bool = False, apart: bool = False) -> list[MicroBatch]:
    """Micro-batches of at most `token_budget` tokens, padding included; the longest sequences first.

    A segment goes into the newest micro-batch where it fits, else into a new one; with `best_fit` into the fullest of
    all in which it fits: fewer micro-batches where lengths differ much. With `apart` every sequence
    is a segment of its own: nothing is padded. Raises ValueError where one sequence alone is over the budget.
    """
    if not len(lengths):
        return []
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    longest = lengths[order[0]]
    if longest > token_budget:
        raise ValueError(
            f"token_budget is {token_budget}, but one sequence has {longest} tokens: raise token_budget to at least "
            f"{longest} or lower the length cap"
        )
    runs: list[list[tuple[int, int]]] = []  # of each micro-batch, its runs of `order`
    tokens: list[int] = []  # and how full it is
    singles = [(i, i + 1) for i in range(len(order))]
    for start, end in singles if apart else _cuts(np.array([lengths[i] for i in order]), token_budget):
        added = (end - start) * int(lengths[order[start]])
        looked_at = range(len(runs)) if best_fit else range(len(runs))[-1:]
        fitting = [i for i in looked_at if tokens[i] + added <= token_budget]
        into = max(fitting, key=tokens.__getitem__, default=len(runs))
        if into == len(runs):
            runs.append([])
            tokens.append(0)
        runs[into].append((start, end))
        tokens[into] += added
    return [
        MicroBatch(
            tuple(Segment(end - start, int(lengths[order[start]])) for start, end in chosen),
            tuple(tuple(order[start:end]) for start, end in chosen),
        )
        for chosen in runs
    ]


def _cuts(sorted_lengths: np.ndarray, token_budget: int) -> list[tuple[int, int]]:
    """Cheapest partition of descending lengths into runs [start, end), cost = padded tokens + SEGMENT_COST_TOKENS.

    Dynamic programme over the start of the last run; a run is no longer than the budget allows.
    """
    n = len(sorted_lengths)
    best = np.zeros(n + 1)
    choice = np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        starts = np.arange(end)
        padded = (end - starts) * sorted_lengths[:end]
        cost = np.where(padded <= token_budget, best[:end] + padded + SEGMENT_COST_TOKENS, np.inf)
        choice[end] = int(np.argmin(cost))
        best[end] = cost[choice[end]]
    cuts: list[tuple[int, int]] = []
    end = n
    while end > 0:
        cuts.append((int(choice[end]), end))
        end = int(choice[end])
    return cuts[::-1]


def balanced_shards(lengths: Sequence[int], shards: int) -> list[list[int]]:
    """Indices dealt to `shards` so that their token sums are close: longest first, to the lightest shard."""
    loads = [0] * shards
    parts: list[list[int]] = [[] for _ in range(shards)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = loads.index(min(loads))
        parts[lightest].append(index)
        loads[lightest] += lengths[index]
    return parts

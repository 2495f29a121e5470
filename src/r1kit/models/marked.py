"""Token sequences with marks, and what a model says of them: log-probs of marked tokens, or values at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.native.head import token_logprobs


@dataclass(frozen=True, eq=False)
class MarkedSequence:
    """Token ids int64 [T] and marks bool [T]: the tokens of the response, or those whose value is judged."""

    token_ids: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def marked(self) -> int:
        return int(self.marks.sum())

    def last_only(self) -> MarkedSequence:
        """Only the last token marked: a whole response is judged where it ends."""
        return MarkedSequence(self.token_ids, np.arange(len(self)) == len(self) - 1)


class Layout(Protocol):
    """How sequences lie in one flat run of tokens."""

    @property
    def segments(self) -> Sequence[Segment]: ...

    def tensor(self, arrays: Sequence[np.ndarray], padding: float | int) -> Tensor:
        """Per-sequence arrays laid out along the token axis, padded at the right."""
        ...


def summed_logprobs(model: Any, layout: Layout, sequences: Sequence[MarkedSequence]) -> Tensor:
    """Log-prob of the marked tokens of each sequence, summed, in nats: float32 [N]. The first token is never one."""
    device = device_of(model)
    targets = layout.tensor([np.append(s.token_ids[1:], 0) for s in sequences], 0).to(device)
    chosen = layout.tensor([np.append(s.marks[1:], False) for s in sequences], False).nonzero().squeeze(1).to(device)
    owners = _owners(layout, sequences).to(device)[chosen]
    logprobs, _ = token_logprobs(model, _run(model, layout, sequences).index_select(0, chosen), targets[chosen])
    return logprobs.new_zeros(len(sequences)).index_add(0, owners, logprobs)


def marked_logprobs(model: Any, layout: Layout, sequences: Sequence[MarkedSequence]) -> Tensor:
    """Log-prob of every marked token, in nats, sequence after sequence: float32 [M]."""
    device = device_of(model)
    targets = layout.tensor([np.append(s.token_ids[1:], 0) for s in sequences], 0).to(device)
    chosen = _in_order(layout, sequences, [np.append(s.marks[1:], False) for s in sequences]).to(device)
    return token_logprobs(model, _run(model, layout, sequences).index_select(0, chosen), targets[chosen])[0]


def marked_values(model: Any, layout: Layout, sequences: Sequence[MarkedSequence]) -> Tensor:
    """A value model's values of the marked tokens, sequence after sequence: float32 [M]."""
    marked = _in_order(layout, sequences, [s.marks for s in sequences])
    return _run(model, layout, sequences)[marked.to(device_of(model))]


def _run(model: Any, layout: Layout, sequences: Sequence[MarkedSequence]) -> Tensor:
    device = device_of(model)
    inputs = layout.tensor([s.token_ids for s in sequences], 0).to(device)
    return model(inputs, positions(layout.segments).to(device), packed_attention(layout.segments))


def device_of(model: Any) -> torch.device:
    """Where a model wants its tokens: beside its output matrix. What is compiled may show none: it runs on the CPU."""
    weight = getattr(model, "head_weight", getattr(model, "weight", None))
    return weight.device if isinstance(weight, Tensor) else torch.device("cpu")


def _owners(layout: Layout, sequences: Sequence[MarkedSequence]) -> Tensor:
    return layout.tensor([np.full(len(s), i) for i, s in enumerate(sequences)], 0)


def _in_order(layout: Layout, sequences: Sequence[MarkedSequence], marks: Sequence[np.ndarray]) -> Tensor:
    """Places of the marks. The layout may hold the longest first; within a sequence the order stands."""
    chosen = layout.tensor(marks, False).nonzero().squeeze(1)
    return chosen[torch.argsort(_owners(layout, sequences)[chosen], stable=True)]


@dataclass(frozen=True)
class Rows:
    """Sequences as rows padded to the longest of them."""

    count: int
    longest: int

    @property
    def segments(self) -> Sequence[Segment]:
        return (Segment(self.count, self.longest),)

    def tensor(self, arrays: Sequence[np.ndarray], padding: float | int) -> Tensor:
        out = np.full((self.count, self.longest), padding, dtype=arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(out.reshape(-1))


def rows_of_like_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices in batches of at most `token_budget` tokens, padding included; one that is longer stands alone."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # The longest comes last: it sets the width of all.
        if batch and (len(batch) + 1) * lengths[index] > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

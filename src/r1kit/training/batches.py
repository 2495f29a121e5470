"""Which sequences a step learns from: shuffled passes over data sets, mixed or one after the other.

Pure and keyed by (seed, phase, epoch): a resumed run, or one with other processes, sees the same batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np


@dataclass(frozen=True)
class Phase:
    """`epochs` passes over the sequences [start, end) of the stage's data."""

    start: int
    end: int
    epochs: int

    def steps_per_epoch(self, batch_size: int) -> int:
        return -(-(self.end - self.start) // batch_size)


@dataclass(frozen=True)
class Batch:
    """The sequences of one step, and where it stands: `epoch` counts from 0 over all phases."""

    indices: tuple[int, ...]
    epoch: int
    ends_epoch: bool


class Batches:
    """Batches by step. The last of an epoch may be smaller: every sequence is seen once in an epoch."""

    def __init__(self, sizes: Sequence[int], epochs: Sequence[int], *, mixed: bool, batch_size: int, seed: int) -> None:
        """`sizes`: sequences of each data set; `epochs`: passes over each (mixed: the first counts for all)."""
        bounds = [0, *accumulate(sizes)]
        self.phases = (
            [Phase(0, bounds[-1], epochs[0])]
            if mixed
            else [Phase(a, b, n) for (a, b), n in zip(pairwise(bounds), epochs, strict=True)]
        )
        self.batch_size, self.seed = batch_size, seed
        # Phase and epoch within it of every epoch over all phases, and the step at which each begins.
        self.places = [(p, e) for p, phase in enumerate(self.phases) for e in range(phase.epochs)]
        self.starts = [0, *accumulate(self.phases[p].steps_per_epoch(batch_size) for p, _ in self.places)]

    @property
    def steps(self) -> int:
        return self.starts[-1]

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        number = bisect_right(self.starts, step) - 1
        phase_number, epoch = self.places[number]
        phase, place = self.phases[phase_number], step - self.starts[number]
        order = _order(phase.end - phase.start, self.seed, phase_number, epoch)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size] + phase.start
        return Batch(tuple(chosen.tolist()), number, step + 1 == self.starts[number + 1])


@lru_cache(maxsize=2)
def _order(count: int, seed: int, phase: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, phase, epoch]).permutation(count)

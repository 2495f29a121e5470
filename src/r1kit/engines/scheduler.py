"""Which request runs in which slot, and the table of what every running response has so far.

Running responses fill the slots 0..running-1 without a gap, roughly the longest first. On a CPU a decoding
step costs as much as it has rows and cached positions to read, not more, so the scheduler does not chase full
slots: it refills in batches, which then age together, and closes a gap with a response of the same length as
its neighbours, so that attention over a span of slots is hardly padded.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np

from r1kit.engines.cache import Span
from r1kit.engines.sequence import Prompt, Sequence

BLOCK = 8  # slots that are always attended together
_STEP = 16  # positions: lengths this near count as equal when a gap is filled
_FIRST_WIDTH = 256


class Move(NamedTuple):
    """A response goes from one slot to another, with `length` cached positions."""

    source: int
    target: int
    length: int


class Scheduler:
    """The waiting line and the table of running responses (row = slot)."""

    def __init__(self, slots: int, *, padding: int, cache_length: int, merge_positions: int, refill_slots: int) -> None:
        """`padding`: positions a span is rounded up to (0: always `cache_length`). `merge_positions`: how
        many needless positions may be read for having one span less. `refill_slots`: new requests wait until
        so many slots are free, or until all of them fit.
        """
        self.slots, self.padding = slots, padding
        self.refill_slots = min(max(1, refill_slots), slots)  # more than there are would never be free
        self.cache_length, self.merge_positions = cache_length, merge_positions
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.wanted: Counter[Prompt] = Counter()
        self.lengths = np.zeros(slots, np.int64)  # positions in the cache
        self.counts = np.zeros(slots, np.int64)  # tokens sampled into the table
        self.limits = np.zeros(slots, np.int64)  # tokens to sample at most
        self.tokens = np.zeros((slots, _FIRST_WIDTH), np.int64)
        self.logprobs = np.zeros((slots, _FIRST_WIDTH), np.float64)
        self.stops = np.full((slots, 1), -1, np.int64)  # stop tokens, -1 behind the last
        self._stop_strings = 0  # running responses that have some

    # -- the waiting line ------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        if sequence.prefix is None:
            self.wanted[Prompt.of(sequence.request)] += 1

    def withdraw(self, sequence: Sequence) -> None:
        """Take a waiting sequence out of the line."""
        self.waiting.remove(sequence)
        self._no_longer_wanted(sequence)

    def _no_longer_wanted(self, sequence: Sequence) -> None:
        if sequence.prefix is None:
            prompt = Prompt.of(sequence.request)
            self.wanted[prompt] -= 1
            if not self.wanted[prompt]:
                del self.wanted[prompt]

    def missing(self) -> int:
        """How many more slots must become free until waiting sequences start."""
        return min(len(self.waiting), self.refill_slots) - (self.slots - len(self.running))

    def admit(self) -> list[Sequence]:
        """The sequences that start now: none until `refill_slots` are free, or all that wait fit."""
        if self.missing() > 0:
            return []
        free = self.slots - len(self.running)
        admitted = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        for sequence in admitted:
            self._no_longer_wanted(sequence)
        return admitted

    # -- the table -------------------------------------------------------------------------------------------

    def place(self, sequence: Sequence, length: int) -> int:
        """Put a sequence with `length` cached positions into the next slot."""
        slot = len(self.running)
        self.running.append(sequence)
        stops = sequence.params.stop_token_ids
        if len(stops) > self.stops.shape[1]:
            more = len(stops) - self.stops.shape[1]
            self.stops = np.pad(self.stops, ((0, 0), (0, more)), constant_values=-1)
        self.stops[slot, : len(stops)], self.stops[slot, len(stops) :] = stops, -1
        self._stop_strings += bool(sequence.params.stop_strings)
        self.lengths[slot], self.counts[slot] = length, 0
        self.limits[slot] = sequence.params.max_tokens - len(sequence.tokens)
        if self.limits[slot] > self.tokens.shape[1]:
            more = -(-int(self.limits[slot]) // _FIRST_WIDTH) * _FIRST_WIDTH - self.tokens.shape[1]
            self.tokens = np.pad(self.tokens, ((0, 0), (0, more)))
            self.logprobs = np.pad(self.logprobs, ((0, 0), (0, more)))
        return slot

    def record(self, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Note one more token of every running response."""
        n = len(self.running)
        rows, places = np.arange(n), self.counts[:n]
        self.tokens[rows, places] = tokens
        self.logprobs[rows, places] = logprobs
        self.counts[:n] += 1

    def newest(self) -> tuple[np.ndarray, np.ndarray]:
        """Token and log-prob of every running response that were noted last."""
        n = len(self.running)
        rows, places = np.arange(n), self.counts[:n] - 1
        return self.tokens[rows, places], self.logprobs[rows, places]

    def ended(self, tokens: np.ndarray) -> list[int]:
        """Slots whose newest token is a stop token or the last that was allowed."""
        n = len(self.running)
        stopped = (self.stops[:n] == tokens[:, None]).any(1) & (self.counts[:n] > 0)
        return np.flatnonzero(stopped | (self.counts[:n] >= self.limits[:n])).tolist()

    def with_stop_strings(self) -> list[int]:
        """Slots whose text has to be looked at."""
        if not self._stop_strings:
            return []
        return [slot for slot, sequence in enumerate(self.running) if sequence.params.stop_strings]

    def response(self, slot: int) -> list[int]:
        """All tokens of the response in a slot."""
        return self.running[slot].tokens + self.tokens[slot, : self.counts[slot]].tolist()

    def release(self, slot: int) -> Sequence:
        """The sequence of a slot, with everything the table holds of it written into it."""
        sequence, count = self.running[slot], self.counts[slot]
        sequence.extend(self.tokens[slot, :count].tolist(), self.logprobs[slot, :count].tolist())
        return sequence

    def remove(self, slots: Many[int]) -> list[Move]:
        """Empty some slots and close the gaps; the copies to be made elsewhere, in this order."""
        moves: list[Move] = []
        for gap in sorted(slots, reverse=True):  # from behind, so that nothing behind a gap is dead
            self._stop_strings -= bool(self.running[gap].params.stop_strings)
            while (donor := self._donor(gap)) != gap:
                self._copy(donor, gap)
                moves.append(Move(donor, gap, int(self.lengths[gap])))
                gap = donor
            self.running.pop()
        return moves

    def _donor(self, gap: int) -> int:
        """The slot that fills a gap: behind the gap's block, the last one of the longest; within it, or where
        spans do not follow the lengths, the last.
        """
        last = len(self.running) - 1
        behind = gap // BLOCK * BLOCK + BLOCK
        if behind > last or not self.padding:
            return last
        heights = -(-self.lengths[behind : last + 1] // _STEP)
        return last - int(heights[::-1].argmax())

    def _copy(self, source: int, target: int) -> None:
        self.running[target] = self.running[source]
        for column in (self.lengths, self.counts, self.limits, self.stops):
            column[target] = column[source]
        count = self.counts[source]
        self.tokens[target, :count] = self.tokens[source, :count]
        self.logprobs[target, :count] = self.logprobs[source, :count]

    # -- attention -------------------------------------------------------------------------------------------

    def spans(self, start: int, stop: int) -> list[Span]:
        """Slots start..stop-1 cut into spans, each long enough for its longest response and one more token.

        Blocks of slots; neighbours are joined where that reads fewer needless positions than a span costs.
        """
        if not self.padding:
            return [Span(start, stop, self.cache_length)]
        needed = self.lengths[start:stop] + 1
        heights = np.maximum.reduceat(needed, np.arange(0, stop - start, BLOCK))
        heights = -(-heights // self.padding) * self.padding
        spans: list[Span] = []
        for block, height in enumerate(heights.tolist()):
            first = start + block * BLOCK
            end = min(first + BLOCK, stop)
            if spans:
                before = spans[-1]
                joint = max(height, before.length)
                needless = (joint - height) * (end - first) + (joint - before.length) * (before.stop - before.start)
                if needless <= self.merge_positions:
                    spans[-1] = Span(before.start, end, joint)
                    continue
            spans.append(Span(first, end, height))
        return spans

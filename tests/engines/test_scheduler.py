"""The table of running responses: closing gaps and cutting spans.

Why it matters: a slot that is moved wrongly gives one response another's cache, which still looks like text. The tables
are compared with a plain model (a dictionary of responses) through thousands of random placements and removals.

Not exercised: sampling, the model.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from r1kit.engines.protocol import Request, SamplingParams
from r1kit.engines.scheduler import Move, Scheduler
from r1kit.engines.sequence import Prompt, Sequence


def sequence(name: str, prompt: tuple[int, ...] = (1, 2), **params: object) -> Sequence:
    return Sequence.of(Request(name, prompt, SamplingParams(**params)))  # type: ignore[arg-type]


def scheduler(slots: int, **settings: int) -> Scheduler:
    return Scheduler(
        slots, **{"padding": 16, "cache_length": 512, "merge_positions": 100, "refill_slots": 2, **settings}
    )


@pytest.mark.parametrize("seed", range(5))
def test_responses_keep_their_rows_through_moves(seed: int) -> None:
    rng = random.Random(seed)
    slots = rng.choice([1, 5, 40, 70])
    table = scheduler(slots)
    cache = np.full(slots, "", dtype=object)  # stands for keys and values: moved by the scheduler's word only
    tokens: dict[str, list[int]] = {}
    for turn in range(200):
        while len(table.running) < slots and rng.random() < 0.7:
            name = f"{turn}-{len(tokens)}"
            slot = table.place(sequence(name, max_tokens=400), rng.randint(1, 60))
            tokens[name], cache[slot] = [], name
        n = len(table.running)
        drawn = np.array([rng.randrange(100) for _ in range(n)])
        table.record(drawn, -drawn.astype(float))
        for s, token in zip(table.running, drawn.tolist(), strict=True):
            tokens[s.request.id].append(token)
        table.lengths[:n] += 1
        leaving = [slot for slot in range(n) if rng.random() < 0.15]
        for slot in leaving:
            done = table.release(slot)
            assert done.tokens == tokens[done.request.id]
            assert done.logprobs == [-float(t) for t in done.tokens]
        for source, target, length in table.remove(leaving):
            assert length > 0
            cache[target] = cache[source]
        assert [s.request.id for s in table.running] == list(cache[: len(table.running)])
        for slot, s in enumerate(table.running):
            assert table.response(slot) == tokens[s.request.id]


def test_a_gap_is_filled_by_the_last_response_of_equal_length() -> None:
    table = scheduler(40)
    for i in range(40):
        table.place(sequence(str(i)), 100)
    assert table.remove([3]) == [Move(39, 3, 100)]


def test_a_gap_among_long_responses_is_filled_from_the_longest_behind() -> None:
    table = scheduler(40)
    for i in range(40):
        table.place(sequence(str(i)), 200 if i < 16 else 120 if i < 32 else 20)
    assert table.remove([3]) == [Move(15, 3, 200), Move(31, 15, 120), Move(39, 31, 20)]


@pytest.mark.parametrize("padding", [16, 64])
def test_spans_cover_every_slot_and_its_next_token(padding: int) -> None:
    rng = random.Random(padding)
    for _ in range(50):
        table = scheduler(100, padding=padding, merge_positions=rng.choice([0, 50, 5000]))
        n = rng.randint(1, 100)
        for i in range(n):
            table.place(sequence(str(i)), rng.randint(1, 400))
        start = rng.randrange(n)
        spans = table.spans(start, n)
        assert [spans[0].start, spans[-1].stop] == [start, n]
        assert all(a.stop == b.start for a, b in pairwise(spans))
        for span in spans:
            longest = int(table.lengths[span.start : span.stop].max()) + 1
            assert longest <= span.length < longest + padding
            assert span.length % padding == 0


def test_spans_of_equal_length_are_joined() -> None:
    table = scheduler(64)
    for i in range(64):
        table.place(sequence(str(i)), 50)
    assert table.spans(0, 64) == [(0, 64, 64)]


def test_without_a_padding_that_works_the_whole_cache_is_read() -> None:
    table = scheduler(4, padding=0)
    table.place(sequence("a"), 5)
    assert table.spans(0, 1) == [(0, 1, 512)]


def test_refills_wait_until_enough_slots_are_free() -> None:
    table = scheduler(16)
    for i in range(40):
        table.add(sequence(str(i)))
    assert len(table.admit()) == 16
    for i in range(16):
        table.place(sequence(str(i)), 5)
    table.remove([15])
    assert table.admit() == []
    table.remove([14])
    assert len(table.admit()) == 2
    while len(table.waiting) > 1:
        table.waiting.pop()
    assert len(table.admit()) == 1  # the last one need not wait


def test_a_refill_never_waits_for_more_slots_than_there_are() -> None:
    table = scheduler(1)  # fewer slots than the two that a refill would rather wait for
    table.add(sequence("a"))
    table.add(sequence("b"))
    assert len(table.admit()) == 1


def test_prompts_are_wanted_as_long_as_a_request_waits_for_them() -> None:
    table = scheduler(1)
    first, second = sequence("a"), sequence("b")
    table.add(first)
    table.add(second)
    assert table.wanted[Prompt((1, 2))] == 2
    table.admit()
    table.withdraw(second)
    assert not table.wanted

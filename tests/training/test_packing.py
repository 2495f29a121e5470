"""Micro-batches: every sequence once, no more tokens than the budget, little padding.

Why this matters: a sequence planned twice counts twice in the gradient and one left out is never learned, both without
an error; a batch over its budget is the out-of-memory of an hour into a run.

Not exercised here: that the gradient does not depend on the plan (test_update.py); speed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.training.packing import SEGMENT_COST_TOKENS, balanced_shards, plan

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(60, 300), st.booleans(), st.booleans())
def test_every_sequence_stands_in_one_segment_within_the_budget(
    lengths: list[int], budget: int, best_fit: bool, apart: bool
) -> None:
    micros = plan(lengths, budget, best_fit=best_fit, apart=apart)
    if apart:
        assert sum(micro.tokens for micro in micros) == sum(lengths)
    seen: Counter[int] = Counter()
    for micro in micros:
        assert 0 < micro.tokens <= budget
        for segment, members in zip(micro.segments, micro.members, strict=True):
            assert len(members) == segment.rows
            assert max(lengths[i] for i in members) == segment.length
            seen.update(members)
    assert seen == Counter(range(len(lengths)))


@given(LENGTHS.filter(len), st.integers(60, 300))
def test_filled_arrays_come_back_from_their_places(lengths: list[int], budget: int) -> None:
    arrays = [np.arange(n) + 1000 * i for i, n in enumerate(lengths)]
    for micro in plan(lengths, budget):
        flat = micro.fill(arrays, -1)
        assert micro.tensor(arrays, -1).tolist() == flat.tolist()
        start = 0
        for segment, members in zip(micro.segments, micro.members, strict=True):
            for i in members:
                row = flat[start : start + segment.length]
                assert row[: lengths[i]].tolist() == arrays[i].tolist()
                assert (row[lengths[i] :] == -1).all()
                start += segment.length
        assert start == micro.tokens


@given(LENGTHS.filter(len))
def test_padding_is_cheaper_than_either_extreme(lengths: list[int]) -> None:
    """The plan costs no more than one segment for all, nor than one for each length (where all fit one batch)."""
    budget = len(lengths) * max(lengths)
    padded = sum(m.tokens + SEGMENT_COST_TOKENS * len(m.segments) for m in plan(lengths, budget))
    one = budget + SEGMENT_COST_TOKENS
    each = sum(lengths) + SEGMENT_COST_TOKENS * len(set(lengths))
    assert padded <= min(one, each)


def test_waste_is_small_on_lengths_as_they_come() -> None:
    """Responses of a step: log-normal lengths, capped. Padding stays under 5 %, where plain batches waste a third."""
    lengths = np.random.default_rng(0).lognormal(4.0, 0.6, 256).clip(4, 240).astype(int).tolist()
    micros = plan(lengths, 2560)
    tokens = sum(m.tokens for m in micros)
    assert tokens < 1.05 * sum(lengths)
    assert len(micros) <= 1.3 * sum(lengths) / 2560 + 1


@given(LENGTHS, st.integers(60, 300))
def test_best_fit_needs_no_more_micro_batches(lengths: list[int], budget: int) -> None:
    assert len(plan(lengths, budget, best_fit=True)) <= len(plan(lengths, budget))


def test_best_fit_fills_the_gap_that_a_long_sequence_left() -> None:
    # 900 leaves 100, 600 leaves 400: 350 stands with the 600, the 90 with the 900.
    lengths = [900, 600, 350, 90]
    assert [m.members for m in plan(lengths, 1000)] == [((0,),), ((1,), (2,)), ((3,),)]
    assert [m.members for m in plan(lengths, 1000, best_fit=True)] == [((0,), (3,)), ((1,), (2,))]


def test_a_sequence_over_the_budget_says_what_to_change() -> None:
    with pytest.raises(ValueError, match=r"token_budget is 30, but one sequence has 31 tokens: raise .* at least 31"):
        plan([5, 31], 30)


def test_nothing_to_plan() -> None:
    assert plan([], 10) == []


@given(LENGTHS, st.integers(1, 5))
def test_shards_hold_everything_once_and_weigh_alike(lengths: list[int], shards: int) -> None:
    parts = balanced_shards(lengths, shards)
    assert len(parts) == shards
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in part) for part in parts]
    # Longest first, to the lightest: no two shards differ by more than one sequence.
    assert max(loads) - min(loads) <= max(lengths, default=0)

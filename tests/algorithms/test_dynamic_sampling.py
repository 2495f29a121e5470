"""Why this matters: groups without spread cost sampling and teach nothing; dropping them without refilling
shrinks the batch, refilling without a bound ends or stalls the run (both happened to others).

Does not exercise: the RL step that samples, carries and counts.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.dynamic_sampling import UsefulShare, problems_to_sample, take_groups, useful_groups


def test_useful_groups_by_hand() -> None:
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 0.1]])
    assert useful_groups(rewards).tolist() == [False, False, True, True]
    assert useful_groups(rewards, tolerance=0.5).tolist() == [False, False, True, False]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=3, max_size=3), min_size=1, max_size=9))
def test_useful_groups_equal_the_oracle(rewards: list[list[float]]) -> None:
    assert useful_groups(torch.tensor(rewards)).tolist() == [len(set(group)) > 1 for group in rewards]


def test_share_by_hand() -> None:
    """(1, 1) fades to (0.5, 0.5), then 2 of 8 are seen: 2.5 / 8.5."""
    share = UsefulShare().observe(2, 8, decay=0.5)
    assert share == UsefulShare(2.5, 8.5)
    assert problems_to_sample(5, share, max_factor=10.0) == 17


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=30),
    st.integers(0, 64),
    st.floats(1, 8),
)
def test_the_number_to_sample_is_bounded_and_enough(history, needed: int, max_factor: float) -> None:
    share = UsefulShare()
    for useful, useless in history:
        share = share.observe(useful, useful + useless)
    count = problems_to_sample(needed, share, max_factor=max_factor)
    assert needed <= count <= max(needed, math.floor(needed * max_factor))
    if count < math.floor(needed * max_factor):
        assert count * share.value >= needed - 1e-9


def test_nothing_useful_for_long_never_divides_by_zero() -> None:
    share = UsefulShare()
    for _ in range(20_000):
        share = share.observe(0, 32)
    assert problems_to_sample(32, share, max_factor=3.0) == 96


def test_the_first_step_and_a_factor_of_one_do_not_over_sample() -> None:
    assert problems_to_sample(32, UsefulShare(), max_factor=3.0) == 32
    assert problems_to_sample(32, UsefulShare(1.0, 10.0), max_factor=1.0) == 32
    assert problems_to_sample(-3, UsefulShare(), max_factor=3.0) == 0


@given(st.lists(st.integers()), st.lists(st.integers()), st.integers(1, 9))
def test_no_group_is_lost_or_doubled(carried: list[int], fresh: list[int], target: int) -> None:
    train, carry = take_groups(carried, fresh, target)
    assert train + carry == carried + fresh
    assert len(train) == min(target, len(carried) + len(fresh))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="impossible"):
        UsefulShare().observe(3, 2)
    with pytest.raises(ValueError, match="max_factor"):
        problems_to_sample(1, UsefulShare(), max_factor=0.5)
    with pytest.raises(ValueError, match=r"\[problems, samples\]"):
        useful_groups(torch.zeros(3))
    with pytest.raises(ValueError, match="target"):
        take_groups([], [], 0)

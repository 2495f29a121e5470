"""Why this matters: a sign error in a length reward teaches the opposite of what was meant, and shows only after days.
Each equation is held to values worked by hand and to what its paper says it does.

Not exercised: that lengths are tokens and the cap is the stage's (test_compose).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.rewards import length

tokens = st.integers(0, 5000)
groups = st.lists(st.tuples(tokens, st.booleans()), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("n", "penalty"), [(1, 0.0), (180, 0.0), (181, -1 / 60), (210, -0.5), (240, -1.0), (300, -1.0)]
)
def test_overlong_follows_the_paper(n: int, penalty: float) -> None:
    assert length.overlong_penalty(n, 240, 60) == pytest.approx(penalty)


@given(tokens, tokens, st.integers(1, 200))
def test_overlong_never_prefers_the_longer(a: int, b: int, buffer: int) -> None:
    short, long = sorted((a, b))
    assert 0.0 >= length.overlong_penalty(short, 200, buffer) >= length.overlong_penalty(long, 200, buffer) >= -1.0


def test_an_overlong_buffer_larger_than_the_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer is 300"):
        length.overlong_penalty(10, 240, 300)


def test_kimi_by_hand() -> None:
    # Shortest 100, longest 300: l is 0.5, 0.25, 0, -0.5.
    lengths = [100, 150, 200, 300]
    assert length.kimi_length(lengths, [True] * 4) == [0.5, 0.25, 0.0, -0.5]
    assert length.kimi_length(lengths, [False] * 4) == [0.0, 0.0, 0.0, -0.5]
    assert length.kimi_length([7, 7], [True, False]) == [0.0, 0.0]


@given(groups)
def test_kimi_keeps_its_range_and_never_prefers_the_longer(group: list[tuple[int, bool]]) -> None:
    lengths, right = [n for n, _ in group], [r for _, r in group]
    values = length.kimi_length(lengths, right)
    assert all(-0.5 <= v <= 0.5 for v in values)
    assert all(v <= 0 for v, good in zip(values, right, strict=True) if not good)
    assert length.kimi_length(lengths[::-1], right[::-1]) == values[::-1]
    good = [(n, v) for (n, r), v in zip(group, values, strict=True) if r]
    assert all(a[1] >= b[1] for a in good for b in good if a[0] <= b[0])


def test_cosine_by_hand() -> None:
    # cos(0) = 1, cos(pi/3) = 1/2, cos(pi/2) = 0, cos(pi) = -1.
    right = [length.cosine(n, True, 600) for n in (0, 200, 300, 600)]
    assert right == pytest.approx([1.0, 0.875, 0.75, 0.5])
    wrong = [length.cosine(n, False, 600) for n in (0, 200, 300, 600)]
    assert wrong == pytest.approx([0.0, -0.125, -0.25, -0.5])
    # The paper's own ends: a wrong answer is punished less the longer it tried.
    assert length.cosine(300, False, 600, wrong_ends=(-10.0, 0.0)) == pytest.approx(-5.0)


@given(tokens, tokens, st.integers(1, 3000))
def test_cosine_is_monotone_and_held_beyond_the_end(a: int, b: int, end: int) -> None:
    short, long = sorted((a, b))
    assert 1.0 >= length.cosine(short, True, end) >= length.cosine(long, True, end) >= 0.5
    assert 0.0 >= length.cosine(long, False, end) >= -0.5
    # Unclamped, the curve would be back at its start at twice the end.
    assert length.cosine(2 * end, True, end) == pytest.approx(0.5)


def test_lcpo_by_hand() -> None:
    assert length.lcpo_exact(700, True, 1000) == pytest.approx(1 - 0.1)
    assert length.lcpo_exact(1600, False, 1000) == pytest.approx(-0.2)
    assert [length.lcpo_max(n, True, 1000) for n in (400, 900, 1000, 1100, 1600)] == pytest.approx(
        [1.0, 0.6, 0.5, 0.4, 0.0]
    )
    assert length.lcpo_max(400, False, 1000) == 0.0


@given(tokens, tokens, st.integers(1, 5000))
def test_lcpo_exact_prefers_the_nearer(a: int, b: int, target: int) -> None:
    near, far = sorted((a, b), key=lambda n: abs(n - target))
    assert length.lcpo_exact(near, True, target) >= length.lcpo_exact(far, True, target)
    assert length.lcpo_exact(a, True, target) == pytest.approx(1 + length.lcpo_exact(a, False, target))


@given(tokens, tokens, st.integers(1, 5000))
def test_lcpo_max_keeps_its_range_and_is_the_released_formula(a: int, b: int, target: int) -> None:
    short, long = sorted((a, b))
    values = [length.lcpo_max(n, True, target) for n in (short, long)]
    assert 1.0 >= values[0] >= values[1] >= 0.0
    released = (max(-1.0, min(1.0, 0.002 * (target - a))) + 1) / 2
    assert length.lcpo_max(a, True, target) == pytest.approx(released)

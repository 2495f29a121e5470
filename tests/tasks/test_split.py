"""Why this matters: the split is the only thing between training and evaluation. It must not depend on the
process, the order or the range.

Not exercised: that the corpus honours it (see test_corpus).
"""

from __future__ import annotations

import itertools

import pytest

from r1kit.tasks.split import check_split, distinct, in_test


def test_share_and_salt() -> None:
    names = [f"{i},{j}" for i in range(100) for j in range(100)]
    held = [in_test(name, 0.2, 0) for name in names]
    assert 0.18 < sum(held) / len(held) < 0.22
    assert held != [in_test(name, 0.2, 1) for name in names]


def test_a_larger_share_keeps_what_was_held_out() -> None:
    names = [str(i) for i in range(1000)]
    assert all(in_test(name, 0.4, 0) for name in names if in_test(name, 0.2, 0))


def test_known_values_never_change() -> None:
    # A stored run is only comparable with a new one while these stand.
    assert [in_test(name, 0.2, 0) for name in ("1,9,10", "2,8,8", "1,1,1", "3,5,6", "7,8,9")] == [
        *(True, True, True, False, True),
    ]


def test_split_names() -> None:
    assert check_split("test")
    assert not check_split("train")
    with pytest.raises(ValueError, match="validation"):
        check_split("validation")


def test_distinct_draws_end_where_the_stream_is_exhausted() -> None:
    assert distinct(iter("abacad"), 3) == ["a", "b", "c"]
    assert distinct(itertools.cycle("abc"), 5) == ["a", "b", "c"]

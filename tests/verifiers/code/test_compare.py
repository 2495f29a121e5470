"""Why this matters: the published reward that zips output lines pays for printing only the first one. Here the whole
output counts, and the way it is compared is the problem's, never the candidate's.

Not exercised: where the outputs come from.
"""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from r1kit.verifiers.code import Comparison
from r1kit.verifiers.code.compare import largest_hashed, same_text, same_value

TOKENS, EXACT, LINES = Comparison(), Comparison("exact"), Comparison("lines")
FLOAT = Comparison("float", tolerance=1e-6)
ALIKE = Comparison(sequences_alike=True)


@pytest.mark.parametrize(
    ("actual", "expected", "how", "same"),
    [
        ("1 2\n3\n", "1 2 3", TOKENS, True),
        ("1\n", "1\n2\n3\n", TOKENS, False),
        ("1\n2\n3\n4\n", "1\n2\n3\n", TOKENS, False),
        ("", "1", TOKENS, False),
        ("", "", TOKENS, True),
        ("1.0", "1", TOKENS, False),
        ("yes", "YES", TOKENS, False),
        ("a  b\n", "a b\n", EXACT, False),
        ("a b", "a b\n", EXACT, True),
        ("a b\n\n", "a b\n", EXACT, False),
        ("a b  \nc\n\n", "a b\nc", LINES, True),
        ("a  b", "a b", LINES, False),
        ("1.0000005", "1", FLOAT, True),
        ("1.00001", "1", FLOAT, False),
        ("1000000.5", "1000000.0", FLOAT, True),
        ("1000000.5", "1000000", FLOAT, False),
        ("1000000008", "1000000007", FLOAT, False),
        ("1000000000000000001", "1000000000000000000", FLOAT, False),
        ("1000000000000000001.0", "1000000000000000000", FLOAT, False),
        ("2.0000000", "2", FLOAT, True),
        ("1e3", "1000.0", FLOAT, True),
        ("nan", "1", FLOAT, False),
        ("inf", "1e999", FLOAT, False),
        ("1_0", "10", FLOAT, False),
        ("110", "00110", FLOAT, False),
        ("00110", "110", FLOAT, False),
        ("+5", "5", FLOAT, False),
        ("00110", "00110", FLOAT, True),
        ("１", "1", FLOAT, False),
        ("1 x", "1 x", FLOAT, True),
        ("1 2", "1", FLOAT, False),
    ],
)
def test_texts(actual: str, expected: str, how: Comparison, same: bool) -> None:
    assert same_text(actual, expected, how) is same


@pytest.mark.parametrize(
    ("actual", "expected", "how", "same"),
    [
        ([1, 2], [1, 2], TOKENS, True),
        ((1, 2), [1, 2], TOKENS, False),
        ((1, 2), [1, 2], ALIKE, True),
        ([(1, 2)], [[1, 2]], ALIKE, True),
        ([1, 2, 3], [1, 2], ALIKE, False),
        ("ab", ["a", "b"], ALIKE, False),
        ({"a": (1,)}, {"a": [1]}, ALIKE, True),
        ({"a": 1, "b": 2}, {"a": 1}, ALIKE, False),
        (True, 1, TOKENS, True),
        (None, 0, ALIKE, False),
        ([0.1 + 0.2], [0.3], FLOAT, True),
        ([0.1 + 0.2], [0.3], TOKENS, False),
        (10**400, 1.0, FLOAT, False),
        ("0.3", 0.3, FLOAT, False),
        (2, 3, FLOAT, False),
        (math.nan, math.nan, TOKENS, False),
    ],
)
def test_values(actual: Any, expected: Any, how: Comparison, same: bool) -> None:
    assert same_value(actual, expected, how) is same


def test_deep_and_long_outputs_cost_no_more_than_their_length() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    start = time.process_time()
    assert not same_value(deep, [[1]], ALIKE)
    assert not same_value(deep, [[1]], TOKENS)
    assert not same_text("9" * 4_000_000, "1.0", FLOAT)
    assert not same_text("1 " * 1_000_000, "1", FLOAT)
    assert time.process_time() - start < 3


def test_the_largest_hashed_collection_bounds_what_is_built() -> None:
    assert largest_hashed([{1, 2}, {"a": {3, 4, 5}}]) == 3
    assert largest_hashed([1, "a"]) == 0

"""Outputs against expected outputs, outside every sandbox, on text and builtin types only.

The whole output counts: lengths are compared, nothing is zipped. Every comparison costs time in proportion to the two
lengths, whatever the candidate wrote.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from r1kit.verifiers.code.problem import Comparison

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
MAX_NUMBER = 400  # characters; a longer token is compared as text


def same_text(actual: str, expected: str, comparison: Comparison) -> bool:
    """Whether a program's output is the expected one, as the problem compares."""
    if comparison.how == "exact":
        return actual.removesuffix("\n") == expected.removesuffix("\n")
    if comparison.how == "lines":
        return _lines(actual) == _lines(expected)
    found, wanted = actual.split(), expected.split()
    if comparison.how == "tokens" or found == wanted:
        return found == wanted
    return len(found) == len(wanted) and all(map(_near, found, wanted, [comparison.tolerance] * len(wanted)))


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _near(found: str, wanted: str, tolerance: float) -> bool:
    if found == wanted:
        return True
    if not all(len(x) <= MAX_NUMBER and _NUMBER.fullmatch(x) for x in (found, wanted)):
        return False
    if _INTEGER.fullmatch(wanted):
        # A count is right or wrong: no share of it may be missing, however large it is. And what is written with zeros
        # in front, or a plus, is a word of digits (00110): it had to be equal above.
        if any(_INTEGER.fullmatch(x) and x != str(int(x)) for x in (found, wanted)):
            return False
        return int(found) == int(wanted) if _INTEGER.fullmatch(found) else _within(found, wanted, Decimal(1), tolerance)
    return _within(found, wanted, max(Decimal(1), abs(Decimal(wanted))), tolerance)


def _within(found: str, wanted: str, scale: Decimal, tolerance: float) -> bool:
    return abs(Decimal(found) - Decimal(wanted)) <= Decimal(tolerance) * scale


def close(found: float, wanted: float, tolerance: float) -> bool:
    """Within `tolerance`, absolute or relative to `wanted`; infinities only equal themselves, nan equals nothing."""
    if math.isinf(found) or math.isinf(wanted):
        return found == wanted
    return abs(found - wanted) <= tolerance * max(1.0, abs(wanted))


def same_value(actual: Any, expected: Any, comparison: Comparison) -> bool:
    """Python's `==` between data, loosened where the problem says so. Recursion follows `expected`, so its depth and
    the work are the problem's, not the candidate's.
    """
    if not comparison.tolerance and not comparison.sequences_alike:
        try:
            return bool(actual == expected)
        except RecursionError:
            return False
    if isinstance(expected, list | tuple):
        alike = isinstance(actual, list | tuple) if comparison.sequences_alike else type(actual) is type(expected)
        return (
            alike
            and len(actual) == len(expected)
            and all(same_value(a, e, comparison) for a, e in zip(actual, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and len(actual) == len(expected)
            and all(k in actual and same_value(actual[k], e, comparison) for k, e in expected.items())
        )
    if isinstance(expected, float) and isinstance(actual, int | float) and comparison.tolerance:
        try:
            return close(float(actual), expected, comparison.tolerance)
        except OverflowError:
            return False
    return bool(actual == expected)


def largest_hashed(expected: Any) -> int:
    """The size of the largest set or dict in `expected`: a right answer holds none larger."""
    if isinstance(expected, dict):
        return max([len(expected), *(largest_hashed(v) for pair in expected.items() for v in pair)])
    if isinstance(expected, set | frozenset):
        return max([len(expected), *map(largest_hashed, expected)])
    if isinstance(expected, list | tuple):
        return max(map(largest_hashed, expected), default=0)
    return 0

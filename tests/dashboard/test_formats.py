"""Why this matters: a missing value shown as 0, or a share shown a hundredfold, is a wrong report.

Does not exercise: how the page lays the texts out.
"""

from __future__ import annotations

import math

import pytest

from r1kit.dashboard.formats import (
    MISSING,
    Estimate,
    change,
    compact,
    duration,
    finite,
    interval,
    memory,
    number,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.6423, "share", "64.2 %"),
        (0.0, "share", "0.0 %"),
        (12345.6, "count", "12,346"),
        (42.34, "tokens", "42.3"),
        (139.6, "tokens", "140"),
        (3.14159, "number", "3.14"),
        (0.0003, "number", "0.0003"),
        (7.1e-05, "small", "7.1e-05"),
        (0.0, "small", "0"),
        (None, "share", MISSING),
    ],
)
def test_number(value, unit, text):
    assert number(value, unit) == text


def test_an_estimate_is_read_from_a_number_or_an_object():
    assert Estimate.read(0.5) == Estimate(0.5)
    assert Estimate.read({"value": 0.5, "low": 0.4, "high": 0.6}) == Estimate(0.5, 0.4, 0.6)
    assert Estimate.read({"value": None}) is None
    assert Estimate.read(None) is None


@pytest.mark.parametrize("raw", [math.nan, math.inf, True, "0.5", None])
def test_what_is_not_a_finite_number_is_missing(raw):
    assert finite(raw) is None


def test_interval_is_in_the_unit_of_its_value():
    assert interval(Estimate(0.642, 0.6191, 0.664), "share") == "[61.9, 66.4]"
    assert interval(Estimate(0.642), "share") == ""
    assert interval(None, "share") == ""


def test_change_is_points_for_shares_and_a_factor_otherwise():
    assert change(0.10, 0.642, "share") == "+54.2 pts"
    assert change(0.5, 0.4, "share") == "−10.0 pts"
    assert change(44.0, 139.0, "tokens") == "×3.2"
    assert change(0.0, 2.0, "number") == "+2"
    assert change(None, 2.0, "number") == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, MISSING), (0.25, "250 ms"), (9.44, "9.4 s"), (125, "2 min 05 s"), (7384, "2 h 03 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_large_counts_and_memory_in_few_figures():
    assert (compact(3_900_000), compact(12_440), compact(7)) == ("3.9M", "12.4k", "7")
    assert (memory(3 * 2**30), memory(512), memory(None)) == ("3.0 GiB", "512 B", MISSING)

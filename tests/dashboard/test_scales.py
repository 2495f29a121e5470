"""Why this matters: an axis that cuts data off, or starts where it flatters, misleads at a glance.

Does not exercise: how a browser stretches the picture.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.dashboard.scales import band_path, dots_path, line_path, round_step, tick_label, x_scale, y_scale

finite = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=20))
def test_every_value_lies_on_the_axis(values):
    scale = y_scale(values, "number")
    slack = 1e-9 * max(1.0, abs(scale.low), abs(scale.high))
    assert scale.low - slack <= min(values)
    assert max(values) <= scale.high + slack
    assert scale.low < scale.high


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_share_never_goes_past_one(values):
    assert y_scale(values, "share").high <= 1 + 1e-9


def test_an_axis_starts_at_zero_unless_that_flattens_the_curve():
    assert y_scale([0.1, 0.6], "share").low == 0
    assert y_scale([0.97, 0.99], "share").low > 0.9


@pytest.mark.parametrize(
    ("value", "unit", "ends"),
    [(0.0, "share", (0, 0.1)), (1.0, "share", (0, 1)), (0.5, "share", (0, 1)), (0.0, "number", (0, 1))],
)
def test_a_curve_that_never_moves_has_an_axis_of_its_own(value, unit, ends):
    scale = y_scale([value, value], unit)
    assert (scale.low, scale.high) == pytest.approx(ends)


def test_the_x_axis_ends_where_the_data_end():
    scale = x_scale([0, 75])
    assert (scale.low, scale.high, scale.ticks) == (0, 75, (0, 20, 40, 60))
    assert x_scale([41_000, 3_900_000]).low == 0
    assert x_scale([5]).high > 5


def test_steps_are_round():
    assert [round_step(span, 4) for span in (1, 3.9, 75, 0.03)] == pytest.approx([0.25, 1, 20, 0.01])


def test_labels_are_short():
    assert tick_label(0.25, "share") == "25%"
    assert tick_label(0.005, "small") == "0.005"
    assert tick_label(0.0002, "small") == "2e-4"
    assert tick_label(2_000_000, "count") == "2M"


def test_paths():
    assert line_path([(0, 1), (2.25, 3)]) == "M0.0,1.0L2.2,3.0"
    assert band_path([(0, 1)], [(0, 2)]) == "M0.0,1.0L0.0,2.0Z"
    assert band_path([], []) == ""
    assert dots_path([(1, 2)]) == "M1.0,2.0h0"

"""Why this matters: a curve that drops, reorders or double-counts points tells a story that did not happen.

Does not exercise: drawing.
"""

from __future__ import annotations

import pytest

from r1kit.dashboard.series import Series, read_series, smooth, thin, value_of, with_tokens


def test_points_are_sorted_and_a_redone_step_replaces():
    rows = [{"step": 2, "loss": 3.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.5}]
    assert read_series(rows, "loss") == Series((1.0, 2.0), (4.0, 2.5))


def test_rows_without_the_metric_or_with_nan_are_passed_over():
    rows = [{"step": 1}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": None}]
    assert read_series([*rows, {"step": 4, "loss": 1.0}], "loss").x == (4.0,)


def test_an_interval_is_kept_only_where_every_point_has_one():
    full = {"step": 1, "pass@1": 0.5, "pass@1_low": 0.4, "pass@1_high": 0.6}
    assert read_series([full], "pass@1").low == (0.4,)
    assert read_series([full, {"step": 2, "pass@1": 0.5}], "pass@1").low == ()


def test_clock_fields_are_found():
    assert value_of({"step": 1, "clock": {"sample_s": 0.5}}, "sample_s") == 0.5


def test_thinning_keeps_the_mean_of_every_stretch():
    series = thin(Series(tuple(range(1000)), tuple(float(i) for i in range(1000))), limit=100)
    assert len(series.x) == 100
    assert series.bucket == 10
    assert series.y[0] == pytest.approx(4.5)
    assert series.y[-1] == pytest.approx(994.5)


def test_smoothing_keeps_constants_and_short_series():
    flat = Series(tuple(range(100)), (2.0,) * 100)
    assert smooth(flat).y == flat.y
    short = Series((1.0, 2.0), (0.0, 1.0))
    assert smooth(short) is short


def test_evaluations_get_the_tokens_their_step_had_reached():
    clock = [{"step": 20, "tokens": 2000}, {"step": 40, "tokens": 4000}]
    rows = with_tokens([{"step": s} for s in (0, 10, 30, 50)], clock)
    assert [row["tokens"] for row in rows] == [0, 1000, 3000, 4000]
    assert with_tokens([{"step": 5, "tokens": 7}], clock)[0]["tokens"] == 7
    assert with_tokens([{"step": 5}], [])[0]["tokens"] is None

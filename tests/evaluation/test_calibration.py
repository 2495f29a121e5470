"""Calibration of judges, against cases by hand and slow sums.

Why this matters: a reward model is trusted by these numbers. A bin off by one, or ties counted as right, makes a coin
look like a judge.

Not exercised here: whose probabilities they are.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.evaluation.calibration import calibration, pair_calibration

Rows = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=25)


def test_by_hand() -> None:
    """Four at 0.9, three of them right; two at 0.2, none right: errors 0.15 and 0.2, so ECE (4 * .15 + 2 * .2) / 6."""
    found = calibration([0.9] * 4 + [0.2] * 2, [1, 1, 1, 0, 0, 0])
    assert found.ece == pytest.approx((4 * 0.15 + 2 * 0.2) / 6)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.brier == pytest.approx((3 * 0.01 + 0.81 + 2 * 0.04) / 6)
    assert found.log_loss == pytest.approx(-(3 * np.log(0.9) + np.log(0.1) + 2 * np.log(0.8)) / 6)
    # Of the 9 pairs of a good and a bad one, 6 are ranked right and 3 tie.
    assert found.auc == pytest.approx(7.5 / 9)
    assert [(b.low, b.count, b.probability, b.outcome) for b in found.table] == [
        (pytest.approx(0.2), 2, pytest.approx(0.2), 0.0),
        (pytest.approx(0.9), 4, pytest.approx(0.9), 0.75),
    ]


def test_pairs_by_hand() -> None:
    """Margins log 3 (right, sure to 3/4), -log 3 (wrong) and 0 (a coin): 1.5 of 3 right."""
    found = pair_calibration([np.log(3), -np.log(3), 0.0])
    assert found.accuracy == pytest.approx(0.5)
    assert found.log_loss == pytest.approx(-(np.log(0.75) + np.log(0.25) + np.log(0.5)) / 3)
    assert found.ece == pytest.approx((2 * 0.25 + 0.0) / 3)
    assert found.auc is None


@given(Rows)
def test_equals_the_slow_sums(rows: list[tuple[float, bool]]) -> None:
    probabilities, outcomes = [p for p, _ in rows], [float(y) for _, y in rows]
    found = calibration(probabilities, outcomes)
    error = 0.0
    for b in range(10):
        inside = [(p, y) for p, y in rows if min(int(np.searchsorted(np.linspace(0, 1, 11), p, "right")) - 1, 9) == b]
        if inside:
            error += abs(sum(y - p for p, y in inside)) / len(rows)
    assert found.ece == pytest.approx(error, abs=1e-12)
    good, bad = ([p for p, y in rows if y is side] for side in (True, False))
    if good and bad:
        wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
        assert found.auc == pytest.approx(wins / (len(good) * len(bad)))
    else:
        assert found.auc is None
    assert sum(b.count for b in found.table) == len(rows)


def test_a_calibrated_judge_has_little_error_and_a_sure_one_much() -> None:
    random = np.random.default_rng(0)
    p = random.random(20_000)
    y = random.random(20_000) < p
    assert calibration(p.tolist(), y.tolist()).ece < 0.02
    assert calibration(np.round(p).tolist(), y.tolist()).ece > 0.2


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20))
def test_which_response_a_pair_names_first_plays_no_part(margins: list[float]) -> None:
    there, back = pair_calibration(margins), pair_calibration([-m for m in margins])
    assert there.accuracy + back.accuracy == pytest.approx(1.0)
    assert [b.count for b in there.table] == [b.count for b in back.table]


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "match"),
    [
        ([], [], "expected one shape"),
        ([0.5], [1, 0], "expected one shape"),
        ([1.5], [1], "outside"),
        ([float("nan")], [1], "outside"),
    ],
)
def test_what_makes_no_sense_is_refused(probabilities: list[float], outcomes: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        calibration(probabilities, outcomes)

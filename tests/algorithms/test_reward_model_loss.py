"""Why this matters: RL climbs whatever the reward model learnt. A pair the wrong way round, or a step labelled after
the first mistake, is not seen in the loss curve.

Does not exercise: the model, the data files, calibration (tests/training, tests/evaluation).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.reward_model_loss import monte_carlo_labels, pairwise_loss, pointwise_loss, prm800k_labels

Scores = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=6)


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


@given(Scores, st.floats(0, 0.5))
def test_equal_the_equations(rows: list[tuple[float, float, float]], centre: float) -> None:
    a, b, c = (torch.tensor(x, dtype=torch.float64) for x in zip(*rows, strict=True))
    want = [-np.log(sigmoid(w - y - m)) + centre * (w + y) ** 2 for w, y, m in rows]
    np.testing.assert_allclose(pairwise_loss(a, b, margin_N=c, centre=centre), want, rtol=1e-9, atol=1e-12)
    want = [-m * np.log(sigmoid(w)) - (1 - m) * np.log(sigmoid(-w)) for w, _, m in rows]
    np.testing.assert_allclose(pointwise_loss(a, c), want, rtol=1e-7, atol=1e-9)


def test_by_hand() -> None:
    """Scores log 3 and 0: a preference of 3/4; a margin of log 3 leaves 1/2; centring adds (log 3)^2 / 10."""
    chosen, rejected = torch.tensor([3.0]).log(), torch.zeros(1)
    assert pairwise_loss(chosen, rejected).item() == pytest.approx(-np.log(0.75))
    assert pairwise_loss(chosen, rejected, margin_N=chosen).item() == pytest.approx(np.log(2))
    assert pairwise_loss(chosen, rejected, centre=0.1).item() == pytest.approx(-np.log(0.75) + 0.1 * np.log(3) ** 2)
    values = torch.tensor([3.0, 3.0, 3.0]).log()
    losses = pointwise_loss(values, torch.tensor([1.0, 0.0, 0.5])).tolist()
    assert losses == pytest.approx([-np.log(0.75), -np.log(0.25), -0.5 * np.log(0.75) - 0.5 * np.log(0.25)])


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-30, 30))
def test_pairs_see_the_difference_only(chosen: float, rejected: float, shift: float) -> None:
    a, b = torch.tensor([chosen], dtype=torch.float64), torch.tensor([rejected], dtype=torch.float64)
    torch.testing.assert_close(pairwise_loss(a, b), pairwise_loss(a + shift, b + shift))
    assert pairwise_loss(a, b).item() - pairwise_loss(b, a).item() == pytest.approx(rejected - chosen, abs=1e-9)


def test_ratings_after_the_first_mistake_are_not_trained_on() -> None:
    assert prm800k_labels([1, 0, -1, 1, -1]) == [1.0, 1.0, 0.0, None, None]
    assert prm800k_labels([1, 0, 1], neutral="bad") == [1.0, 0.0, 1.0]
    assert prm800k_labels([0, None, 1], neutral="skip") == [None, None, 1.0]
    assert prm800k_labels([]) == []
    with pytest.raises(ValueError, match="step 1 is rated 2"):
        prm800k_labels([1, 2])


def test_shares_are_labels_soft_or_hard() -> None:
    assert monte_carlo_labels([0.0, 0.25, 1.0]) == [0.0, 0.25, 1.0]
    assert monte_carlo_labels([0.0, 0.25, 1.0], mode="hard") == [0.0, 1.0, 1.0]
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="step 0 has share"):
            monte_carlo_labels([share])


def test_what_makes_no_sense_is_refused() -> None:
    two = torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="expected one flat shape"):
        pairwise_loss(two, two[:1])
    with pytest.raises(ValueError, match="expected one flat shape"):
        pairwise_loss(two, two, margin_N=two[:1])
    with pytest.raises(ValueError, match="centre is -1"):
        pairwise_loss(two, two, centre=-1.0)
    with pytest.raises(ValueError, match="outside"):
        pointwise_loss(two, two + 0.5)
    with pytest.raises(ValueError, match="outside"):
        pointwise_loss(two, two * float("nan"))

"""Why this matters: the pass rate decides which problems are asked again; a wrong posterior starves the policy of the
problems it could learn from, and no metric shows what was not asked.

Does not exercise: the drawing itself (tests/training/test_pools.py).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.algorithms.pass_rates import PassRate, beta_cdf, preference

PRIOR = (1.0, 1.0)


def integrated(x: float, a: float, b: float) -> float:
    """The same integral by Simpson's rule, after t = sin^2(u), which tames both ends for a, b >= 1."""
    u = np.linspace(0, np.arcsin(np.sqrt(x)), 4001)
    whole = np.linspace(0, np.pi / 2, 4001)

    def simpson(u: np.ndarray) -> float:
        y = np.sin(u) ** (2 * a - 1) * np.cos(u) ** (2 * b - 1)
        return float((u[1] - u[0]) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()))

    return simpson(u) / simpson(whole)


def test_by_hand() -> None:
    """3 of 4 right, then 0 of 2 at memory 1/2: 1.5 right and 0.5 + 2 wrong; with Beta(1, 1) the mean is 2.5 / 6."""
    rate = PassRate().observe(3, 4, memory=1.0).observe(0, 2, memory=0.5)
    assert rate == PassRate(1.5, 2.5)
    assert rate.mean(PRIOR) == pytest.approx(2.5 / 6)
    # Uniform: P(x) = x. Beta(2, 1): x^2. Beta(1, 3): 1 - (1 - x)^3.
    assert beta_cdf(0.3, 1, 1) == pytest.approx(0.3)
    assert beta_cdf(0.3, 2, 1) == pytest.approx(0.09)
    assert beta_cdf(0.3, 1, 3) == pytest.approx(1 - 0.343)
    # Never asked: the band [0.2, 0.8] holds 0.6 of the uniform prior.
    assert preference(PassRate(), low=0.2, high=0.8, floor=0.1, prior=PRIOR) == pytest.approx(0.1 + 0.9 * 0.6)


@settings(max_examples=60)
@given(st.floats(0.01, 0.99), st.floats(1, 60), st.floats(1, 60))
def test_the_cdf_equals_the_integral(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(integrated(x, a, b), abs=2e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.2, 200), st.floats(0.2, 200))
def test_the_cdf_rises_and_is_symmetric(x: float, y: float, a: float, b: float) -> None:
    low, high = sorted((x, y))
    assert 0.0 <= beta_cdf(low, a, b) <= beta_cdf(high, a, b) + 1e-12 <= 1.0 + 1e-12
    assert beta_cdf(x, a, b) == pytest.approx(1 - beta_cdf(1 - x, b, a), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_a_preference_is_a_chance_above_the_floor(history: list[tuple[int, int]]) -> None:
    rate = PassRate()
    for right, wrong in history:
        rate = rate.observe(right, right + wrong, memory=0.5)
    assert 0.1 <= preference(rate, low=0.2, high=0.8, floor=0.1, prior=PRIOR) <= 1.0
    assert 0.0 < rate.mean(PRIOR) < 1.0


def test_evidence_moves_the_preference() -> None:
    def after(right: int, samples: int) -> float:
        return preference(PassRate().observe(right, samples, memory=1), low=0.2, high=0.8, floor=0.05, prior=PRIOR)

    assert after(8, 16) > after(0, 0) > after(0, 8) > after(0, 64)
    assert after(16, 16) < after(8, 8) < after(4, 4)
    assert after(0, 10_000) == pytest.approx(0.05)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="impossible"):
        PassRate().observe(3, 2, memory=1.0)
    with pytest.raises(ValueError, match="cannot be"):
        preference(PassRate(), low=0.8, high=0.2, floor=0.1, prior=PRIOR)
    with pytest.raises(ValueError, match="positive"):
        beta_cdf(0.5, 0, 1)

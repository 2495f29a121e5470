"""Why this matters: a controller with the wrong sign collapses or explodes entropy within a hundred steps, and a mask
with a threshold of its own in each micro-batch makes the gradient depend on the cut.

Does not exercise: entropy itself (test_entropy.py), the bonus in the step (tests/training/test_objective.py).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.entropy_control import entropy_coefficient, high_entropy_mask


def test_the_coefficient_by_hand() -> None:
    limits = {"target": 0.2, "delta": 0.001, "maximum": 0.005}
    assert entropy_coefficient(0.002, 0.1, **limits) == pytest.approx((0.003, 0.003))
    assert entropy_coefficient(0.002, 0.3, **limits) == pytest.approx((0.0, 0.001))
    assert entropy_coefficient(0.005, 0.1, **limits) == (0.005, 0.005)
    assert entropy_coefficient(0.0, 0.3, **limits) == (0.0, 0.0)
    with pytest.raises(ValueError, match="negative"):
        entropy_coefficient(-1.0, 0.1, **limits)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_the_mask_equals_numpys_quantile(entropy: list[float], share: float) -> None:
    x = np.array(entropy)
    got = high_entropy_mask(torch.tensor(x), share).numpy()
    threshold = np.quantile(x, 1 - share)
    clear = ~np.isclose(x, threshold, rtol=1e-9, atol=1e-12)
    assert (got == (x >= threshold))[clear].all()
    assert got[x == x.max()].all()
    assert got.sum() >= math.floor(share * len(x))


def test_the_mask_by_hand() -> None:
    """The top fifth of ten different tokens is two."""
    entropy = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.0, 0.5, 0.6, 0.7])
    assert high_entropy_mask(entropy, 0.2).nonzero().flatten().tolist() == [1, 4]
    assert high_entropy_mask(entropy, 1.0).all()
    assert not len(high_entropy_mask(torch.zeros(0), 0.2))
    with pytest.raises(ValueError, match="share"):
        high_entropy_mask(entropy, 0.0)

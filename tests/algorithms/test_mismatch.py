"""Why this matters: a gap of 0.012 per token is a factor of 3.3 over a hundred; a correction of the wrong sign or
without its cap turns rounding noise into a gradient.

Does not exercise: where the trainer's log-probs come from (tests/training/test_mismatch.py).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.algorithms.mismatch import correction_weights, gap_statistics

NAMES = ("token_tis", "sequence_tis", "masked_is", "geometric_mask")


def oracle(name: str, trainer, engine, owners, *, cap: float, low: float, high: float) -> list[float]:
    """One token at a time."""
    weights = []
    for t, owner in enumerate(owners):
        own = [i for i, o in enumerate(owners) if o == owner]
        d = [trainer[i] - engine[i] for i in own]
        ratio = math.exp(min(max(trainer[t] - engine[t], -20), 20))
        whole = math.exp(min(max(sum(d), -20), 20))
        geometric = math.exp(min(max(sum(d) / len(d), -20), 20))
        weights.append(
            {
                "token_tis": min(ratio, cap),
                "sequence_tis": min(whole, cap),
                "masked_is": ratio if low <= ratio <= high else 0.0,
                "geometric_mask": float(low <= geometric <= high),
            }[name]
        )
    return weights


def test_by_hand() -> None:
    """Responses of 2 and 1 tokens; d = ln 2, ln 4 and -ln 4: ratios 2, 4 and 1/4; sums 8 and 1/4; geometric sqrt 8."""
    trainer, engine = torch.tensor([2.0, 4.0, 0.25]).log(), torch.zeros(3)
    owners = torch.tensor([0, 0, 1])

    def weights(name: str) -> list[float]:
        return correction_weights(name, trainer, engine, owners, cap=3.0, low=0.5, high=2.9).tolist()

    assert weights("token_tis") == pytest.approx([2.0, 3.0, 0.25])
    assert weights("sequence_tis") == pytest.approx([3.0, 3.0, 0.25])
    assert weights("masked_is") == pytest.approx([2.0, 0.0, 0.0])
    assert weights("geometric_mask") == [1.0, 1.0, 0.0]
    found = gap_statistics(trainer, engine, owners)
    assert found["gap_mean"] == pytest.approx(5 * math.log(2) / 3)
    assert found["gap_p95"] == found["gap_max"] == pytest.approx(2 * math.log(2))
    # k3: ratio - 1 - ln ratio; ESS: (2 + 4 + 1/4)^2 / (3 (4 + 16 + 1/16)).
    assert found["gap_k3"] == pytest.approx((1 - math.log(2) + 3 - math.log(4) - 0.75 + math.log(4)) / 3)
    assert found["gap_ess"] == pytest.approx(6.25**2 / (3 * 20.0625))
    assert found["gap_sequence_mean"] == pytest.approx((math.log(8) + math.log(4)) / 2)
    assert found["gap_sequence_max"] == pytest.approx(math.log(8))
    assert found["gap_sequence_ess"] == pytest.approx(8.25**2 / (2 * 64.0625))


Rows = st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0), st.integers(0, 3)), min_size=1, max_size=20)


@settings(max_examples=50)
@given(Rows, st.sampled_from(NAMES))
def test_weights_equal_the_oracle(rows: list[tuple[float, float, int]], name: str) -> None:
    trainer, engine, owners = (list(column) for column in zip(*rows, strict=True))
    bounds = {"cap": 2.0, "low": 0.5, "high": 5.0}
    arrays = (*(torch.tensor(x, dtype=torch.float64) for x in (trainer, engine)), torch.tensor(owners))
    got = correction_weights(name, *arrays, **bounds)
    np.testing.assert_allclose(got.numpy(), oracle(name, trainer, engine, owners, **bounds), rtol=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-30, 0), st.integers(0, 3)), min_size=1, max_size=20), st.sampled_from(NAMES))
def test_no_gap_needs_no_correction(rows: list[tuple[float, int]], name: str) -> None:
    """Equal log-probs give weight 1 everywhere, whatever the method, and an effective sample size of all."""
    logprobs, owners = torch.tensor([x for x, _ in rows]), torch.tensor([o for _, o in rows])
    assert correction_weights(name, logprobs, logprobs, owners).tolist() == [1.0] * len(rows)
    found = gap_statistics(logprobs, logprobs, owners)
    assert {k: v for k, v in found.items() if "ess" not in k} == dict.fromkeys(
        ("gap_mean", "gap_p95", "gap_max", "gap_k3", "gap_sequence_mean", "gap_sequence_p95", "gap_sequence_max"), 0.0
    )
    assert found["gap_ess"] == found["gap_sequence_ess"] == pytest.approx(1.0)


def test_the_ratio_puts_an_expectation_right() -> None:
    """Over a whole vocabulary: sum of engine * weight * value = the trainer's expectation, where nothing is capped."""
    generator = torch.Generator().manual_seed(0)
    trainer, engine = (torch.randn(6, generator=generator).log_softmax(-1) for _ in range(2))
    value = torch.randn(6, generator=generator)
    weight = correction_weights("token_tis", trainer, engine, torch.arange(6), cap=1e6)
    torch.testing.assert_close((engine.exp() * weight * value).sum(), (trainer.exp() * value).sum())


def test_weights_carry_no_gradient() -> None:
    trainer = torch.zeros(2, requires_grad=True)
    assert not correction_weights("token_tis", trainer, torch.zeros(2), torch.tensor([0, 1])).requires_grad


def test_nothing_to_measure() -> None:
    nothing = torch.zeros(0)
    assert gap_statistics(nothing, nothing, torch.zeros(0, dtype=torch.int64)) == {}


def test_bad_input_is_named() -> None:
    one, owner = torch.zeros(1), torch.tensor([0])
    with pytest.raises(ValueError, match="expected one of token_tis"):
        correction_weights("tis", one, one, owner)
    with pytest.raises(ValueError, match="low < 1 < high"):
        correction_weights("masked_is", one, one, owner, low=1.1)
    with pytest.raises(ValueError, match="one flat shape"):
        gap_statistics(one, torch.zeros(2), owner)

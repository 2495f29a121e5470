"""Why this matters: a preference loss with a sign or a factor wrong still falls, and what it teaches is seen weeks
later. Each is held against its equation in plain NumPy, a case computed by hand, and what its authors promise of it.

Does not exercise: where the log-probs come from, and equality with TRL's trainers (tests/training).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.preference_loss import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    nca_loss,
    orpo_loss,
    simpo_loss,
)

Numbers = st.lists(st.floats(-30, 30), min_size=1, max_size=6)
MeanLogprobs = st.floats(-12, -1e-3)


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


def dpo_oracle(w: float, loser: float, beta: float, s: float) -> float:
    p = sigmoid(beta * (w - loser))
    return -(1 - s) * np.log(p) - s * np.log(1 - p)


def nca_oracle(w: float, loser: float, beta: float) -> float:
    a, b = sigmoid(beta * w), sigmoid(beta * loser)
    return -np.log(a) - 0.5 * np.log(1 - a) - 0.5 * np.log(1 - b)


def orpo_oracle(w: float, loser: float) -> float:
    p, q = np.exp(w), np.exp(loser)
    return -np.log(sigmoid(np.log((p / (1 - p)) / (q / (1 - q)))))


def kto_oracle(ratio: float, desirable: bool, z: float, beta: float, good: float, bad: float) -> float:
    return good * (1 - sigmoid(beta * (ratio - z))) if desirable else bad * (1 - sigmoid(beta * (z - ratio)))


def slopes(f: Callable[[float, float], float], x: float, y: float, h: float = 1e-5) -> tuple[float, float]:
    return (f(x + h, y) - f(x - h, y)) / (2 * h), (f(x, y + h) - f(x, y - h)) / (2 * h)


def both(x: float, y: float) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (x, y))  # type: ignore[return-value]


# name: ours on two tensors, the equation on two numbers, range of the inputs
PAIRED: dict[str, tuple[Any, Any, tuple[float, float]]] = {
    "dpo": (lambda a, b: dpo_loss(a, b, beta=0.3), lambda a, b: dpo_oracle(a, b, 0.3, 0.0), (-20, 20)),
    "cdpo": (
        lambda a, b: dpo_loss(a, b, beta=0.3, label_smoothing=0.1),
        lambda a, b: dpo_oracle(a, b, 0.3, 0.1),
        (-20, 20),
    ),
    "ipo": (lambda a, b: ipo_loss(a, b, tau=0.1), lambda a, b: (a - b - 5.0) ** 2, (-20, 20)),
    "ipo by length": (
        lambda a, b: ipo_loss(a, b, tau=0.1, lengths_N=(torch.tensor([4]), torch.tensor([8]))),
        lambda a, b: (a / 4 - b / 8 - 5.0) ** 2,
        (-20, 20),
    ),
    "nca": (lambda a, b: nca_loss(a, b, beta=0.3), lambda a, b: nca_oracle(a, b, 0.3), (-20, 20)),
    "simpo": (
        lambda a, b: simpo_loss(a, b, beta=2.0, gamma=0.5),
        lambda a, b: -np.log(sigmoid(2.0 * (a - b) - 0.5)),
        (-9, -0.01),
    ),
    "orpo": (orpo_loss, orpo_oracle, (-9, -0.01)),
}


@pytest.mark.parametrize("name", PAIRED)
def test_equals_the_equation_and_its_slope(name: str) -> None:
    ours, oracle, (low, high) = PAIRED[name]
    random = np.random.default_rng(0)
    for x, y in random.uniform(low, high, (40, 2)):
        a, b = both(x, y)
        loss = ours(a, b)
        loss.sum().backward()
        assert loss.item() == pytest.approx(oracle(x, y), rel=1e-9, abs=1e-12)
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad.item(), b.grad.item()) == pytest.approx(slopes(oracle, x, y), rel=1e-4, abs=1e-7)


def test_by_hand() -> None:
    """Log-ratios log 3 and 0 at beta 1: sigma(log 3) = 3/4, so DPO -log 3/4; with a quarter of the labels doubted
    -3/4 log 3/4 - 1/4 log 1/4; NCA -log 3/4 - 1/2 log 1/4 - 1/2 log 1/2; IPO at tau 1/2 (log 3 - 1)^2.
    Mean log-probs log 1/2 and log 1/4: odds 1 and 1/3, so ORPO -log 3/4; SimPO at beta 1, gamma log 2: sigma(0)."""
    three, zero = torch.tensor([3.0]).log(), torch.zeros(1)
    quarter = torch.tensor(0.25)
    assert dpo_loss(three, zero, beta=1.0).item() == pytest.approx(-np.log(0.75))
    smoothed = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert dpo_loss(three, zero, beta=1.0, label_smoothing=0.25).item() == pytest.approx(smoothed)
    assert nca_loss(three, zero, beta=1.0).item() == pytest.approx(
        -np.log(0.75) - 0.5 * np.log(0.25) - 0.5 * np.log(0.5)
    )
    assert ipo_loss(three, zero, tau=0.5).item() == pytest.approx((np.log(3) - 1) ** 2)
    half = torch.tensor([0.5]).log()
    assert orpo_loss(half, quarter.log()[None]).item() == pytest.approx(-np.log(0.75), rel=1e-5)
    assert simpo_loss(half, quarter.log()[None], beta=1.0, gamma=np.log(2)).item() == pytest.approx(np.log(2))


def test_kto_by_hand() -> None:
    """Log-ratio log 3, z 0, beta 1: a good response loses 1 - 3/4, a bad one 1 - 1/4; with z = log 3 both lose 1/2."""
    ratios = torch.tensor([3.0, 3.0]).log()
    labels = torch.tensor([True, False])
    assert kto_loss(ratios, labels, 0.0, beta=1.0).tolist() == pytest.approx([0.25, 0.75])
    assert kto_loss(ratios, labels, np.log(3.0), beta=1.0).tolist() == pytest.approx([0.5, 0.5])
    weighted = kto_loss(ratios, labels, 0.0, beta=1.0, desirable_weight=2.0, undesirable_weight=4.0)
    assert weighted.tolist() == pytest.approx([0.5, 3.0])
    assert kto_reference_point(6.0, 3) == 2.0
    assert kto_reference_point(-6.0, 3) == 0.0


@given(Numbers, st.integers(0, 2**6 - 1), st.floats(0, 5), st.floats(0.05, 2))
def test_kto_equals_the_equation(ratios: list[float], bits: int, z: float, beta: float) -> None:
    labels = [bool(bits >> i & 1) for i in range(len(ratios))]
    got = kto_loss(
        torch.tensor(ratios, dtype=torch.float64), torch.tensor(labels), z, beta=beta, undesirable_weight=1.5
    )
    want = [kto_oracle(r, label, z, beta, 1.0, 1.5) for r, label in zip(ratios, labels, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@given(Numbers, Numbers, st.floats(0.05, 2))
def test_pairs_do_not_touch_one_another_and_order_is_kept(a: list[float], b: list[float], beta: float) -> None:
    n = min(len(a), len(b))
    chosen, rejected = torch.tensor(a[:n]), torch.tensor(b[:n])
    for loss in (dpo_loss, nca_loss):
        whole = loss(chosen, rejected, beta=beta)
        alone = torch.cat([loss(chosen[i : i + 1], rejected[i : i + 1], beta=beta) for i in range(n)])
        torch.testing.assert_close(whole, alone)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.05, 2))
def test_a_policy_that_is_the_reference_loses_the_same_on_every_pair(shift: float, other: float, beta: float) -> None:
    """What r does not change: DPO sees the difference of the ratios only; NCA sees each of them."""
    zero = torch.zeros(1, dtype=torch.float64)
    x, y = zero + shift, zero + other
    assert dpo_loss(zero, zero, beta=beta).item() == pytest.approx(np.log(2))
    torch.testing.assert_close(dpo_loss(x, y, beta=beta), dpo_loss(x + 3.0, y + 3.0, beta=beta))
    assert not torch.allclose(nca_loss(zero, zero, beta=beta), nca_loss(zero - 3.0, zero - 3.0, beta=beta))


def test_nca_holds_the_chosen_reward_where_it_says() -> None:
    """Least at R_w = log 2: below it the chosen likelihood is raised, above it lowered; DPO raises it always."""
    for reward, sign in ((0.0, -1), (np.log(2), 0), (3.0, 1)):
        w, loser = both(reward, 0.0)
        nca_loss(w, loser, beta=1.0).sum().backward()
        assert w.grad is not None
        assert np.sign(round(w.grad.item(), 12)) == sign
        w, loser = both(reward, 0.0)
        dpo_loss(w, loser, beta=1.0).sum().backward()
        assert w.grad is not None
        assert w.grad.item() < 0


@given(MeanLogprobs, MeanLogprobs)
def test_orpo_prefers_the_likelier_and_stays_finite(chosen: float, rejected: float) -> None:
    w, loser = both(chosen, rejected)
    loss = orpo_loss(w, loser)
    loss.sum().backward()
    assert (loss.item() < np.log(2)) == (chosen > rejected) or chosen == pytest.approx(rejected)
    assert w.grad is not None
    assert w.grad.item() <= 0


@pytest.mark.parametrize("certain", [0.0, -1e-9, -1e-7])
def test_a_certain_response_has_a_finite_loss_and_no_gradient(certain: float) -> None:
    for dtype in (torch.float32, torch.float64):
        w = torch.tensor([certain, -2.0], dtype=dtype, requires_grad=True)
        loser = torch.tensor([-2.0, certain], dtype=dtype, requires_grad=True)
        loss = orpo_loss(w, loser)
        loss.sum().backward()
        assert w.grad is not None
        assert loser.grad is not None
        assert bool(loss.isfinite().all() and w.grad.isfinite().all() and loser.grad.isfinite().all())
        assert w.grad[0] == 0.0
        assert loser.grad[1] == 0.0


def test_extreme_margins_stay_finite_in_float32() -> None:
    far = torch.tensor([1e4, -1e4])
    for loss in (dpo_loss(far, -far, beta=1.0), nca_loss(far, -far, beta=1.0), kto_loss(far, far > 0, 0.0, beta=1.0)):
        assert bool(loss.isfinite().all())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: dpo_loss(x, x[:1], beta=0.1), r"shapes \[\(1,\), \(2,\)\]"),
        (lambda x: dpo_loss(x[None], x[None], beta=0.1), "expected one flat shape"),
        (lambda x: dpo_loss(x, x, beta=0.0), "coefficient is 0.0"),
        (lambda x: dpo_loss(x, x, beta=0.1, label_smoothing=0.5), "label_smoothing is 0.5"),
        (lambda x: ipo_loss(x, x, tau=float("nan")), "coefficient is nan"),
        (lambda x: ipo_loss(x, x, tau=1.0, lengths_N=(x, x[:1])), "expected one flat shape"),
        (lambda x: nca_loss(x, x, beta=-1.0), "coefficient is -1.0"),
        (lambda x: simpo_loss(x, x, beta=1.0, gamma=-0.1), "gamma is -0.1"),
        (lambda x: kto_loss(x, x > 0, 0.0, beta=1.0, desirable_weight=-1.0), "neither may be negative"),
        (lambda x: kto_reference_point(0.0, 0), "expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[torch.Tensor], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call(torch.tensor([1.0, 2.0]))

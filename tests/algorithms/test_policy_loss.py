"""Why this matters: the trust region is four one-sided bounds whose mistakes do not show in the loss curve:
a bound on the wrong side lets a policy run away or never move. Padding, packing and micro-batches must not
enter the gradient.

Does not exercise: how log-probs are computed, the optimiser, whether a policy learns (tests/training).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.policy_loss import policy_loss

METRICS = ("tokens", "ratio", "clip_low", "clip_high", "dual_clip", "approx_kl")


def oracle(new, old, advantages, mask, weights, denominator, low, high, dual):
    """One token at a time: loss, gradient by cases, metric sums."""
    loss, gradient = 0.0, np.zeros(len(new))
    sums = dict.fromkeys(METRICS, 0.0)
    for t in range(len(new)):
        if not mask[t]:
            continue
        ratio, a = np.exp(new[t] - old[t]), advantages[t]
        clipped = min(max(ratio, 1 - low), 1 + high)
        gain, flows = ratio * a, True
        if clipped * a < gain:
            gain, flows = clipped * a, False
            sums["clip_high" if a > 0 else "clip_low"] += 1
        if dual is not None and a < 0 and dual * a > gain:
            gain, flows = dual * a, False
            sums["dual_clip"] += 1
        loss -= weights[t] * gain / denominator
        if flows:
            gradient[t] = -weights[t] * ratio * a / denominator
        sums["tokens"] += 1
        sums["ratio"] += ratio
        sums["approx_kl"] += ratio - 1 - np.log(ratio)
    return loss, gradient, sums


def arrays(seed: int, tokens: int, spread: float = 0.6) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    old = -random.exponential(1.0, tokens)
    new = old + random.normal(0, spread, tokens)
    advantages = random.choice([-1.5, -0.3, 0.0, 0.4, 1.2], tokens)
    mask = random.random(tokens) < 0.7
    return tuple(torch.tensor(x) for x in (new, old, advantages, mask, random.random(tokens) + 0.1))


def run(new, old, advantages, mask, weights, denominator=3.0, **bounds):
    new = new.clone().requires_grad_()
    loss, metrics = policy_loss(new, old, advantages, mask, denominator, weights_T=weights, **bounds)
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.detach(), gradient, metrics


def test_by_hand() -> None:
    """Ratios 2, 2, 1/2, 1/2 with A = 1, -1, 1, -1 under clip 0.2 / 0.28: gains 1.28, -2, 0.5, -0.8, loss
    1.02 / 4."""
    new = torch.tensor([2.0, 2.0, 0.5, 0.5]).log()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    everything = torch.ones(4, dtype=torch.bool)
    loss, gradient, metrics = run(
        new, torch.zeros(4), advantages, everything, None, denominator=4.0, clip_low=0.2, clip_high=0.28
    )
    assert loss.item() == pytest.approx(-(1.28 - 2 + 0.5 - 0.8) / 4)
    assert gradient.tolist() == pytest.approx([0.0, 0.5, -0.125, 0.0])
    assert (metrics["clip_high"], metrics["clip_low"], metrics["tokens"]) == (1, 1, 4)
    assert metrics["ratio"].item() == pytest.approx(5.0)


def test_dual_clip_by_hand() -> None:
    """Ratio 10 with A = -1 under c = 3: gain -3 instead of -10, and no gradient."""
    loss, gradient, metrics = run(
        torch.tensor([10.0]).log(), torch.zeros(1), torch.tensor([-1.0]), torch.tensor([True]), None,
        denominator=1.0, clip_low=0.2, clip_high=0.28, dual_clip=3.0,
    )  # fmt: skip
    assert loss.item() == pytest.approx(3.0)
    assert gradient.item() == 0.0
    assert metrics["dual_clip"] == 1


@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([(0.2, 0.2), (0.2, 0.28), (0.0, 0.0), (10.0, 10.0)]),
    st.booleans(),
)
def test_equals_the_oracle(seed: int, tokens: int, bounds: tuple[float, float], dual: bool) -> None:
    parts = arrays(seed, tokens)
    low, high = bounds
    c = 1.5 if dual else None
    loss, gradient, metrics = run(*parts, clip_low=low, clip_high=high, dual_clip=c)
    want_loss, want_gradient, want = oracle(*(p.numpy() for p in parts), 3.0, low, high, c)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-9, atol=1e-12)
    for name in METRICS:
        np.testing.assert_allclose(metrics[name].item(), want[name], rtol=1e-4, atol=1e-5, err_msg=name)


@given(st.integers(0, 10**6), st.integers(2, 40), st.randoms(use_true_random=False))
def test_order_padding_and_micro_batches_leave_the_gradient_alone(seed, tokens, random) -> None:
    bounds = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}
    parts = arrays(seed, tokens)
    loss, gradient, metrics = run(*parts, **bounds)

    order = torch.tensor(random.sample(range(tokens), tokens))
    shuffled_loss, shuffled, _ = run(*(p[order] for p in parts), **bounds)
    torch.testing.assert_close(shuffled_loss, loss)
    assert torch.equal(shuffled, gradient[order])

    # Padding of any content, NaN and infinities included, is silent once it is masked.
    junk = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30], dtype=torch.float64)
    tails = (junk, junk.flip(0), junk, torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.float64))
    padded = [torch.cat([part, tail]) for part, tail in zip(parts, tails, strict=True)]
    padded_loss, padded_gradient, padded_metrics = run(*padded, **bounds)
    torch.testing.assert_close(padded_loss, loss)
    assert torch.equal(padded_gradient[:tokens], gradient)
    assert not padded_gradient[tokens:].any()

    cut = random.randrange(1, tokens)
    halves = [run(*(p[piece] for p in parts), **bounds) for piece in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(halves[0][0] + halves[1][0], loss)
    assert torch.equal(torch.cat([halves[0][1], halves[1][1]]), gradient)
    for name in METRICS:
        torch.testing.assert_close(halves[0][2][name] + halves[1][2][name], metrics[name])
        torch.testing.assert_close(padded_metrics[name], metrics[name])


def test_on_policy_gradient_is_the_advantage() -> None:
    """With old = new the ratio is 1 and REINFORCE comes out: d loss / d logprob = -A / denominator."""
    new, _, advantages, _, _ = arrays(3, 20)
    mask = torch.ones(20, dtype=torch.bool)
    _, gradient, metrics = run(new, new, advantages, mask, None, clip_low=0.2, clip_high=0.28)
    torch.testing.assert_close(gradient, -advantages / 3.0)
    assert metrics["clip_low"] == metrics["clip_high"] == metrics["approx_kl"] == 0


def test_a_ratio_out_of_range_stays_finite() -> None:
    new = torch.tensor([0.0, -500.0])
    old = torch.tensor([-500.0, 0.0])
    loss, gradient, _ = run(
        new, old, torch.tensor([-1.0, -1.0]), torch.tensor([True, True]), None, clip_low=0.2, clip_high=0.2
    )
    assert torch.isfinite(loss)
    assert gradient.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantages_T": torch.zeros(3)}, "one flat shape"),
        ({"denominator": 0.0}, "denominator"),
        ({"clip_low": -0.1}, "negative"),
        ({"dual_clip": 1.0}, "dual_clip"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    arguments = {
        "logprobs_T": torch.zeros(2), "old_logprobs_T": torch.zeros(2), "advantages_T": torch.zeros(2),
        "mask_T": torch.ones(2, dtype=torch.bool), "denominator": 1.0, "clip_low": 0.2, "clip_high": 0.28,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        policy_loss(**(arguments | change))

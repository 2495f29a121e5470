"""The objectives beside PPO's clip (test_policy_loss.py): GSPO, CISPO, GMPO, REINFORCE; the likelihood of positives.

Why this matters: they differ in where the gradient is cut and what a response's tokens share. One taken for another
trains, and gives another algorithm than the recipe names.

Does not exercise: TRL's version of them (test_trl_parity.py), the step (tests/training).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.policy_loss import policy_loss, positive_nll

BOUNDS = {"gspo": (0.1, 0.15), "cispo": (1.0, 0.5), "gmpo": (0.2, 0.3), "reinforce": (0.2, 0.28)}
lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any)


def arrays(seed: int, counts: list[int]) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(counts)), counts)
    old = -random.exponential(1.0, len(owners))
    parts = {
        "new": old + random.normal(0, 0.4, len(owners)),
        "old": old,
        "advantages": random.choice([-1.5, -0.3, 0.0, 0.4, 1.2], len(counts))[owners],
        "mask": random.random(len(owners)) < 0.8,
        "weights": random.random(len(counts))[owners] + 0.1,
        "owners": owners,
    }
    return {name: torch.tensor(x) for name, x in parts.items()}


def oracle(x: dict[str, np.ndarray], objective: str, low: float, high: float) -> tuple[float, np.ndarray]:
    """Loss and its gradient, one response after another, by cases."""
    loss, gradient = 0.0, np.zeros(len(x["new"]))
    for i in np.unique(x["owners"]):
        tokens = [t for t in np.flatnonzero(x["owners"] == i) if x["mask"][t]]
        if not tokens:
            continue
        a, n = x["advantages"][tokens[0]], len(tokens)
        log_ratios = {t: x["new"][t] - x["old"][t] for t in tokens}
        if objective == "gspo":
            ratio = math.exp(sum(log_ratios.values()) / n)
            bound = min(max(ratio, 1 - low), 1 + high)
            cut = bound * a < ratio * a
            for t in tokens:
                loss -= x["weights"][t] * (bound if cut else ratio) * a
                for s in tokens:
                    gradient[s] -= 0.0 if cut else x["weights"][t] * a * ratio / n
        elif objective == "gmpo":
            inside = {t: (d <= high if a > 0 else d >= -low) for t, d in log_ratios.items()}
            clipped = [d if inside[t] else (high if a > 0 else -low) for t, d in log_ratios.items()]
            mean = math.exp(sum(clipped) / n)
            for t in tokens:
                loss -= x["weights"][t] * a * mean
                for s in tokens:
                    gradient[s] -= x["weights"][t] * a * mean / n if inside[s] else 0.0
        else:
            for t, d in log_ratios.items():
                factor = min(max(math.exp(d), 1 - low), 1 + high) if objective == "cispo" else 1.0
                loss -= x["weights"][t] * factor * a * x["new"][t]
                gradient[t] -= x["weights"][t] * factor * a
    return loss / 3.0, gradient / 3.0


def run(x: dict[str, torch.Tensor], objective: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    low, high = BOUNDS[objective]
    new = x["new"].clone().requires_grad_()
    loss, metrics = policy_loss(
        new, x["old"], x["advantages"], x["mask"], 3.0,
        clip_low=low, clip_high=high, weights_T=x["weights"], objective=objective, sequence_T=x["owners"],
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.detach(), gradient, metrics


@given(st.integers(0, 10**6), lengths, st.sampled_from(sorted(BOUNDS)))
def test_equals_the_oracle(seed: int, counts: list[int], objective: str) -> None:
    x = arrays(seed, counts)
    loss, gradient, metrics = run(x, objective)
    want_loss, want_gradient = oracle({k: v.numpy() for k, v in x.items()}, objective, *BOUNDS[objective])
    np.testing.assert_allclose(loss, want_loss, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-9, atol=1e-12)
    assert metrics["tokens"] == x["mask"].sum()


@pytest.mark.parametrize("objective", sorted(BOUNDS))
def test_by_hand(objective: str) -> None:
    """Two tokens of one response with A = 1, ratios 1 and 2, log-probs -1 and ln 2 - 1, no weights, Z = 1."""
    new, old = torch.tensor([-1.0, math.log(2) - 1]), torch.tensor([-1.0, -1.0])
    low, high = BOUNDS[objective]
    loss, _ = policy_loss(
        new, old, torch.ones(2), torch.ones(2, dtype=torch.bool), 1.0,
        clip_low=low, clip_high=high, objective=objective, sequence_T=torch.zeros(2),
    )  # fmt: skip
    want = {
        "gspo": 2 * 1.15,  # exp(ln(2) / 2) = 1.41 for both, cut at 1.15
        "cispo": -1.0 + 1.5 * (math.log(2) - 1),
        "gmpo": 2 * math.exp(0.3 / 2),
        "reinforce": -1.0 + (math.log(2) - 1),
    }[objective]
    assert loss.item() == pytest.approx(-want)


@pytest.mark.parametrize("objective", ["clip", *sorted(BOUNDS)])
def test_on_policy_every_objective_is_reinforce(objective: str) -> None:
    x = arrays(4, [5, 3, 6])
    x["new"], x["mask"] = x["old"].clone(), torch.ones_like(x["mask"])
    low, high = BOUNDS.get(objective, (0.2, 0.28))
    new = x["new"].requires_grad_()
    loss, metrics = policy_loss(
        new, x["old"], x["advantages"], x["mask"], 3.0,
        clip_low=low, clip_high=high, weights_T=x["weights"], objective=objective, sequence_T=x["owners"],
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, new)
    torch.testing.assert_close(gradient, -x["weights"] * x["advantages"] / 3.0)
    assert metrics["clip_low"] == metrics["clip_high"] == 0


@given(st.integers(0, 10**6), lengths.filter(lambda n: len(n) > 1), st.sampled_from(sorted(BOUNDS)))
def test_responses_may_be_cut_apart_and_padded(seed: int, counts: list[int], objective: str) -> None:
    x = arrays(seed, counts)
    loss, gradient, _ = run(x, objective)
    half = len(counts) // 2
    pieces = []
    for first in (True, False):
        rows = (x["owners"] < half) == first
        piece = {k: v[rows] for k, v in x.items()}
        piece["owners"] = piece["owners"] - (0 if first else half)
        if not rows.any():
            continue
        # Padding of any content behind it, named as the first response's.
        junk = {"new": float("nan"), "old": float("inf"), "advantages": 5.0, "mask": False, "weights": 1.0, "owners": 0}
        padded = {k: torch.cat([v, torch.tensor([junk[k]]).to(v.dtype)]) for k, v in piece.items()}
        part_loss, part_gradient, _ = run(padded, objective)
        torch.testing.assert_close(part_gradient[:-1], gradient[rows])
        assert part_gradient[-1] == 0.0
        pieces.append(part_loss)
    torch.testing.assert_close(sum(pieces), loss)


def test_positive_nll_by_hand() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    loss = positive_nll(logprobs, torch.tensor([True, False, True]), 2.0)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == 2.5
    assert gradient.tolist() == [-0.5, 0.0, -0.5]
    nothing = positive_nll(logprobs, torch.zeros(3, dtype=torch.bool), 0.0)
    assert nothing.item() == 0.0
    assert not torch.autograd.grad(nothing, logprobs)[0].any()


def test_bad_input_is_named() -> None:
    arguments = [torch.zeros(2)] * 3 + [torch.ones(2, dtype=torch.bool), 1.0]
    with pytest.raises(ValueError, match="objective is 'ppo'"):
        policy_loss(*arguments, clip_low=0.2, clip_high=0.2, objective="ppo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gspo needs sequence_T"):
        policy_loss(*arguments, clip_low=0.2, clip_high=0.2, objective="gspo")

"""Why this matters: a return shifted by one token, or one that leaks from a response into the next, still trains a
critic with a falling loss; only the definition, written out term by term, tells.

Does not exercise: where values and rewards come from (tests/training/test_critic.py).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.gae import explained_variance, gae, length_adaptive_lambda, rewards_to_go, whiten

responses = st.lists(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=0, max_size=7), min_size=1, max_size=5
)


def oracle(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t as the sum over all k of (gamma lambda)^k delta_{t+k}, one response."""
    values = [*values, 0.0]
    delta = [rewards[t] + gamma * values[t + 1] - values[t] for t in range(len(rewards))]
    return [sum((gamma * lam) ** k * delta[t + k] for k in range(len(rewards) - t)) for t in range(len(rewards))]


def flat(parts: list[list[tuple[float, float]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pairs = [pair for part in parts for pair in part]
    rewards, values = (torch.tensor([p[i] for p in pairs], dtype=torch.float64) for i in (0, 1))
    return rewards, values, torch.tensor([len(part) for part in parts])


def test_by_hand() -> None:
    """Rewards (0, 1), values (1/2, 1/4), gamma = lambda = 1/2: delta (-3/8, 3/4), A (-3/8 + 1/4 * 3/4, 3/4)."""
    got = gae(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25]), torch.tensor([2]), gamma=0.5, lam=0.5)
    assert got.tolist() == pytest.approx([-0.1875, 0.75])


@given(responses, st.floats(0.1, 1.0), st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_equals_the_oracle_with_a_lambda_for_each_response(parts, gamma: float, lambdas: list[float]) -> None:
    rewards, values, lengths = flat(parts)
    lam = torch.tensor(lambdas[: len(parts)])
    got = gae(rewards, values, lengths, gamma=gamma, lam=lam)
    want = [
        a
        for part, weight in zip(parts, lam.tolist(), strict=True)
        for a in oracle([r for r, _ in part], [v for _, v in part], gamma, weight)
    ]
    np.testing.assert_allclose(got.numpy(), np.array(want), rtol=1e-5, atol=1e-5)


@given(responses, st.floats(0.1, 1.0))
def test_with_lambda_one_the_target_is_the_return_whatever_the_values(parts, gamma: float) -> None:
    rewards, values, lengths = flat(parts)
    target = gae(rewards, values, lengths, gamma=gamma, lam=1.0).double() + values
    torch.testing.assert_close(target, rewards_to_go(rewards, lengths, gamma=gamma).double(), rtol=1e-5, atol=1e-5)


def test_length_adaptive_lambda_by_hand() -> None:
    """alpha 0.05: 20 tokens 0, 100 tokens 1 - 1/5, 1000 tokens 1 - 1/50."""
    got = length_adaptive_lambda(torch.tensor([5, 20, 100, 1000]), 0.05)
    assert got.tolist() == pytest.approx([0.0, 0.0, 0.8, 0.98])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_whitened_has_mean_0_and_std_1(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    got = whiten(x).double()
    if bool(x.amax() == x.amin()):
        assert not got.any()
    elif x.std() > 1e-3:
        assert got.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert got.std().item() == pytest.approx(1.0, abs=1e-4)
        torch.testing.assert_close(whiten(3 * x + 7).double(), got, rtol=1e-4, atol=1e-4)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((4,), 9.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(4)) == 0.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="a sum of T"):
        gae(torch.zeros(3), torch.zeros(3), torch.tensor([2]))
    with pytest.raises(ValueError, match="gamma"):
        gae(torch.zeros(2), torch.zeros(2), torch.tensor([2]), gamma=0.0)
    with pytest.raises(ValueError, match="lambda"):
        gae(torch.zeros(2), torch.zeros(2), torch.tensor([2]), lam=torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="alpha"):
        length_adaptive_lambda(torch.tensor([3]), 0.0)

"""Why this matters: the three estimators have one value in expectation and three different gradients;
mixing them up regularises towards the wrong distribution, or not at all, without a trace in the logged KL.

Does not exercise: the refresh of the reference, KL inside the reward.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.algorithms.kl import k1, k2, k3, k3_k2, kl_estimate


def test_by_hand() -> None:
    """Policy 1/2, reference 1/4: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 - 1 + ln 2."""
    policy, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert k1(policy, reference).item() == pytest.approx(0.693147, abs=1e-6)
    assert k2(policy, reference).item() == pytest.approx(0.240227, abs=1e-6)
    assert k3(policy, reference).item() == pytest.approx(0.193147, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-12, 0), st.floats(-12, 0)), min_size=1, max_size=20))
def test_equals_the_oracle(pairs: list[tuple[float, float]]) -> None:
    policy, reference = np.array(pairs).T
    want = {"k1": [], "k2": [], "k3": [], "k3_k2": []}
    for p, r in zip(policy, reference, strict=True):
        want["k1"].append(p - r)
        want["k2"].append((p - r) ** 2 / 2)
        want["k3"].append(np.exp(r) / np.exp(p) - 1 - np.log(np.exp(r) / np.exp(p)))
        want["k3_k2"].append(want["k3"][-1])
    for name, values in want.items():
        got = kl_estimate(torch.tensor(policy), torch.tensor(reference), name)
        np.testing.assert_allclose(got.numpy(), values, rtol=1e-7, atol=1e-9, err_msg=name)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_means_and_gradients_are_as_the_table_says(seed: int) -> None:
    """All tokens of a vocabulary of 6, weighted by their probability, instead of sampling."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    frozen = policy.exp().detach()
    reverse = (policy.exp() * (policy - reference)).sum()
    forward = (reference.exp() * (reference - policy)).sum()

    torch.testing.assert_close((frozen * k1(policy, reference)).sum(), reverse)
    torch.testing.assert_close((frozen * k3(policy, reference)).sum(), reverse)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    torch.testing.assert_close(gradient((frozen * k1(policy, reference)).sum()), torch.zeros(6).double())
    torch.testing.assert_close(gradient((frozen * k2(policy, reference)).sum()), gradient(reverse))
    torch.testing.assert_close(gradient((frozen * k3(policy, reference)).sum()), gradient(forward))
    torch.testing.assert_close(gradient((frozen * k3_k2(policy, reference)).sum()), gradient(reverse))


def test_k3_is_exact_near_zero_and_finite_far_away() -> None:
    near = k3(torch.tensor([-1.0]), torch.tensor([-1.0 + 2**-12]))
    assert near.item() == pytest.approx(2**-25, rel=1e-3)  # exp(d) - 1 - d would lose every digit in float32
    assert torch.isfinite(k3(torch.tensor([-300.0, 0.0]), torch.tensor([0.0, -300.0]))).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected one of \['k1', 'k2', 'k3', 'k3_k2'\]"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "kl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        kl_estimate(torch.zeros(1), torch.zeros(2), "k1")

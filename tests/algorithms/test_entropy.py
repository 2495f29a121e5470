"""Why this matters: this function makes every log-prob the trainer uses, with a hand-written backward pass.
An error in it is an error in all training; a dependence on the chunk size would make results depend on
memory settings.

Does not exercise: speed (see the figures in docs/results.md), CUDA.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.algorithms import entropy as module
from r1kit.algorithms.entropy import chunked_logprobs


def oracle(hidden, head, targets, temperature):
    """Token by token in float64: log-prob, entropy, and gradients of the log-prob."""
    logprobs, entropies, to_hidden, to_head = [], [], [], []
    for t in range(len(hidden)):
        logits = head @ hidden[t] / temperature[t]
        weights = np.exp(logits - logits.max())
        probs = weights / weights.sum()
        logprobs.append(np.log(probs[targets[t]]))
        entropies.append(-(probs * np.log(probs)).sum())
        delta = -probs
        delta[targets[t]] += 1
        to_hidden.append(delta @ head / temperature[t])
        to_head.append(np.outer(delta, hidden[t]) / temperature[t])
    return np.array(logprobs), np.array(entropies), np.array(to_hidden), np.array(to_head)


def inputs(seed: int, tokens: int, vocabulary: int, width: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator)
    head = torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    temperature = torch.rand(tokens, generator=generator) + 0.5
    upstream = torch.randn(tokens, generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets, temperature, upstream


def test_by_hand() -> None:
    """Logits (ln 1, ln 3) give probabilities 1/4 and 3/4: log-prob ln 0.75, entropy 0.5623; d/dlogits =
    (-3/4, 1/4)... for target 1 the gradient is onehot - p = (-1/4, 1/4)."""
    hidden = torch.tensor([[1.0]], requires_grad=True)
    head = torch.tensor([[0.0], [np.log(3.0)]], dtype=torch.float32, requires_grad=True)
    logprobs, entropy = chunked_logprobs(hidden, head, torch.tensor([1]))
    logprobs.sum().backward()
    assert logprobs.item() == pytest.approx(np.log(0.75))
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    assert head.grad.flatten().tolist() == pytest.approx([-0.25, 0.25])
    assert hidden.grad.item() == pytest.approx(0.25 * np.log(3.0))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 12), st.integers(1, 25), st.booleans())
def test_equals_the_oracle_for_every_chunk(seed, tokens, vocabulary, chunk, keep) -> None:
    hidden, head, targets, temperature, upstream = inputs(seed, tokens, vocabulary, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KEEP_ELEMENTS", 1 << 24 if keep else 0)
        logprobs, entropy = chunked_logprobs(hidden, head, targets, temperature, chunk)
        to_hidden, to_head = torch.autograd.grad(logprobs, (hidden, head), upstream)
    want = oracle(*(x.detach().double().numpy() for x in (hidden, head)), targets.numpy(), temperature.numpy())
    g = upstream.numpy()
    np.testing.assert_allclose(logprobs.detach(), want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(entropy, want[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_hidden, g[:, None] * want[2], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(to_head, np.tensordot(g, want[3], 1), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("keep", [0, 1 << 24])
def test_numerical_gradient_in_double_precision_inputs(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A central difference on a loss of all tokens, at float32's accuracy."""
    monkeypatch.setattr(module, "KEEP_ELEMENTS", keep)
    hidden, head, targets, temperature, upstream = inputs(1, 6, 4, 3)

    def loss() -> torch.Tensor:
        return (chunked_logprobs(hidden, head, targets, temperature, 4)[0] * upstream).sum()

    gradients = torch.autograd.grad(loss(), (hidden, head))
    step = 1e-2
    for array, gradient in zip((hidden, head), gradients, strict=True):
        with torch.no_grad():
            array[1, 2] += step
            above = loss()
            array[1, 2] -= 2 * step
            slope = (above - loss()) / (2 * step)
            array[1, 2] += step
        assert slope.item() == pytest.approx(gradient[1, 2].item(), rel=2e-3, abs=2e-3)


def test_equals_plain_log_softmax_in_float32() -> None:
    hidden, head, targets, _, upstream = inputs(2, 300, 220, 32)
    plain = torch.log_softmax(hidden @ head.t(), -1)
    want = plain.gather(1, targets[:, None])[:, 0]
    got, entropy = chunked_logprobs(hidden, head, targets)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1), rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(got, (hidden, head), upstream, retain_graph=True),
        torch.autograd.grad(want, (hidden, head), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    again = torch.autograd.grad(got, hidden, upstream)[0]  # a second backward pass finds its arrays unspoiled
    torch.testing.assert_close(
        again, torch.autograd.grad(chunked_logprobs(hidden, head, targets)[0], hidden, upstream)[0]
    )


def test_a_number_and_an_array_of_temperatures_agree() -> None:
    hidden, head, targets, _, _ = inputs(3, 9, 7, 5)
    one = chunked_logprobs(hidden, head, targets, 0.7)
    many = chunked_logprobs(hidden, head, targets, torch.full((9,), 0.7))
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4, 0.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    logprobs, entropy = chunked_logprobs(hidden, head, torch.tensor([0]))
    logprobs.sum().backward()
    assert logprobs.item() == 0.0
    assert entropy.item() == 0.0
    assert torch.isfinite(hidden.grad).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 9), st.integers(1, 13), st.booleans())
def test_entropy_carries_gradient_where_wanted(seed, tokens, vocabulary, chunk, warm) -> None:
    """Both outputs at once, as a bonus beside a loss has it; against autograd through log_softmax."""
    hidden, head, targets, temperature, upstream = inputs(seed, tokens, vocabulary, 5)
    temperature = temperature if warm else 1.0
    logits = hidden @ head.t() / (temperature[:, None] if warm else 1.0)
    plain = torch.log_softmax(logits, -1)
    want = plain.gather(1, targets[:, None])[:, 0], -(plain.exp() * plain).sum(-1)
    got = chunked_logprobs(hidden, head, targets, temperature, chunk, entropy_gradient=True)
    other = upstream.flip(0) + 0.3
    for a, b in zip(
        torch.autograd.grad((got[0] * upstream + got[1] * other).sum(), (hidden, head)),
        torch.autograd.grad((want[0] * upstream + want[1] * other).sum(), (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_entropy_has_no_gradient_and_frozen_inputs_get_none() -> None:
    hidden, head, targets, _, _ = inputs(4, 5, 6, 3)
    logprobs, entropy = chunked_logprobs(hidden, head.detach(), targets)
    assert logprobs.requires_grad
    assert not entropy.requires_grad
    logprobs.sum().backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not chunked_logprobs(hidden, head, targets)[0].requires_grad


def test_bfloat16_accumulates_in_float32() -> None:
    hidden, head, targets, _, upstream = inputs(5, 64, 11, 16)
    low_hidden, low_head = (x.detach().bfloat16().requires_grad_() for x in (hidden, head))
    got, _ = chunked_logprobs(low_hidden, low_head, targets, 1.0, 7)
    want, _ = chunked_logprobs(low_hidden.detach().float(), low_head.detach().float(), targets)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.1)
    to_head = torch.autograd.grad(got, low_head, upstream)[0]
    assert to_head.dtype == torch.bfloat16


def test_no_tokens_is_a_sum_of_nothing() -> None:
    hidden, head = torch.zeros(0, 3, requires_grad=True), torch.zeros(5, 3, requires_grad=True)
    logprobs, entropy = chunked_logprobs(hidden, head, torch.zeros(0, dtype=torch.long))
    logprobs.sum().backward()
    assert logprobs.shape == entropy.shape == (0,)
    assert not head.grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets_T": torch.zeros(3, dtype=torch.long)}, r"expected \[T, D\]"),
        ({"head_weight_VD": torch.zeros(4, 3, dtype=torch.bfloat16)}, "cast one"),
        ({"temperature_T": 0.0}, "positive"),
        ({"temperature_T": torch.tensor([1.0, 0.0])}, "positive"),
        ({"temperature_T": torch.ones(3)}, "per token"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    arguments = {
        "hidden_TD": torch.zeros(2, 3), "head_weight_VD": torch.zeros(4, 3),
        "targets_T": torch.zeros(2, dtype=torch.long),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        chunked_logprobs(**(arguments | change))

"""The compiled head against `chunked_logprobs`: log-probs, entropy, gradients, temperatures, determinism, refusals.

Why it matters: every loss of a compiled stage goes through it; a log-prob that is slightly off makes ratios that are
not 1 on the policy's own tokens, and a head that learns from a wrong gradient still learns.

Not exercised: speed (benchmarks/train.py). Skipped where there is no C++ compiler, and in bfloat16 where the processor
does not multiply it.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from r1kit.algorithms.entropy import chunked_logprobs
from r1kit.models.decoder import Decoder
from r1kit.models.native.head import NativeHead, token_logprobs
from r1kit.models.native.training import NativePass

from .test_native_training import decoder_of, precision

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")

# Largest difference in a log-prob or an entropy (nats), and relative in a gradient.
TOLERANCE = {"float32": (1e-5, 1e-5), "bfloat16": (0.03, 0.02)}


def head_of(model: Decoder, kind: str = "float32") -> NativeHead:
    return NativeHead(model, precision(kind) == "bfloat16")


def numbers(model: Decoder, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, targets, temperatures, and the weights of a sum of log-probs."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary, width = model.head_weight.shape
    hidden = torch.randn(tokens, width, generator=generator)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    temperatures = 0.5 + torch.rand(tokens, generator=generator)
    return hidden, targets, temperatures, torch.randn(tokens, generator=generator)


def run(model: Decoder, call: Any, inputs: tuple[Tensor, ...], temperature: Any = None) -> dict[str, np.ndarray]:
    hidden, targets, temperatures, weights = inputs
    model.head_weight.grad = None
    hidden = hidden.clone().requires_grad_()
    logprobs, entropy = call(hidden, targets, temperatures if temperature is None else temperature)
    (logprobs * weights).sum().backward()
    assert hidden.grad is not None
    assert model.head_weight.grad is not None
    grads = {"hidden": hidden.grad, "head": model.head_weight.grad}
    values = {"logprobs": logprobs.detach(), "entropy": entropy.detach()}
    return {name: value.clone().numpy() for name, value in (values | grads).items()}


def in_pytorch(model: Decoder) -> Any:
    return lambda hidden, targets, temperature: chunked_logprobs(hidden, model.head_weight, targets, temperature)


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], kind: str) -> None:
    for name, values in wanted.items():
        difference = found[name] - values
        if name in ("hidden", "head"):
            assert np.linalg.norm(difference) <= TOLERANCE[kind][1] * np.linalg.norm(values), name
        else:
            assert np.abs(difference).max(initial=0.0) <= TOLERANCE[kind][0], name


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("temperature", [None, 1.0, 0.7])
@pytest.mark.parametrize("shape", [{}, {"vocab_size": 203, "hidden_size": 40}, {"tie_embeddings": False}])
def test_it_equals_pytorch(shape: dict[str, Any], temperature: float | None, kind: str) -> None:
    model = decoder_of(**shape)
    inputs = numbers(model, 300)
    found = run(model, head_of(model, kind), inputs, temperature)
    assert_close(found, run(model, in_pytorch(model), inputs, temperature), kind)


@settings(max_examples=15, deadline=None)
@given(tokens=st.integers(1, 200), vocabulary=st.integers(2, 100), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_any_shape_equals_pytorch(tokens: int, vocabulary: int, width: int, seed: int) -> None:
    model = decoder_of(vocab_size=vocabulary, hidden_size=4 * width, num_layers=1)
    inputs = numbers(model, tokens, seed)
    assert_close(run(model, head_of(model), inputs), run(model, in_pytorch(model), inputs), "float32")


def test_certain_tokens_have_finite_numbers() -> None:
    """Logits hundreds apart: probabilities below what a float holds."""
    model = decoder_of()
    hidden, targets, _, weights = numbers(model, 40)
    inputs = (1000 * hidden, targets, torch.full((40,), 0.1), weights)
    found, wanted = run(model, head_of(model), inputs), run(model, in_pytorch(model), inputs)
    for name, values in wanted.items():
        np.testing.assert_allclose(
            found[name], values, rtol=1e-4, atol=1e-4 * np.abs(values).max() + 1e-6, err_msg=name
        )


@pytest.mark.parametrize("kind", TOLERANCE)
def test_neighbours_change_no_bit_and_two_runs_are_equal(kind: str) -> None:
    model = decoder_of()
    head, inputs = head_of(model, kind), numbers(model, 300)
    first = run(model, head, inputs)
    part = slice(70, 101)
    alone = run(model, head, tuple(array[part] for array in inputs))
    for name in ("logprobs", "entropy", "hidden"):
        assert np.array_equal(alone[name], first[name][part]), name
    again = run(model, head_of(model, kind), inputs)
    assert all(np.array_equal(again[name], values) for name, values in first.items())


def test_gradients_are_added_to_those_there_are() -> None:
    model = decoder_of()
    head, (hidden, targets, _, weights) = head_of(model), numbers(model, 50)
    once = run(model, head, (hidden, targets, torch.ones(50), weights))["head"]
    (head(hidden.requires_grad_(), targets)[0] * weights).sum().backward()
    np.testing.assert_allclose(model.head_weight.grad, 2 * once, rtol=1e-5, atol=1e-6)


def test_without_a_token_nothing_happens() -> None:
    model = decoder_of()
    found = run(model, head_of(model), numbers(model, 0))
    assert found["logprobs"].shape == (0,)
    assert not found["head"].any()


def test_the_network_decides_which_form_runs() -> None:
    model = decoder_of()
    network = NativePass(model)
    hidden, targets, temperatures, _ = numbers(model, 20)
    compiled = network.native_head(hidden, targets, temperatures)
    assert torch.equal(token_logprobs(network, hidden, targets, temperatures)[0], compiled[0])
    plain = chunked_logprobs(hidden, model.head_weight, targets, temperatures)
    assert torch.equal(token_logprobs(model, hidden, targets, temperatures)[0], plain[0])
    entropy = token_logprobs(network, hidden.requires_grad_(), targets, temperatures, entropy_gradient=True)[1]
    assert entropy.requires_grad


def test_changed_parameters_are_taken_over_and_misuse_is_refused() -> None:
    model = decoder_of()
    network = NativePass(model)
    head, (hidden, targets, temperatures, _) = network.native_head, numbers(model, 20)
    hidden.requires_grad_()
    before = head(hidden, targets, temperatures)[0]
    with torch.no_grad():
        model.head_weight.mul_(1.1)
    network.refresh()
    with pytest.raises(RuntimeError, match="changed between"):
        before.sum().backward()
    assert torch.equal(head(hidden, targets, temperatures)[0], head_of(model)(hidden, targets, temperatures)[0])
    for damaged in (targets + 37, targets - 37):
        with pytest.raises(IndexError, match="the vocabulary has 37"):
            head(hidden, damaged)
    with pytest.raises(ValueError, match="one positive number per token"):
        head(hidden, targets, temperatures * 0)
    with pytest.raises(ValueError, match="expected \\[T, D\\]"):
        head(hidden[:, :3], targets)

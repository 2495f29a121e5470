"""The step that pre-training and supervised fine-tuning share: one loss over the whole step, however it is cut up.

Why this matters: a mean per micro-batch instead of per step, a context token in the loss, or one sequence that sees
another train a different model, and the loss curve looks the same.

Not exercised here: what is learned (tests/training/test_supervised.py); TRL's losses (test_sft_parity.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.training.neftune import EmbeddingNoise
from r1kit.training.packing import plan
from r1kit.training.parallel import World
from r1kit.training.recompute import recompute_activations
from r1kit.training.token_step import TokenSequence, backward, evaluate_tokens, token_step

from .helpers import VOCABULARY, session, tiny_model, token_sequences, token_stepped
from .ranks import Results


def by_hand(model: Any, batch: list[TokenSequence]) -> tuple[float, float]:
    """(loss, accuracy): every sequence on its own, log-softmax of its logits, one division at the end."""
    loss, weight, right, learned = 0.0, 0.0, 0, 0
    for s in batch:
        segment = [Segment(1, len(s))]
        hidden = model(torch.from_numpy(s.token_ids[:-1]), positions(segment), packed_attention(segment))
        logits = model.logits(hidden).detach().numpy().astype(np.float64)
        for t, target in enumerate(s.token_ids[1:]):
            w = float(s.weights[t + 1])
            loss -= w * (logits[t, target] - np.log(np.exp(logits[t]).sum()))
            weight += w
            if w:
                right, learned = right + (logits[t].argmax() == target), learned + 1
    return loss / weight, right / learned


def gradient(batch: list[TokenSequence], budget: int = 400, **options: Any) -> torch.Tensor:
    state = session()
    backward(state, batch, budget, **options)
    return state.flat.grad.clone()


def test_loss_and_accuracy_equal_those_by_hand() -> None:
    state, batch = session(), token_sequences()
    loss, accuracy = evaluate_tokens(state, batch, 60)
    assert (loss, accuracy) == pytest.approx(by_hand(state.model, batch), rel=1e-5)
    settings = SimpleNamespace(token_budget=60, grad_clip=0.0)
    result = token_step(state, batch, settings, 0.0, accuracy=True)
    assert (result.loss, result.accuracy) == pytest.approx((loss, accuracy), rel=1e-6)


@pytest.mark.parametrize("budget", [19, 30, 57])
def test_packing_and_accumulation_leave_the_gradient_unchanged(budget: int) -> None:
    batch = token_sequences()
    torch.testing.assert_close(gradient(batch, budget), gradient(batch), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(batch[::-1], budget), gradient(batch), rtol=1e-5, atol=1e-6)


def test_no_sequence_sees_another() -> None:
    """The gradient of a step is the weighted sum of those of its sequences, each alone."""
    batch = token_sequences()
    weights = [float(s.weights[1:].sum()) for s in batch]
    alone = sum(w * gradient([s]) for s, w in zip(batch, weights, strict=True))
    torch.testing.assert_close(gradient(batch), alone / sum(weights), rtol=1e-4, atol=1e-6)


def test_two_processes_make_the_gradient_of_one(two_ranks: Results) -> None:
    alone = token_stepped(World.single())
    for rank in two_ranks["supervised"]:
        for name, want in alone.items():
            np.testing.assert_allclose(rank[name], want, rtol=1e-5, atol=1e-6)


def test_context_is_not_learned_but_read() -> None:
    model = tiny_model()
    ids = np.arange(8) % VOCABULARY
    weights = np.array([0, 0, 0, 0, 0, 1, 1, 1], dtype=np.float32)
    loss, _ = evaluate_tokens(session(model=model), [TokenSequence(ids, weights)], 100)
    segment = [Segment(1, 7)]
    logits = model.logits(model(torch.from_numpy(ids[:-1]), positions(segment), packed_attention(segment)))
    assert loss == pytest.approx(F.cross_entropy(logits[4:], torch.from_numpy(ids[5:])).item(), rel=1e-5)


def test_a_step_without_anything_to_learn_is_refused() -> None:
    empty = TokenSequence(np.arange(4), np.zeros(4, dtype=np.float32))
    with pytest.raises(ValueError, match="none of the 1 sequences of this step has a token to learn"):
        backward(session(), [empty], 100)


def test_recomputed_activations_give_the_same_gradient() -> None:
    batch, state = token_sequences(), session()
    recompute_activations(state.model)
    backward(state, batch, 60)
    assert torch.equal(state.flat.grad, gradient(batch, 60))


def test_neftune_adds_the_noise_of_its_paper_whatever_the_packing() -> None:
    model = tiny_model()
    noise = EmbeddingNoise(model, 5.0, seed=3)
    batch = token_sequences()
    lengths, keys = [len(s) for s in batch], [s.key for s in batch]
    # Without a batch named nothing is added.
    assert torch.equal(noise._added(torch.ones(3, 16)), torch.ones(3, 16))
    rows: dict[int, list[np.ndarray]] = {key: [] for key in keys}
    for budget in (19, 400):
        for micro in plan(lengths, budget):
            noise.set_batch(micro, lengths, keys)
            assert noise.noise_TD is not None
            start = 0
            for segment, members in zip(micro.segments, micro.members, strict=True):
                for index in members:
                    rows[index].append(noise.noise_TD[start : start + lengths[index]].numpy())
                    start += segment.length
    for index, (first, second) in rows.items():
        assert np.array_equal(first, second)
        bound = 5.0 / np.sqrt(lengths[index] * 16)
        assert np.abs(first).max() <= bound
        assert first.std() == pytest.approx(bound / np.sqrt(3), rel=0.25)


def test_neftune_changes_training_and_not_what_follows() -> None:
    batch, state = token_sequences(), session()
    noise = EmbeddingNoise(state.model, 5.0, seed=3)
    clean, _ = evaluate_tokens(state, batch, 60)
    noisy, _ = backward(state, batch, 60, noise=noise)
    assert noisy != pytest.approx(clean, rel=1e-4)
    assert evaluate_tokens(state, batch, 60)[0] == clean
    other = session()
    again, _ = backward(other, batch, 400, noise=EmbeddingNoise(other.model, 5.0, seed=3))
    assert again == pytest.approx(noisy, rel=1e-5)

"""Randomness, drawing and truncation, each against something plain.

Why it matters: a biased draw or a wrong log-prob is invisible in the text and poisons the policy gradient. The engines
are compared with the NumPy oracle elsewhere; here are the edges: uniforms next to 1, probabilities of 0, ties.

Not exercised: the model.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r1kit.engines.fake import distribution
from r1kit.engines.protocol import EngineError, SamplingParams
from r1kit.engines.randomness import request_key, uniforms
from r1kit.engines.sampler import draw, forced_logprobs, truncate
from r1kit.engines.sequence import matched_stop_string


def test_uniforms_are_known_numbers() -> None:
    """SplitMix64 with seed 1234567 begins 6457827717110365317, 3203168211198807973 (published test vector)."""
    keys, positions = np.full(2, 1234567, np.uint64), np.arange(2)
    expected = np.array([6457827717110365317 >> 11, 3203168211198807973 >> 11]) * 2.0**-53
    assert uniforms(keys, positions).tolist() == expected.tolist()


def test_uniforms_are_uniform_and_unrelated() -> None:
    keys = np.array([request_key(0, f"problem {p}", s) for p in range(40) for s in range(8)], np.uint64)
    u = np.stack([uniforms(keys, np.full(len(keys), t)) for t in range(200)])  # [positions, responses]
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.002
    assert np.abs(np.corrcoef(u.T[:64]) - np.eye(64)).max() < 0.35  # responses among each other
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.02  # successive positions


def test_keys_differ_where_anything_differs() -> None:
    parts = [(s, p, k) for s in (0, 1, 12) for p in ("", "1", "12", "1:2", "2") for k in (0, 1, 2, 12)]
    assert len({request_key(*part) for part in parts}) == len(parts)


def test_draw_never_leaves_the_support() -> None:
    largest = 1 - 2.0**-53
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).repeat(4, 1)
    u = torch.tensor([[0.0], [0.25 - 1e-12], [0.25], [largest]], dtype=torch.float64)
    assert draw(probs, u)[:, 0].tolist() == [1, 1, 3, 3]
    generator = torch.Generator().manual_seed(0)
    many = torch.softmax(5 * torch.randn(500, 333, generator=generator), -1)
    many[:, -40:] = 0
    tokens = draw(many, torch.full((500, 1), largest, dtype=torch.float64))
    assert bool((many.gather(1, tokens) > 0).all())


@pytest.mark.parametrize("seed", range(30))
def test_truncation_is_that_of_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = [
        SamplingParams(
            top_k=int(rng.integers(0, 12)),
            top_p=float(rng.choice([1.0, rng.uniform(0.05, 1)])),
            min_p=float(rng.choice([0.0, rng.uniform(0, 0.9)])),
        )
        for _ in range(6)
    ]
    logits = torch.from_numpy(rng.normal(0, 2, (6, 40))).float()
    found = torch.softmax(truncate(logits, params).double(), -1).numpy()
    for row, p in enumerate(params):
        np.testing.assert_allclose(found[row], distribution(logits[row].numpy(), p), atol=1e-6)


def test_ties_fall_to_the_lower_id() -> None:
    kept = truncate(torch.zeros(1, 6), [SamplingParams(top_k=2)])
    assert kept.isfinite().tolist() == [[True, True, False, False, False, False]]


def test_forced_tokens_are_scored_at_their_temperature() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    assert np.exp(forced_logprobs(logits, (0, 1), 1.0)) == pytest.approx([0.5, 0.8])
    assert np.exp(forced_logprobs(logits, (0, 1), 0.0)) == pytest.approx([0.5, 0.8])
    assert np.exp(forced_logprobs(logits, (1,), 0.5)[0]) == pytest.approx(0.0625 / 0.375)


class Pieces:
    """A tokenizer whose tokens are bytes: a character may need several."""

    def decode(self, token_ids: list[int]) -> str:
        return bytes(token_ids).decode("utf-8", errors="replace")


def test_stop_strings_in_broken_characters() -> None:
    tokens = list("wait é! no".encode())
    matches = [matched_stop_string(Pieces(), tokens[: i + 1], ("é!", "zz")) for i in range(len(tokens))]
    assert [i for i, m in enumerate(matches) if m] == [tokens.index(ord("!"))]
    assert "é!" in matches


def test_a_stop_string_counts_only_when_its_last_token_arrives() -> None:
    tokens = list(b"abcabc")
    matches = [matched_stop_string(Pieces(), tokens[: i + 1], ("abc",)) is not None for i in range(6)]
    assert matches == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.0}, {"max_tokens": 0}, {"stop_strings": ("",)}],
)
def test_impossible_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(EngineError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]

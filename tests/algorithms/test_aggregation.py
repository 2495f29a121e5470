"""Why this matters: if a mean is taken per micro-batch, the gradient depends on how the step was cut, and
two ranks or another token budget silently train another model.

Does not exercise: the all-reduce itself (tests/training), packing.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.aggregation import Aggregation, denominator, token_weights

KINDS = ["token_mean", "sequence_mean", "constant"]
CAP = 50


def oracle(losses: list[list[float]], kind: str) -> float:
    """The definitions in words, response by response."""
    if kind == "token_mean":
        return float(np.mean([x for response in losses for x in response]))
    if kind == "sequence_mean":
        return float(np.mean([np.mean(response) for response in losses]))
    return float(np.mean([np.sum(response) / CAP for response in losses]))


def aggregate(responses: list[list[float]], kind: Aggregation, z: float, prompt: int = 0) -> float:
    """Sum of w * loss / z over one packed stream, each response behind `prompt` masked tokens."""
    lengths = torch.tensor([len(r) for r in responses])
    sequence = torch.repeat_interleave(torch.arange(len(responses)), lengths + prompt)
    values = torch.tensor([x for r in responses for x in [99.0] * prompt + r], dtype=torch.float64)
    mask = torch.tensor([m for r in responses for m in [0.0] * prompt + [1.0] * len(r)], dtype=torch.float64)
    return float((mask * token_weights(kind, lengths, sequence).double() * values).sum() / z)


def counts(responses: list[list[float]]) -> dict[str, int]:
    return {"tokens": sum(map(len, responses)), "sequences": len(responses), "max_tokens": CAP}


def test_by_hand() -> None:
    """Responses (1, 2, 3) and (6,): 12/4 = 3; (2 + 6)/2 = 4; 12/(2 * 50) = 0.12."""
    responses = [[1.0, 2.0, 3.0], [6.0]]
    got = [aggregate(responses, kind, denominator(kind, **counts(responses))) for kind in KINDS]
    assert got == pytest.approx([3.0, 4.0, 0.12])


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=9), min_size=1, max_size=8),
    st.sampled_from(KINDS),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_equals_the_oracle_however_it_is_cut(responses, kind, prompt, random) -> None:
    z = denominator(kind, **counts(responses))
    want = oracle(responses, kind)
    assert aggregate(responses, kind, z, prompt) == pytest.approx(want, rel=1e-5, abs=1e-6)
    shuffled = random.sample(responses, len(responses))
    pieces, rest = [], shuffled
    while rest:
        cut = random.randint(1, len(rest))
        pieces.append(rest[:cut])
        rest = rest[cut:]
    total = sum(aggregate(piece, kind, z, prompt) for piece in pieces)
    assert total == pytest.approx(want, rel=1e-5, abs=1e-6)


def test_a_response_cut_in_two_keeps_its_weight() -> None:
    """The weight comes from the response's full length, not from the part that is in this stream."""
    whole = token_weights("sequence_mean", torch.tensor([4]), torch.zeros(4, dtype=torch.long))
    part = token_weights("sequence_mean", torch.tensor([4]), torch.zeros(1, dtype=torch.long))
    assert whole.tolist() == [0.25] * 4
    assert part.tolist() == [0.25]


def test_a_response_without_trained_tokens_is_finite() -> None:
    weights = token_weights("sequence_mean", torch.tensor([0, 2]), torch.tensor([0, 1, 1]))
    assert weights.tolist() == [1.0, 0.5, 0.5]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="token_mean"):
        denominator("mean", tokens=1, sequences=1, max_tokens=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to train on"):
        denominator("token_mean", tokens=0, sequences=1, max_tokens=1)

"""The fake engine against the conformance suite, and its distribution against cases computed by hand.

Why it matters: the fake engine is the oracle of every other engine and the stand-in in the tests of trainer, evaluation
and search. If it is wrong, they are all wrong together.

Not exercised: speed (it has none).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tests.engines.conformance import MAX_LENGTH, VOCAB, EngineConformance, Letters

from r1kit.engines.fake import FakeEngine, distribution, hashed_scores
from r1kit.engines.protocol import Engine, Request, SamplingParams


class TestFakeEngine(EngineConformance):
    tolerance = 0.0

    def make(self, **settings: Any) -> Engine:
        settings = {"tokenizer": Letters(), "max_length": MAX_LENGTH, "checksum": "as promised", **settings}
        return FakeEngine(VOCAB, self.scores, **settings)

    def scores(self, tokens: Sequence[int]) -> np.ndarray:
        return hashed_scores(VOCAB)(tokens)

    def checksum(self, engine: Engine) -> str:
        return "as promised"


SCORES = np.log([0.4, 0.1, 0.3, 0.2])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(), [0.4, 0.1, 0.3, 0.2]),
        (SamplingParams(temperature=0.5), np.array([0.16, 0.01, 0.09, 0.04]) / 0.3),
        (SamplingParams(top_k=2), [4 / 7, 0, 3 / 7, 0]),
        (SamplingParams(top_p=0.4), [1, 0, 0, 0]),  # 0.4 alone reaches 0.4
        (SamplingParams(top_p=0.41), [4 / 7, 0, 3 / 7, 0]),
        (SamplingParams(min_p=0.5), [4 / 9, 0, 3 / 9, 2 / 9]),
        (SamplingParams(top_k=3, top_p=0.75), [4 / 7, 0, 3 / 7, 0]),  # of the renormalised three, two reach 0.75
        (SamplingParams(allowed_token_ids=(1, 3)), [0, 1 / 3, 0, 2 / 3]),
        (SamplingParams(forbidden_token_ids=(0,), top_k=1), [0, 0, 1, 0]),
        (SamplingParams(temperature=0.0, top_k=1), [0.4, 0.1, 0.3, 0.2]),
    ],
)
def test_distribution_by_hand(params: SamplingParams, expected: Sequence[float]) -> None:
    np.testing.assert_allclose(distribution(SCORES, params), expected, atol=1e-12)


def test_samples_follow_the_distribution() -> None:
    """Chi-square of 4,000 first tokens: 3 degrees of freedom, 16.3 is exceeded once in a thousand."""
    engine = FakeEngine(4, lambda tokens: SCORES)
    asked = [Request(str(i), (1,), SamplingParams(max_tokens=1), "p", i) for i in range(4000)]
    counts = np.bincount([s.token_ids[0] for s in engine.generate(asked)], minlength=4)
    expected = 4000 * np.exp(SCORES)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3

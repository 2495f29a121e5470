"""The share of tokens the model ranks first.

Why this matters: it is the curve people watch beside the loss; a chunk left out or a tie counted by luck makes it lie.

Not exercised here: its use in a training step (tests/training/test_token_step.py).
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.algorithms.token_accuracy import correct_tokens


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 17), st.integers(2, 9), st.integers(1, 20), st.integers(0, 5))
def test_equals_the_argmax_whatever_the_chunk(tokens: int, vocabulary: int, chunk: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hidden, head = generator.normal(size=(tokens, 4)), generator.normal(size=(vocabulary, 4))
    targets = generator.integers(0, vocabulary, tokens)
    want = (hidden @ head.T).argmax(axis=1) == targets if tokens else np.zeros(0, dtype=bool)
    got = correct_tokens(torch.tensor(hidden), torch.tensor(head), torch.tensor(targets), chunk)
    assert got.tolist() == want.tolist()


def test_by_hand_with_a_tie() -> None:
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    hidden = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 2.0]])
    # Logits: (2, 1, 2), (0, 3, 0), (1, 2, 1): token 0 and 2 tie in the first.
    assert correct_tokens(hidden, head, torch.tensor([2, 1, 0])).tolist() == [True, True, False]

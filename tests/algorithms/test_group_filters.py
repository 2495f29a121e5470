"""Why this matters: a filter that picks by the wrong measure trains a different behaviour (long for short, failures for
successes) while reward and loss look as usual.

Does not exercise: where penalties come from, the step (tests/training/test_prepare.py).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.group_filters import gfpo_keep, roc_keep

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 9)), min_size=4, max_size=4)


def test_gfpo_by_hand() -> None:
    rewards, lengths = torch.tensor([[0.0, 1.0, 1.0, 0.0]]), torch.tensor([[5, 4, 8, 2]])
    assert gfpo_keep(rewards, lengths, 2).tolist() == [[1, 3]]
    assert gfpo_keep(rewards, lengths, 2, by="reward_per_token").tolist() == [[1, 2]]


@given(st.lists(rows, min_size=1, max_size=4), st.integers(1, 4), st.sampled_from(["length", "reward_per_token"]))
def test_gfpo_equals_the_oracle(groups, keep: int, by: str) -> None:
    rewards = torch.tensor([[r for r, _ in g] for g in groups])
    lengths = torch.tensor([[n for _, n in g] for g in groups])
    got = gfpo_keep(rewards, lengths, keep, by=by)
    for group, kept in zip(groups, got.tolist(), strict=True):
        order = sorted(range(4), key=lambda i: (group[i][1] if by == "length" else -group[i][0] / group[i][1], i))
        assert kept == sorted(order[:keep])


@given(
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.lists(st.floats(0, 2), min_size=6, max_size=6),
    st.integers(2, 6),
    st.integers(0, 10**6),
)
def test_roc_keeps_both_kinds_and_repeats(right, penalty, keep: int, seed: int) -> None:
    draws = torch.from_numpy(np.random.default_rng(seed).random((1, 6)))
    arguments = (torch.tensor([right]), torch.tensor([penalty]), keep, draws)
    kept = roc_keep(*arguments)[0].tolist()
    assert kept == roc_keep(*arguments)[0].tolist()
    assert len(set(kept)) == keep
    assert kept == sorted(kept)
    if any(right) and not all(right):
        assert 0 < sum(right[i] for i in kept) < keep


def test_roc_prefers_clean_successes_and_spreads_over_failures() -> None:
    """Four right of eight, keep four: two of each kind. Tidy successes (0) come far more often than untidy ones (1)."""
    right = torch.tensor([[True] * 4 + [False] * 4])
    penalty = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]])
    random = np.random.default_rng(0)
    counts = np.zeros(8)
    for _ in range(400):
        kept = roc_keep(right, penalty, 4, torch.from_numpy(random.random((1, 8))))[0]
        assert (kept < 4).sum() == 2
        counts[kept] += 1
    assert counts[[0, 2]].min() > 4 * counts[[1, 3]].max()
    assert counts[4:].min() > 150  # wrong ones are drawn alike, whatever their penalty: 200 each expected


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="keep is 5"):
        gfpo_keep(torch.zeros(2, 4), torch.ones(2, 4), 5)
    with pytest.raises(ValueError, match="lengths have shape"):
        gfpo_keep(torch.zeros(2, 4), torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match="one shape"):
        roc_keep(torch.zeros(1, 2), torch.zeros(1, 3), 2, torch.zeros(1, 3))

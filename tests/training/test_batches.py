"""Which sequences a step takes: each once an epoch, in an order that is the same after a resume.

Why this matters: a sequence left out at the end of an epoch, or a curriculum that mixes, changes the recipe silently.

Not exercised here: training on the batches (tests/training/test_supervised.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.training.batches import Batch, Batches


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 10),
    st.integers(0, 3),
)
def test_every_sequence_once_an_epoch(sizes: list[int], epochs: int, mixed: bool, batch_size: int, seed: int) -> None:
    plan = Batches(sizes, [epochs] * len(sizes), mixed=mixed, batch_size=batch_size, seed=seed)
    seen: dict[int, list[int]] = {}
    for step in range(plan.steps):
        batch = plan.at(step)
        assert 0 < len(batch.indices) <= batch_size
        seen.setdefault(batch.epoch, []).extend(batch.indices)
        assert batch.ends_epoch == (step + 1 == plan.steps or plan.at(step + 1).epoch != batch.epoch)
    everything = list(range(sum(sizes)))
    if mixed:
        assert [sorted(s) for s in seen.values()] == [everything] * epochs
    else:
        bounds = [range(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
        assert [sorted(s) for s in seen.values()] == [list(b) for b in bounds for _ in range(epochs)]


def test_epochs_differ_and_seeds_differ_and_equal_seeds_do_not() -> None:
    plan, other = (Batches([50], [2], mixed=True, batch_size=50, seed=s) for s in (1, 2))
    assert plan.at(0).indices != plan.at(1).indices
    assert plan.at(0).indices != other.at(0).indices
    assert plan.at(1) == Batches([50], [2], mixed=True, batch_size=50, seed=1).at(1)


def test_a_curriculum_by_hand() -> None:
    plan = Batches([3, 1], [2, 1], mixed=False, batch_size=2, seed=0)
    assert plan.steps == 5
    assert [(plan.at(i).epoch, len(plan.at(i).indices)) for i in range(5)] == [(0, 2), (0, 1), (1, 2), (1, 1), (2, 1)]
    assert plan.at(4) == Batch((3,), 2, ends_epoch=True)


def test_every_data_set_needs_its_epochs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Batches([3, 1], [2], mixed=False, batch_size=2, seed=0)

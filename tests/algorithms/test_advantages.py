"""Why this matters: the advantage is the whole learning signal. A wrong sign, a group that leaks into its
neighbour or a constant group that does not give exactly 0 trains towards nonsense while every other metric
looks fine.

Does not exercise: rewards themselves, the dropping of failed groups, advantages with a value model.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.advantages import group_advantages

rewards = st.lists(
    st.lists(st.sampled_from([0.0, 0.1, 1.0, -1.0, 0.37]), min_size=4, max_size=4), min_size=1, max_size=6
)


def oracle(rewards_PG: list[list[float]], scale: str, eps: float) -> np.ndarray:
    """One response at a time."""
    out = np.zeros((len(rewards_PG), len(rewards_PG[0])))
    for p, group in enumerate(rewards_PG):
        mean = math.fsum(group) / len(group)
        spread = math.sqrt(math.fsum((r - mean) ** 2 for r in group) / (len(group) - 1))
        for g, reward in enumerate(group):
            if len(set(group)) > 1:
                out[p, g] = (reward - mean) / (spread + eps if scale == "std" else 1.0)
    return out


def test_by_hand() -> None:
    """One right of four: mean 1/4, sample variance (0.75^2 + 3 * 0.25^2) / 3 = 1/4, so std 1/2."""
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert group_advantages(rewards_PG, scale="none").tolist() == [[0.75, -0.25, -0.25, -0.25]]
    got = group_advantages(rewards_PG, scale="std", eps=0.0)
    assert got.tolist() == [[1.5, -0.5, -0.5, -0.5]]


@given(rewards, st.sampled_from(["none", "std"]))
def test_equals_the_oracle(rewards_PG: list[list[float]], scale: str) -> None:
    got = group_advantages(torch.tensor(rewards_PG, dtype=torch.float64), scale=scale)
    np.testing.assert_allclose(got.numpy(), oracle(rewards_PG, scale, 1e-6), rtol=1e-5, atol=1e-6)


@given(rewards, st.sampled_from(["none", "std"]), st.randoms(use_true_random=False))
def test_groups_are_independent_and_order_does_not_matter(rewards_PG, scale, random) -> None:
    whole = group_advantages(torch.tensor(rewards_PG), scale=scale)
    for p, group in enumerate(rewards_PG):
        alone = group_advantages(torch.tensor([group]), scale=scale)
        assert torch.equal(alone[0], whole[p])
        order = list(range(4))
        random.shuffle(order)
        shuffled = group_advantages(torch.tensor([[group[i] for i in order]]), scale=scale)
        torch.testing.assert_close(shuffled[0], whole[p][order])


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1])
def test_a_group_of_equal_rewards_gives_exactly_zero(scale: str, value: float) -> None:
    assert not group_advantages(torch.full((2, 7), value), scale=scale).any()


def test_a_shift_changes_nothing_and_std_ignores_the_unit() -> None:
    rewards_PG = torch.tensor([[0.0, 1.0, 0.1, 1.0], [0.5, 0.25, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        group_advantages(rewards_PG + 3, scale="none"), group_advantages(rewards_PG, scale="none")
    )
    torch.testing.assert_close(
        group_advantages(rewards_PG * 50, scale="std", eps=0.0),
        group_advantages(rewards_PG, scale="std", eps=0.0),
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="samples_per_problem"):
        group_advantages(torch.zeros(3, 1), scale="none")
    with pytest.raises(ValueError, match="expected 'none' or 'std'"):
        group_advantages(torch.zeros(3, 2), scale="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups \[1\]"):
        group_advantages(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), scale="none")

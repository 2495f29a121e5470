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

from r1kit.algorithms.advantages import group_advantages, per_reward_advantages

rewards = st.lists(
    st.lists(st.sampled_from([0.0, 0.1, 1.0, -1.0, 0.37]), min_size=4, max_size=4), min_size=1, max_size=6
)


lengths = st.lists(st.integers(0, 9), min_size=4, max_size=4)


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


def baseline_oracle(group: list[float], counts: list[int], baseline: str) -> list[float]:
    """What each response is compared with, response by response."""
    out = []
    for i in range(len(group)):
        if baseline == "none":
            out.append(0.0)
        elif baseline == "leave_one_out":
            out.append(np.mean([r for j, r in enumerate(group) if j != i]))
        else:
            weights = counts if sum(counts) else [1] * len(group)
            out.append(sum(w * r for w, r in zip(weights, group, strict=True)) / sum(weights))
    return out


@given(
    rewards, st.lists(lengths, min_size=6, max_size=6), st.sampled_from(["leave_one_out", "length_weighted", "none"])
)
def test_baselines_equal_the_oracle(rewards_PG, counts, baseline) -> None:
    counts = counts[: len(rewards_PG)]
    got = group_advantages(
        torch.tensor(rewards_PG, dtype=torch.float64), scale="none", baseline=baseline, lengths_PG=torch.tensor(counts)
    )
    for row, group, lens in zip(got.tolist(), rewards_PG, counts, strict=True):
        want = [r - b for r, b in zip(group, baseline_oracle(group, lens, baseline), strict=True)]
        if baseline != "none" and len(set(group)) == 1:
            want = [0.0] * 4
        assert row == pytest.approx(want, abs=1e-6)


def test_baselines_by_hand() -> None:
    """Rewards (1, 0, 0), lengths (2, 1, 1): others' means 0, 1/2, 1/2; length-weighted mean 1/2."""
    rewards_PG, counts = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2, 1, 1]])
    assert group_advantages(rewards_PG, scale="none", baseline="leave_one_out").tolist() == [[1.0, -0.5, -0.5]]
    got = group_advantages(rewards_PG, scale="none", baseline="length_weighted", lengths_PG=counts)
    assert got.tolist() == [[0.5, -0.5, -0.5]]
    assert group_advantages(torch.tensor([[2.0]]), scale="none", baseline="none").tolist() == [[2.0]]


def test_the_batch_gives_one_scale_to_every_group() -> None:
    """Rewards 1, 0, 0, 0, 3, 3, 0, 0: sample standard deviation over all eight."""
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    spread = np.std(rewards_PG.numpy(), ddof=1)
    got = group_advantages(rewards_PG, scale="batch_std", eps=0.0)
    plain = group_advantages(rewards_PG, scale="none")
    torch.testing.assert_close(got.double(), plain.double() / spread, rtol=1e-6, atol=1e-7)
    assert not group_advantages(torch.ones(2, 3), scale="batch_std").any()


def test_per_reward_keeps_apart_what_a_sum_confuses() -> None:
    """Two rewards whose sums are equal: summed first there is no signal, apart the rarer one counts more."""
    parts = torch.tensor([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 1.0]]])
    assert not group_advantages(parts.sum(0), scale="std").any()
    got = per_reward_advantages(parts, [1.0, 1.0])
    assert not got.any()  # normalised, they still cancel with equal weights ...
    assert per_reward_advantages(parts, [1.0, 0.5])[0, 0] > 0  # ... and not with others
    one = per_reward_advantages(parts[:1], [1.0], eps=0.0)
    apart = group_advantages(parts[0], scale="std", eps=0.0).double()
    torch.testing.assert_close(one.double(), (apart - apart.mean()) / apart.std(), rtol=1e-5, atol=1e-6)


@given(rewards, st.integers(0, 10**6))
def test_per_reward_equals_the_oracle(rewards_PG, seed: int) -> None:
    other = np.random.default_rng(seed).choice([0.0, 0.5, 2.0], (len(rewards_PG), 4))
    weights = [1.0, 0.3]
    total = sum(
        w * oracle(np.asarray(part).tolist(), "std", 1e-6) for w, part in zip(weights, (rewards_PG, other), strict=True)
    )
    spread = total.std(ddof=1)
    want = (total - total.mean()) / (spread + 1e-6) if spread > 1e-9 else np.zeros_like(total)
    got = per_reward_advantages(torch.tensor(np.array([rewards_PG, other])), weights)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="one weight for each reward"):
        per_reward_advantages(torch.zeros(2, 1, 3), [1.0])
    with pytest.raises(ValueError, match="lengths have shape None"):
        group_advantages(torch.zeros(1, 3), scale="none", baseline="length_weighted")
    with pytest.raises(ValueError, match="baseline is 'mean'"):
        group_advantages(torch.zeros(1, 3), scale="none", baseline="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples_per_problem"):
        group_advantages(torch.zeros(3, 1), scale="none")
    with pytest.raises(ValueError, match="expected one of \\['none', 'std', 'batch_std'\\]"):
        group_advantages(torch.zeros(3, 2), scale="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups \[1\]"):
        group_advantages(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), scale="none")

"""Why this matters: process rewards are the whole signal inside a response. With a baseline that leaks a response's own
reward, or sums on the wrong side of a token, PRIME trains on noise that looks like credit.

Does not exercise: the models behind the log-probs, the online update (tests/training/test_roles.py).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.implicit_prm import implicit_prm_loss, process_advantages, step_rewards, token_rewards

G = 3
groups = st.lists(
    st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=6), min_size=G, max_size=G), min_size=1, max_size=3
)


def oracle(group: list[list[float]], gamma: float) -> list[list[float]]:
    """Response by response, token by token."""
    out = []
    for i, rewards in enumerate(group):
        baseline = np.mean([np.mean(other) for j, other in enumerate(group) if j != i])
        out.append(
            [
                sum(gamma ** (s - t) * (rewards[s] - baseline) for s in range(t, len(rewards)))
                for t in range(len(rewards))
            ]
        )
    return out


def flat(parts: list[list[list[float]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = [row for group in parts for row in group]
    return (
        torch.tensor([x for row in rows for x in row], dtype=torch.float64),
        torch.tensor([len(row) for row in rows]),
        torch.repeat_interleave(torch.arange(len(parts)), G),
    )


def test_process_advantages_by_hand() -> None:
    """Responses (1, 3) and (0): baselines 0 and 2, so (1 + 3, 3) and (0 - 2)."""
    got = process_advantages(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([2, 1]), torch.tensor([0, 0]))
    assert got.tolist() == [4.0, 3.0, -2.0]


def test_a_response_without_a_token_is_in_no_baseline() -> None:
    """Beside (1, 3) and (0) a masked response: as if it were not there; and alone with one, nothing is subtracted."""
    rewards, group = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([0, 0, 0])
    assert process_advantages(rewards, torch.tensor([2, 0, 1]), group).tolist() == [4.0, 3.0, -2.0]
    assert process_advantages(rewards[:2], torch.tensor([2, 0, 0]), group).tolist() == [4.0, 3.0]


@given(groups, st.floats(0.2, 1.0))
def test_process_advantages_equal_the_oracle(parts, gamma: float) -> None:
    rewards, lengths, group = flat(parts)
    want = [x for g in parts for row in oracle(g, gamma) for x in row]
    np.testing.assert_allclose(process_advantages(rewards, lengths, group, gamma=gamma), want, rtol=1e-4, atol=1e-5)


@given(groups)
def test_a_constant_reward_per_token_teaches_nothing(parts) -> None:
    rewards, lengths, group = flat(parts)
    got = process_advantages(torch.full_like(rewards, 0.7), lengths, group)
    assert got.abs().max().item() == pytest.approx(0.0, abs=1e-5)


def test_step_rewards_by_hand() -> None:
    """Tokens 1 2 | 3 of one response (a line ends at 2), 4 5 of the next: steps 3, 3, 9 at their last tokens."""
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    ends = torch.tensor([False, True, False, False, False])
    lengths = torch.tensor([3, 2])
    summed, at = step_rewards(rewards, ends, lengths)
    assert summed.tolist() == [0.0, 3.0, 3.0, 0.0, 9.0]
    assert at.tolist() == [False, True, True, False, True]
    # Means are over steps: 3 and 9, so b = 9 and 3.
    got = process_advantages(summed, lengths, torch.tensor([0, 0]), at_T=at)
    assert got.tolist() == [-12.0, -12.0, -6.0, 6.0, 6.0]


@given(groups, st.randoms(use_true_random=False))
def test_steps_add_up_to_the_tokens(parts, random) -> None:
    rewards, lengths, _ = flat(parts)
    ends = torch.tensor([random.random() < 0.3 for _ in range(len(rewards))])
    summed, at = step_rewards(rewards, ends, lengths)
    for whole, part in zip(rewards.split(lengths.tolist()), summed.split(lengths.tolist()), strict=True):
        assert part.sum().item() == pytest.approx(whole.sum().item(), abs=1e-9)
    assert not summed[~at].any()


def test_the_loss_by_hand() -> None:
    """R = 0 for a right response and ln 3 for a wrong one: -ln 1/2 - ln 1/4, over 2."""
    rewards = torch.tensor([0.5, -0.5, math.log(3.0)])
    loss = implicit_prm_loss(rewards, torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.0]), 2.0)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_the_loss_is_a_sum_over_pieces_and_pushes_the_right_way() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(9, generator=generator, dtype=torch.float64, requires_grad=True)
    rewards = token_rewards(policy, torch.zeros(9, dtype=torch.float64), 0.05)
    owners = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    labels = torch.tensor([1.0, 0.0, 1.0])
    whole = implicit_prm_loss(rewards, owners, labels, 3.0)
    first = implicit_prm_loss(rewards[:5], owners[:5], labels[:2], 3.0)
    rest = implicit_prm_loss(rewards[5:], owners[5:] - 2, labels[2:], 3.0)
    torch.testing.assert_close(first + rest, whole)
    (gradient,) = torch.autograd.grad(whole, policy)
    assert bool((gradient[owners != 1] < 0).all())  # log-probs of right responses rise
    assert bool((gradient[owners == 1] > 0).all())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="no others"):
        process_advantages(torch.zeros(2), torch.tensor([1, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"outcomes in \[0, 1\]"):
        implicit_prm_loss(torch.zeros(1), torch.zeros(1), torch.tensor([-1.0]), 1.0)
    with pytest.raises(ValueError, match="shape"):
        token_rewards(torch.zeros(1), torch.zeros(2), 0.05)

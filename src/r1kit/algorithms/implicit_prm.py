"""Implicit process rewards: a language model trained on outcomes alone that scores every token (PRIME).

Cui et al. 2025, arXiv:2502.01456, after Yuan et al. 2024, arXiv:2412.01981: parametrise a reward of the whole response
as the log-ratio of two models and it is a sum over tokens, each a Q-value's step. Arrays are flat over the trained
tokens of N responses, as in `gae`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r1kit.algorithms.gae import rewards_to_go


def token_rewards(logprobs_T: Tensor, reference_logprobs_T: Tensor, beta: float) -> Tensor:
    """r_t = beta * (log pi_phi - log pi_ref) of each token: [T] (arXiv:2502.01456, eq. 3); carries gradient."""
    if logprobs_T.shape != reference_logprobs_T.shape:
        raise ValueError(
            f"token_rewards: log-probs have shape {tuple(logprobs_T.shape)}, the reference's "
            f"{tuple(reference_logprobs_T.shape)}"
        )
    return beta * (logprobs_T - reference_logprobs_T)


def implicit_prm_loss(rewards_T: Tensor, sequence_T: Tensor, labels_N: Tensor, denominator: float) -> Tensor:
    """Cross-entropy of outcomes given the summed token rewards, a scalar (arXiv:2502.01456, eq. 5).

        L = -(1 / denominator) * sum_i  l_i log sigmoid(R_i) + (1 - l_i) log(1 - sigmoid(R_i)),   R_i = sum_t r_t

    `sequence_T`: the response 0..N-1 of each token. `labels_N`: outcomes in [0, 1]. `denominator`: responses of the
    whole step, so that micro-batches and ranks add. Raises ValueError on labels outside [0, 1].
    """
    if not bool(((labels_N >= 0) & (labels_N <= 1)).all()):
        raise ValueError(f"implicit_prm_loss: labels are {labels_N.tolist()}, expected outcomes in [0, 1]")
    scores_N = rewards_T.new_zeros(len(labels_N)).index_add(0, sequence_T.long(), rewards_T)
    return F.binary_cross_entropy_with_logits(scores_N, labels_N.to(scores_N.dtype), reduction="sum") / denominator


def step_rewards(rewards_T: Tensor, ends_T: Tensor, lengths_N: Tensor) -> tuple[Tensor, Tensor]:
    """Step granularity: (the rewards of each step summed at its last token and 0 elsewhere, those tokens), [T] each.

    `ends_T` bool: the token ends a step (a line). The last token of a response ends its last step.
    """
    ends = ends_T.bool().clone()
    ends[lengths_N.long().cumsum(0)[lengths_N > 0] - 1] = True
    step_T = ends.long().cumsum(0) - ends.long()  # index of the step each token belongs to
    sums = rewards_T.new_zeros(int(ends.sum())).index_add(0, step_T, rewards_T)
    return torch.where(ends, sums[step_T], 0.0), ends


def process_advantages(
    rewards_T: Tensor, lengths_N: Tensor, group_N: Tensor, *, at_T: Tensor | None = None, gamma: float = 1.0
) -> Tensor:
    """Leave-one-out process advantages of token rewards: float32 [T], no gradient (arXiv:2502.01456, section 3.3).

        b_i = mean over the other responses j of the group of the mean reward of a token of o_j
        A_t = sum_{s >= t} gamma^(s - t) * (r_s - b_i)

    that is, each token's reward less what a token of the other responses is worth, summed over what follows.
    `group_N`: the group of each response. `at_T` bool: where rewards stand; everywhere by default, at the ends of
    steps with `step_rewards`, and then means and sums are over those. A response without any token (masked, empty) says
    nothing and is no one's other; b is 0 where there is no other. Raises ValueError on a group of one response.
    """
    lengths, groups = lengths_N.long(), group_N.long()
    at = torch.ones_like(rewards_T, dtype=torch.bool) if at_T is None else at_T.bool()
    sequence_T = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    rewards = torch.where(at, rewards_T.detach().double(), 0.0)
    counts_N = torch.zeros(len(lengths), dtype=torch.float64).index_add(0, sequence_T, at.double())
    means_N = torch.zeros_like(counts_N).index_add(0, sequence_T, rewards) / counts_N.clamp(min=1)
    size_P = torch.bincount(groups)
    if bool((size_P == 1).any()):
        raise ValueError("process_advantages: a group has one response, so there are no others to compare it with")
    some_N = (counts_N > 0).double()
    total_P, heard_P = (means_N.new_zeros(len(size_P)).index_add(0, groups, x_N) for x_N in (means_N, some_N))
    baseline_N = (total_P[groups] - means_N) / (heard_P[groups] - some_N).clamp(min=1)
    return rewards_to_go(torch.where(at, rewards - baseline_N[sequence_T], 0.0), lengths, gamma=gamma)

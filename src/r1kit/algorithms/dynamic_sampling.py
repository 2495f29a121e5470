"""Dynamic sampling: train on groups that teach something, and draw as many problems as that takes.

DAPO (Yu et al. 2025, arXiv:2503.14476, section 3.2) draws more problems than a step needs and drops the
groups whose responses all got the same reward, because their advantages are all 0. Here nothing is thrown
away that could be used and nothing ever stops the run: surplus useful groups are carried to the next step,
the over-sampling factor follows the measured share of useful groups, and a step that still falls short trains
on what it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def useful_groups(rewards_PG: Tensor, *, tolerance: float = 1e-8) -> Tensor:
    """True for each group whose rewards differ by more than `tolerance`: bool [P] from rewards [P, G].

    With 0/1 rewards this is DAPO's constraint 0 < #right < G. With a format part it also keeps groups that
    differ in format only: those have a gradient too.
    """
    if rewards_PG.ndim != 2:
        raise ValueError(f"useful_groups: rewards have shape {tuple(rewards_PG.shape)}, expected [problems, samples]")
    rewards = rewards_PG.detach().double()
    return torch.as_tensor(rewards.amax(dim=1) - rewards.amin(dim=1) > tolerance)


@dataclass(frozen=True)
class UsefulShare:
    """Running estimate of the share of useful groups: two discounted counts, written whole to a checkpoint.

    Starts at one useful of one sampled, that is, without over-sampling: the first step measures.
    """

    useful: float = 1.0
    sampled: float = 1.0

    def observe(self, useful: int, sampled: int, *, decay: float = 0.8) -> UsefulShare:
        """The estimate after a step that sampled `sampled` groups, `useful` of them useful; older fade."""
        if not 0 <= useful <= sampled:
            raise ValueError(f"UsefulShare: {useful} useful of {sampled} sampled groups is impossible")
        return UsefulShare(self.useful * decay + useful, self.sampled * decay + sampled)

    @property
    def value(self) -> float:
        """The share in [0, 1]."""
        return self.useful / self.sampled


def problems_to_sample(needed: int, share: UsefulShare, *, max_factor: float) -> int:
    """How many problems to draw so that about `needed` useful groups come out: ceil(needed / share).

    `needed` is problems_per_step less the groups carried over. At most `max_factor` * needed are drawn, which
    bounds a step's cost when hardly any group is useful; 0 when nothing is needed. `max_factor` = 1 switches
    over-sampling off.
    """
    if max_factor < 1:
        raise ValueError(f"problems_to_sample: max_factor is {max_factor}, expected at least 1")
    if needed <= 0:
        return 0
    limit = math.floor(needed * max_factor)
    return limit if share.value * limit <= needed else math.ceil(needed / share.value)


def take_groups(carried: Sequence[Item], fresh: Sequence[Item], target: int) -> tuple[list[Item], list[Item]]:
    """(train now, carry to the next step): the first `target` useful groups, carried ones before fresh ones.

    The order is that of drawing, never that of finishing: taking the first to finish would favour short
    responses. Every group is in exactly one of the two lists.
    """
    if target < 1:
        raise ValueError(f"take_groups: target is {target}, expected at least 1")
    groups = [*carried, *fresh]
    return groups[:target], groups[target:]

"""Which sampled groups are trained now, which wait, and which are dropped: the replay matrix of docs/rl.md in code.

Nothing here ever raises for want of useful groups: a step trains on fewer, or waits.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from r1kit.algorithms.dynamic_sampling import UsefulShare, problems_to_sample, take_groups, useful_groups
from r1kit.records import Group
from r1kit.training.credit import filter_groups
from r1kit.training.exchange import SampledGroup, pack_groups, unpack_groups


@dataclass
class Selection:
    """What became of the groups of one step."""

    chosen: list[SampledGroup] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


class GroupQueue:
    """Groups that wait for a step, and the running share of sampled groups that are useful.

    A group is useful where a token of it can be trained and its rewards differ: of those that its advantages compare.
    Under a group baseline, and wherever dynamic sampling drops groups, these are its own; else (a critic, REINFORCE++)
    those of the whole step, because what all responses earn teaches nothing. Dynamic sampling trains the useful ones
    only; without it all that can be trained are.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.share = UsefulShare(**state.get("share", {}))
        self.carried = unpack_groups(base64.b64decode(state["carried"])) if state.get("carried") else []
        self._stale: list[SampledGroup] = []
        self._fresh: list[SampledGroup] = []
        self._ready: list[SampledGroup] = []
        self._useful = self._judged = 0
        self._taken_over = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, between two steps."""
        return {
            "share": {"useful": self.share.useful, "sampled": self.share.sampled},
            "carried": base64.b64encode(pack_groups(self.carried)).decode(),
        }

    def begin(self, settings: Any, version: int) -> None:
        """A step of policy `version` begins: carried groups that are too old are let go."""
        oldest = version - (settings.dynamic_sampling.max_age or version + 1)
        self._stale = [c for c in self.carried if 0 <= policy_version(c.group) < oldest]
        self.carried = _without(self.carried, self._stale)
        self._fresh, self._ready, self._taken_over = [], [], len(self.carried)
        self._useful = self._judged = 0

    def problems(self, settings: Any) -> int:
        """How many problems to ask next; 0 where the step has what it needs, or all that it may sample."""
        wanted, dynamic = settings.problems_per_step, settings.dynamic_sampling
        factor = dynamic.max_factor if dynamic.enabled else 1.0
        needed = wanted - len(self.carried) - len(self._ready)
        count = problems_to_sample(needed, self.share, max_factor=factor)
        if not self._fresh:
            return count
        return max(0, min(count, int(wanted * factor) - len(self._fresh))) if dynamic.enabled else 0

    def add(self, fresh: Sequence[SampledGroup], settings: Any) -> None:
        """Judged groups of the running step, in the order drawn."""
        dynamic = settings.dynamic_sampling
        judged = [f for f in fresh if not f.group.failed]
        # What a group filter would train of them is what has to teach something.
        kept = filter_groups([f.group for f in judged], settings.algorithm)
        able = [trainable(group, dynamic) for group in kept]
        useful = [fit and varied for fit, varied in zip(able, _differ(kept, settings), strict=True)]
        if judged and dynamic.enabled:
            self.share = self.share.observe(sum(useful), len(judged))
        self._fresh += fresh
        self._ready += [f for f, ready in zip(judged, useful if dynamic.enabled else able, strict=True) if ready]
        self._useful += sum(useful)
        self._judged += len(judged)

    def take(self, settings: Any, *, last: bool) -> Selection:
        """The step's groups, carried ones before fresh ones, and what became of all others.

        `last`: no step follows that could train what waits.
        """
        dynamic, wanted = settings.dynamic_sampling, settings.problems_per_step
        chosen, surplus = take_groups(self.carried, self._ready, wanted)
        waits = dynamic.when_short == "wait" and len(chosen) < wanted and not last
        if waits:
            chosen, surplus = [], chosen
        carry = dynamic.carry and not last
        self.carried = surplus if carry else []
        lost = _without(self._fresh, self._ready) + self._stale
        lost += [] if carry else surplus
        right = [_right(f.group) for f in self._fresh if not f.group.failed]
        counts: dict[str, float] = {
            "groups_sampled": len(self._fresh),
            "groups_trained": len(chosen),
            "groups_failed": len(self._fresh) - self._judged,
            "useful_groups": self._useful / max(1, self._judged),
            "carried_in": self._taken_over,
            "carried": len(self.carried),
            "tokens_discarded": float(sum(r.response_length for f in lost for r in f.group)),
        }
        if right:
            counts["all_right"] = float(np.mean([share == 1 for share in right]))
            counts["all_wrong"] = float(np.mean([share == 0 for share in right]))
        if self._stale:
            counts["groups_stale"] = len(self._stale)
        if dynamic.when_short == "wait":
            counts["waited"] = float(waits)
        return Selection(chosen, counts)


def _differ(groups: Sequence[Group], settings: Any) -> list[bool]:
    """Whether the rewards that each group is compared with differ; under GDPO any part of them, though the sums may be
    equal."""
    if not groups:
        return []
    if not (settings.algorithm.compares_group or settings.dynamic_sampling.enabled):
        rewards = np.concatenate([group.rewards for group in groups])
        return useful_groups(torch.from_numpy(rewards)[None]).tolist() * len(groups)
    rewards_KPG = [np.stack([group.rewards for group in groups])]
    if settings.algorithm.per_reward:
        names = sorted({name for group in groups for r in group for name in r.rewards})
        rewards_KPG += [np.array([[r.rewards.get(name, 0.0) for r in g] for g in groups]) for name in names]
    return torch.stack([useful_groups(torch.from_numpy(r_PG)) for r_PG in rewards_KPG]).any(dim=0).tolist()


def policy_version(group: Group) -> int:
    """The newest policy that sampled a token of the group; -1 where none was sampled."""
    return max((int(r.policy_versions.max(initial=-1)) for r in group), default=-1)


def trainable(group: Group, dynamic: Any) -> bool:
    """True where a token of the group would be trained: not if every response is empty or masked."""
    return any(masked_if_truncated(rollout, dynamic).loss_mask.any() for rollout in group)


def masked_if_truncated(rollout: Any, dynamic: Any) -> Any:
    """The rollout as it is trained: without loss where it was cut at the cap and the recipe masks those."""
    if dynamic.truncated == "train" or not rollout.truncated:
        return rollout
    return replace(rollout, loss_mask=np.zeros_like(rollout.loss_mask))


def as_trained(chosen: Sequence[SampledGroup], dynamic: Any) -> list[Group]:
    """The groups of a step with truncated responses masked, where the recipe says so.

    Their rewards stay in the baseline: the others are compared with all that was sampled.
    """
    if dynamic.truncated == "train":
        return [c.group for c in chosen]
    return [replace(c.group, rollouts=tuple(masked_if_truncated(r, dynamic) for r in c.group)) for c in chosen]


def _right(group: Group) -> float:
    """Share of right responses; of a verdict that is no score nothing is said."""
    found = [r.verdicts["accuracy"].correct for r in group if "accuracy" in r.verdicts]
    return float(np.mean(found)) if found else -1.0


def _without(groups: Sequence[SampledGroup], others: Sequence[SampledGroup]) -> list[SampledGroup]:
    """`groups` that are not among `others`: by identity, since comparing all their tokens would take longer."""
    known = {id(other) for other in others}
    return [group for group in groups if id(group) not in known]

"""A reward as the recipe composes it: named parts, each with its weight and the steps in which it is paid."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from r1kit.records import Problem, Rollout
from r1kit.rewards.parts import Call, PartError, ScoreSource, Unscored, Values, build_part

_log = logging.getLogger(__name__)


class RewardFunction(Protocol):
    """Weighted parts by name for each rollout of one problem; the sum of a rollout's parts is its reward.

    All of them empty where the group has no reward: a verdict that is no score, a part that failed. Such a group is
    dropped whole, never trained, never a 0. `step` counts from 1: what the group is sampled for. One that also has
    `monitored`, called alike, says there what it watches and does not pay.
    """

    def __call__(
        self, problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int
    ) -> list[dict[str, float]]: ...


class Reward:
    """The RewardFunction of a set of parts. `failures` counts, by part, the groups that the part could not value."""

    def __init__(
        self,
        parts: Mapping[str, Any],
        *,
        steps: int,
        seed: int = 0,
        sources: Mapping[str, ScoreSource] | None = None,
        before: Reward | None = None,
    ) -> None:
        """`before`: the reward of the same stage whose weights alone were others; its parts and counts are kept."""
        self.failures: Counter[str] = Counter() if before is None else before.failures
        known: Mapping[str, Values] = {} if before is None else before._values
        self._values: dict[str, Values] = {
            name: known.get(name) or build_part(name, s, seed=seed, sources=sources or {})
            for name, s in parts.items()
            if s.valued
        }
        self._parts = {name: (parts[name].weight, parts[name].window(steps)) for name in self._values}

    def __call__(
        self, problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int
    ) -> list[dict[str, float]]:
        call = Call(problem, rollouts, max_tokens, step)
        rewards: list[dict[str, float]] = [{} for _ in rollouts]
        for name, weight in self._at(step).items():
            if not weight:
                continue
            try:
                column = self._values[name](call)
            except Unscored:
                return [{} for _ in rollouts]
            except PartError as error:
                self._tell(name, error, "the group has no reward and is dropped")
                return [{} for _ in rollouts]
            for row, value in zip(rewards, column, strict=True):
                row[name] = weight * value
        return rewards

    def monitored(
        self, problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int
    ) -> list[dict[str, float]]:
        """Values of the parts of weight 0 by name, without a weight; one that has none here is missing."""
        call = Call(problem, rollouts, max_tokens, step)
        rows: list[dict[str, float]] = [{} for _ in rollouts]
        for name in (name for name, weight in self._at(step).items() if not weight):
            try:
                column = self._values[name](call)
            except Unscored:
                continue
            except PartError as error:
                self._tell(name, error, "it is only monitored, so the group is trained")
                continue
            for row, value in zip(rows, column, strict=True):
                row[name] = value
        return rows

    def _at(self, step: int) -> dict[str, float]:
        """Weights of the parts whose time it is, by name."""
        return {name: weight for name, (weight, (first, last)) in self._parts.items() if first <= step <= last}

    def one(self, problem: Problem, rollout: Rollout, *, max_tokens: int, step: int) -> dict[str, float]:
        """The parts of a rollout alone: parts that compare the responses to a problem see a group of one."""
        return self(problem, [rollout], max_tokens=max_tokens, step=step)[0]

    def _tell(self, name: str, error: PartError, what: str) -> None:
        self.failures[name] += 1
        if self.failures[name] == 1 and not error.told:
            _log.error("reward part %s: %s: %s; more are only counted", name, error, what)


def make_reward(
    settings: Any,
    *,
    steps: int,
    seed: int = 0,
    sources: Mapping[str, ScoreSource] | None = None,
    before: RewardFunction | None = None,
) -> Reward:
    """The reward of a RewardSettings in a stage of `steps` steps.

    `seed` keys the parts that toss coins; `sources` give the scores of parts of kind reward_model, by the part's name
    or by its `source`; `before`: the stage's reward until now, of which only weights have changed. Raises ConfigError
    where a part cannot work, such as a user's function that cannot be loaded.
    """
    known = before if isinstance(before, Reward) else None
    return Reward(settings.resolved(), steps=steps, seed=seed, sources=sources, before=known)

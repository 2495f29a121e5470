"""A reward as the recipe composes it: named parts, each with its weight and the steps in which it is paid."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from r1kit.records import Problem, Rollout
from r1kit.rewards.parts import Call, PartError, ScoreSource, Unscored, build_part

_log = logging.getLogger(__name__)


class RewardFunction(Protocol):
    """Weighted parts by name for each rollout of one problem; the sum of a rollout's parts is its reward.

    All of them empty where the group has no reward: a verdict that is no score, a part that failed. Such a group is
    dropped whole, never trained, never a 0. `step` counts from 1: what the group is sampled for.
    """

    def __call__(
        self, problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int
    ) -> list[dict[str, float]]: ...


class Reward:
    """The RewardFunction of a set of parts. `failures` counts, by part, the groups that the part could not value."""

    def __init__(
        self, parts: Mapping[str, Any], *, steps: int, seed: int = 0, sources: Mapping[str, ScoreSource] | None = None
    ) -> None:
        self.failures: Counter[str] = Counter()
        self._parts = [
            (name, s.weight, s.window(steps), build_part(name, s, seed=seed, sources=sources or {}))
            for name, s in parts.items()
        ]

    def __call__(
        self, problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int
    ) -> list[dict[str, float]]:
        call = Call(problem, rollouts, max_tokens, step)
        rewards: list[dict[str, float]] = [{} for _ in rollouts]
        for name, weight, (first, last), values in self._parts:
            if not first <= step <= last:
                continue
            try:
                column = values(call)
            except Unscored:
                return [{} for _ in rollouts]
            except PartError as error:
                self._tell(name, error)
                return [{} for _ in rollouts]
            for row, value in zip(rewards, column, strict=True):
                row[name] = weight * value
        return rewards

    def one(self, problem: Problem, rollout: Rollout, *, max_tokens: int, step: int) -> dict[str, float]:
        """The parts of a rollout alone: parts that compare the responses to a problem see a group of one."""
        return self(problem, [rollout], max_tokens=max_tokens, step=step)[0]

    def _tell(self, name: str, error: PartError) -> None:
        self.failures[name] += 1
        if self.failures[name] == 1 and not error.told:
            _log.error("reward part %s: %s: the group has no reward and is dropped; more are only counted", name, error)


def make_reward(
    settings: Any, *, steps: int, seed: int = 0, sources: Mapping[str, ScoreSource] | None = None
) -> Reward:
    """The reward of a RewardSettings in a stage of `steps` steps.

    `seed` keys the parts that toss coins; `sources` give the scores of parts of kind reward_model, by the part's name
    or by its `source`. Raises ConfigError where a part cannot work, such as a user's function that cannot be loaded.
    """
    return Reward(settings.resolved(), steps=steps, seed=seed, sources=sources)

"""A user's own reward: `function(problem, rollout)` to a number, or for a whole group to one number a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1kit.records import Problem, Rollout
from r1kit.verifiers.user import UserFunction, UserFunctionError, finite, shown


class UserReward:
    """Calls the user's function and holds it to finite numbers. Raises UserFunctionError, told once and counted."""

    def __init__(self, spec: str, *, group: bool = False) -> None:
        self.function, self.group = UserFunction(spec), group

    def __call__(self, problem: Problem, rollouts: Sequence[Rollout]) -> list[float]:
        if not self.group:
            return [self._number(self.function(problem, rollout)) for rollout in rollouts]
        found = self.function(problem, rollouts)
        listed = found.ndim == 1 if isinstance(found, np.ndarray) else isinstance(found, Sequence)
        if not listed or isinstance(found, str) or len(found) != len(rollouts):
            raise self.function.failure(
                f"returned {shown(found)}: return a list of {len(rollouts)} finite numbers, one for each rollout"
            )
        return [self._number(value) for value in found]

    def _number(self, value: Any) -> float:
        number = finite(value)
        if number is None:
            raise self.function.failure(f"returned {shown(value)}: return a finite number, or True or False")
        return number


__all__ = ["UserFunctionError", "UserReward"]

"""A task whose answers are judged by a function of the user's own instead of the task's rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.records import Problem, Verdict
from r1kit.verifiers.user import UserVerifier


class OwnVerifier:
    """`task` with its verdict "accuracy" replaced by that of the function `spec` names; all else is the task's."""

    def __init__(self, task: Any, spec: str) -> None:
        self.task, self.verifier, self.name = task, UserVerifier(spec), task.name

    def problems(self, split: str) -> Sequence[Problem]:
        return self.task.problems(split)

    def notes(self) -> list[str]:
        """What the task says of how its problems were made."""
        return list(self.task.notes()) if hasattr(self.task, "notes") else []

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        return {**self.task.verify(problem, response), "accuracy": self.verifier(problem, response)}

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        return self.task.statistics(problem, response)

    def blind_rate(self, problem: Problem) -> float:
        return self.task.blind_rate(problem)

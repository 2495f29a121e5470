"""Tasks: where problems come from, how a response is judged, and what it did on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from r1kit.records import Problem, Verdict
from r1kit.sandbox import close_shared
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.from_files import FileTask
from r1kit.tasks.knights_knaves import KnightsKnaves
from r1kit.tasks.multiplication import Multiplication
from r1kit.tasks.own_verifier import OwnVerifier
from r1kit.tasks.question_task import QuestionTask, Verify
from r1kit.tasks.reasoning_gym import ReasoningGym
from r1kit.tasks.shapes import witness_response


class Task(Protocol):
    """A source of problems with its own verifier. Deterministic in its settings.

    A task whose judging waits for other processes may also have `verify_many`, see the function of that name.
    """

    name: str

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; the two share no family."""
        ...

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        """Verdicts by verifier name: "accuracy" and "format". `response` is the text after prompt and
        prefill."""
        ...

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        """What the response did (see `tasks.behaviour` for the keys); no reward is made of it."""
        ...

    def blind_rate(self, problem: Problem) -> float:
        """The chance that a blind random answer is right."""
        ...


_TASKS: Mapping[str, Callable[[Any], Task]] = {
    "countdown": Countdown,
    "multiplication": Multiplication,
    "math": FileTask,
    "code": FileTask,
    "choice": FileTask,
    "instruction": FileTask,
    "file": FileTask,
    "knights_knaves": KnightsKnaves,
    "reasoning_gym": ReasoningGym,
}


def make_task(settings: Any) -> Task:
    """The task that `settings.name` names, with its knobs from the settings' other attributes.

    `settings.verifier`, where it is set, names a function of the user's own that judges the answers.
    """
    if settings.name not in _TASKS:
        raise ValueError(f"task.name is {settings.name!r}: expected one of {', '.join(_TASKS)}")
    task = _TASKS[settings.name](settings)
    # The task `file` has no rule that a function could take the place of: it asks the function itself.
    own = getattr(settings, "verifier", None) if settings.name != "file" else None
    return OwnVerifier(task, own) if own else task


def close_judges() -> None:
    """End the processes that judges of this process have started, if any; a later judge starts its own."""
    voters = sys.modules.get("r1kit.verifiers.math.verify")
    if voters is not None:
        voters.close_default_pool()
    close_shared()


def verify_many(
    task: Task, problems: Sequence[Problem], responses: Sequence[str], verify: Verify | None = None
) -> list[dict[str, Verdict]]:
    """`task.verify` of every (problem, response), in order; side by side where the task says that this pays.

    `verify`: called in its place, by a caller that guards it.
    """
    many = getattr(task, "verify_many", None)
    if many is not None:
        verdicts: list[dict[str, Verdict]] = many(problems, responses, verify)
        return verdicts
    return [(verify or task.verify)(p, r) for p, r in zip(problems, responses, strict=True)]


__all__ = [
    "Countdown",
    "FileTask",
    "KnightsKnaves",
    "Multiplication",
    "QuestionTask",
    "ReasoningGym",
    "Task",
    "close_judges",
    "make_task",
    "verify_many",
    "witness_response",
]

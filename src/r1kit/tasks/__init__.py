"""Tasks: where problems come from, how a response is judged, and what it did on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from r1kit.records import Problem, Verdict
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.multiplication import Multiplication
from r1kit.tasks.own_verifier import OwnVerifier

_TASKS: dict[str, type[Countdown] | type[Multiplication]] = {
    Countdown.name: Countdown,
    Multiplication.name: Multiplication,
}


class Task(Protocol):
    """A source of problems with its own verifier. Deterministic in its settings."""

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


def make_task(settings: Any) -> Task:
    """The task that `settings.name` names, with its knobs from the settings' other attributes.

    `settings.verifier`, where it is set, names a function of the user's own that judges the answers.
    """
    if settings.name not in _TASKS:
        raise ValueError(f"task.name is {settings.name!r}: expected one of {', '.join(_TASKS)}")
    task = _TASKS[settings.name](settings)
    own = getattr(settings, "verifier", None)
    return OwnVerifier(task, own) if own else task


__all__ = ["Countdown", "Multiplication", "Task", "make_task"]

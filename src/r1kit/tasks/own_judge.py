"""A user's own function as the judge of stored answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from r1kit.records import Message, Problem, Verdict
from r1kit.verifiers.registry import Judge
from r1kit.verifiers.user import UserVerifier


class OwnJudge:
    """A function of the user's that judges in the place of every kind's judge: one call at a time, as in training.

    ConfigError where `spec` names none. It is the user's code and runs here, so nothing but the user may name it: a
    run's recipe that comes with the rollouts is read for a hint at most.
    """

    def __init__(self, spec: str) -> None:
        self._verify, self._one = UserVerifier(spec), Lock()

    def of(self, ident: Any, data: Mapping[str, Any], kind: str, gold: Any, policy: Mapping[str, Any]) -> Judge:
        """The judge of a problem: the record where the row is one, else made of the row as the task `file` makes it."""
        if "payload" in data:
            problem = Problem.from_json(data)
        else:
            asked = next((str(data[name]) for name in ("problem", "question", "prompt") if data.get(name)), "")
            payload = {"kind": kind, "gold": gold, "policy": dict(policy), "row": dict(data)}
            problem = Problem(str(ident), (Message("user", asked),), "file", payload)

        def judge(prediction: str, opened: bool = False) -> Verdict:
            with self._one:
                return self._verify(problem, prediction)

        return judge


def judge_of_run(rollouts: Path) -> str | None:
    """The function that judged in the run that a file of rollouts lies in, as its resolved recipe names it."""
    recipes = (folder / "recipe.resolved.yaml" for folder in rollouts.resolve().parents[:3])
    recipe = next((path for path in recipes if path.is_file()), None)
    if recipe is None:
        return None
    try:
        spec = yaml.safe_load(recipe.read_text(encoding="utf-8"))["task"]["verifier"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return None  # it only serves a hint
    return spec if isinstance(spec, str) and ":" in spec else None

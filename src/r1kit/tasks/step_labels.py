"""Solutions with a label for every step: PRM800K, Math-Shepherd, and rows of prompt, steps and labels.

A label is a number in [0, 1], or None where a step is not trained on. Ratings of PRM800K and shares of right
continuations become labels by the rules in algorithms/reward_model_loss.py; which rule applies is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.records import Message
from r1kit.tasks.conversations import PROMPT, read_turns
from r1kit.tasks.data_files import read_rows
from r1kit.tasks.traces import GoodRows

STEPS = ("steps", "completions")
SHEPHERD_MARK = "ки"


@dataclass(frozen=True, slots=True)
class RatedSteps:
    """A prompt and the steps of one solution. `ratings`: PRM800K's 1, 0, -1 where `human`, else shares in [0, 1]."""

    place: str
    prompt: tuple[Message, ...]
    steps: tuple[str, ...]
    ratings: tuple[float | None, ...]
    human: bool


class StepReading(GoodRows[RatedSteps]):
    """Rows of steps with their labels."""

    def _file(self, path: Path) -> Iterator[RatedSteps]:
        for row in read_rows(path):
            self.read += 1
            try:
                if row.error:
                    raise ValueError(row.error)
                yield rated_steps(row.data, row.place, self.settings.system)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                self._note(row.place, str(error))


def rated_steps(data: Mapping[str, Any], place: str, system: str | None = None) -> RatedSteps:
    """One row of a known form. ValueError with what was expected and found."""
    forms: Sequence[tuple[Callable[[Mapping[str, Any]], bool], Callable[..., Any]]] = (
        (lambda d: isinstance(d.get("label"), Mapping) and "steps" in d["label"], _prm800k),
        (lambda d: isinstance(d.get("label"), str) and SHEPHERD_MARK in str(d.get("input")), _shepherd),
        (lambda d: "labels" in d and any(name in d for name in STEPS), _plain),
    )
    for is_form, read in forms:
        if is_form(data):
            prompt, steps, ratings, human = read(data)
            break
    else:
        raise ValueError(
            f"no known form of step labels; expected prompt, steps and labels (or PRM800K, Math-Shepherd), found "
            f"{', '.join(map(str, data)) or 'nothing'}"
        )
    if not steps or len(steps) != len(ratings):
        raise ValueError(f"{len(steps)} steps and {len(ratings)} labels: expected one label for each of some steps")
    empty = next((i for i, step in enumerate(steps) if not step.strip()), None)
    if empty is not None:
        raise ValueError(f"step {empty} is empty")
    if system and prompt[0].role not in ("system", "text"):
        prompt = (Message("system", system), *prompt)
    return RatedSteps(place, prompt, tuple(steps), tuple(ratings), human)


def _plain(data: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[str], list[float | None], bool]:
    steps = next(data[name] for name in STEPS if name in data)
    asked = next((data[name] for name in PROMPT if data.get(name)), None)
    if asked is None:
        raise ValueError(f"no prompt: expected one of {', '.join(PROMPT)}")
    if not all(isinstance(step, str) for step in steps):
        raise ValueError("steps: expected a list of texts")
    prompt = (Message("user", asked),) if isinstance(asked, str) else read_turns(asked, "prompt", "as_is")
    labels = [None if x is None else float(x) for x in data["labels"]]
    # Only human ratings go below 0.
    return prompt, list(steps), labels, any(x is not None and x < 0 for x in labels)


def _prm800k(data: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[str], list[float | None], bool]:
    """The path the labeller took: at each step the completion chosen, else the one written by hand, else the first."""
    steps: list[str] = []
    ratings: list[float | None] = []
    for step in data["label"]["steps"]:
        completions, chosen = step.get("completions") or [], step.get("chosen_completion")
        if chosen is None and step.get("human_completion"):
            taken = step["human_completion"]
        else:
            taken = completions[chosen or 0]
        steps.append(taken["text"])
        ratings.append(taken.get("rating"))
    return (Message("user", data["question"]["problem"]),), steps, ratings, True


def _shepherd(data: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[str], list[float | None], bool]:
    """A question and steps, each ended by a mark in `input`, where `label` has + or -."""
    text, marked = str(data["input"]), str(data["label"])
    first = re.search(r"Step 1\s*:", text)
    if first is None:
        raise ValueError("input: expected the first step to begin with 'Step 1:'")
    pieces = text.split(SHEPHERD_MARK)[:-1]
    ratings: list[float | None] = []
    position = 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        sign = marked[position : position + 1]
        if sign not in ("+", "-"):
            raise ValueError(f"label: step {index} has {sign!r} where input has its mark, expected + or -")
        ratings.append(1.0 if sign == "+" else 0.0)
        position += 1
    steps = [pieces[0][first.start() :], *pieces[1:]]
    return (Message("user", text[: first.start()].strip()),), [s.strip() for s in steps], ratings, False

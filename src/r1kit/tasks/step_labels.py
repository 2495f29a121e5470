"""Solutions with a label for every step: PRM800K, Math-Shepherd, and rows of prompt, steps and labels or ratings.

A label is a number in [0, 1], or None where a step is not trained on. People's ratings and shares of right
continuations become labels by the rules in algorithms/reward_model_loss.py; which rule applies is the caller's. A row
of 1 and 0 does not tell which of both it holds, so the column does: `labels` are shares, `ratings` those of people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from r1kit.config.data import ColumnSettings
from r1kit.config.errors import UserError
from r1kit.records import Message
from r1kit.tasks.conversations import PROMPT, SYSTEM, asked_columns, read_turns, with_system
from r1kit.tasks.data_files import read_rows
from r1kit.tasks.traces import HEAD, GoodRows

STEPS = ("steps", "completions")
SHEPHERD_MARK = "ки"
LISTED, JUDGED = ("steps", "labels", "ratings"), ("input", "label")

Rated = tuple[Any, list[str], list[Any], bool]


@dataclass(frozen=True, slots=True)
class RatedSteps:
    """A prompt and the steps of one solution. `ratings`: PRM800K's 1, 0, -1 where `human`, else shares in [0, 1]."""

    place: str
    prompt: tuple[Message, ...]
    steps: tuple[str, ...]
    ratings: tuple[float | None, ...]
    human: bool


@dataclass(frozen=True, slots=True)
class StepColumns:
    """Which columns of a file hold what; "" where it has none.

    `steps` with `labels` or `ratings`; or `label`: the labeller's work on PRM800K's question, or the signs at the
    marks of Math-Shepherd's `input`.
    """

    prompt: str = ""
    system: str = ""
    steps: str = ""
    labels: str = ""
    ratings: str = ""
    input: str = ""
    label: str = ""


class StepReading(GoodRows[RatedSteps]):
    """Rows of steps with their labels."""

    def _file(self, path: Path) -> Iterator[RatedSteps]:
        rows = read_rows(path)
        head = list(islice(rows, HEAD))
        names = dict.fromkeys(name for row in head for name, value in row.data.items() if value is not None)
        place = next((row.place for row in head if not row.error), str(path))
        columns = find_step_columns(names, self.settings.columns, place) if names else StepColumns()
        for row in chain(head, rows):
            self.read += 1
            try:
                if row.error:
                    raise ValueError(row.error)
                yield rated_steps(row.data, columns, row.place, self.settings.system)
            except KeyError as error:
                self._note(row.place, f"no field {error}")
            except (ValueError, TypeError, AttributeError) as error:
                self._note(row.place, str(error))


def find_step_columns(names: Iterable[str], asked: ColumnSettings, source: str) -> StepColumns:
    """The columns of a file that has `names`, those `asked` for first; these settle its form.

    Raises UserError, of `source`, where a column that was asked for is absent or no column can hold labels.
    """
    present = {name.lower(): name for name in names}
    wishes = asked_columns(present.values(), asked, source, StepColumns.__slots__)
    listed, judged = (next((key for key in keys if key in wishes), "") for keys in (LISTED, JUDGED))
    if listed and judged:
        raise UserError(
            f"{source}: columns.{listed} and columns.{judged} are of two forms: name steps and labels, or the label of "
            "PRM800K and Math-Shepherd (docs/data-formats.md)"
        )

    def first(key: str, known: Iterable[str], other: str = "") -> str:
        return "" if other else wishes.get(key) or next((present[name] for name in known if name in present), "")

    found = StepColumns(
        prompt=first("prompt", PROMPT),
        system=first("system", SYSTEM),
        steps=first("steps", STEPS, judged),
        labels=first("labels", ("labels",), judged or wishes.get("ratings", "")),
        ratings=first("ratings", ("ratings",), judged or wishes.get("labels", "")),
        input=first("input", ("input",), listed),
        label=first("label", ("label",), listed),
    )
    if not found.label and not (found.steps and (found.labels or found.ratings)):
        missing = "label" if judged else "labels" if found.steps else "steps"
        raise UserError(
            f"{source}: no known form of step labels: no column that holds the {missing}; its columns are "
            f"{', '.join(present.values())}: name it in the recipe (columns: {{{missing}: ...}}; docs/data-formats.md "
            "lists the known forms)"
        )
    return found


def rated_steps(data: Mapping[str, Any], columns: StepColumns, place: str, system: str | None = None) -> RatedSteps:
    """One row of a known form. ValueError with what was expected and found."""
    label = data.get(columns.label) if columns.label else None
    if isinstance(label, str) and SHEPHERD_MARK in str(data.get(columns.input)):
        asked, steps, ratings, human = _shepherd(str(data[columns.input]), label, columns)
    elif isinstance(label, Mapping) and "steps" in label:
        asked, steps, ratings, human = _prm800k(data, label, columns)
    elif columns.steps in data and (columns.labels in data or columns.ratings in data):
        asked, steps, ratings, human = _listed(data, columns)
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
    prompt = (Message("user", asked),) if isinstance(asked, str) else read_turns(asked, columns.prompt, "as_is")
    prompt = with_system(prompt, data, columns.system, system)
    return RatedSteps(place, prompt, tuple(steps), tuple(_ratings(ratings, human)), human)


def _listed(data: Mapping[str, Any], columns: StepColumns) -> Rated:
    human = columns.labels not in data
    lists = []
    for name in (columns.steps, columns.ratings if human else columns.labels):
        value = _from_cell(data[name], name)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {str(value)[:60]!r}: expected a list")
        lists.append(list(value))
    if not all(isinstance(step, str) for step in lists[0]):
        raise ValueError(f"{columns.steps}: expected a list of texts")
    asked = data.get(columns.prompt)
    if not asked:
        raise ValueError(f"no prompt: expected one of {', '.join(PROMPT)}, or columns.prompt in the recipe")
    return asked, lists[0], lists[1], human


def _prm800k(data: Mapping[str, Any], label: Mapping[str, Any], columns: StepColumns) -> Rated:
    """The path the labeller took: at each step the completion chosen, else the one written by hand, else the first."""
    steps: list[str] = []
    ratings: list[Any] = []
    for index, step in enumerate(label["steps"]):
        completions, chosen = step.get("completions") or [], step.get("chosen_completion")
        if chosen is None and step.get("human_completion"):
            taken = step["human_completion"]
        elif 0 <= (chosen or 0) < len(completions):
            taken = completions[chosen or 0]
        else:
            raise ValueError(f"step {index} has {len(completions)} completions: expected number {chosen or 0} of them")
        steps.append(taken["text"])
        ratings.append(taken.get("rating"))
    question = data.get(columns.prompt)
    asked = question["problem"] if isinstance(question, Mapping) else question
    if not isinstance(asked, str) or not asked.strip():
        raise ValueError(f"{columns.prompt or 'prompt'}: expected a text, or an object with problem")
    return asked, steps, ratings, True


def _shepherd(text: str, marked: str, columns: StepColumns) -> Rated:
    """A question and steps, each ended by a mark in `text`, where `marked` has + or -."""
    first = re.search(r"Step 1\s*:", text)
    if first is None:
        raise ValueError(f"{columns.input}: expected the first step to begin with 'Step 1:'")
    pieces = text.split(SHEPHERD_MARK)[:-1]
    ratings: list[Any] = []
    position = 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        sign = marked[position : position + 1]
        if sign not in ("+", "-"):
            where = f"{columns.label}: step {index}"
            raise ValueError(f"{where} has {sign!r} where {columns.input} has its mark, expected + or -")
        ratings.append(1.0 if sign == "+" else 0.0)
        position += 1
    steps = [pieces[0][first.start() :], *pieces[1:]]
    return text[: first.start()].strip(), [s.strip() for s in steps], ratings, False


def _ratings(found: list[Any], human: bool) -> Iterator[float | None]:
    expected = "1, 0, -1 or null" if human else "a number in [0, 1] or null (people's 1, 0, -1 stand in ratings)"
    for index, value in enumerate(found):
        known = isinstance(value, (int, float)) and (value in (1, 0, -1) if human else 0.0 <= value <= 1.0)
        if value is not None and not known:
            raise ValueError(f"label {index} is {value!r}: expected {expected}")
        yield None if value is None else float(value)


def _from_cell(value: Any, name: str) -> Any:
    """A list, which a CSV cell holds as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None

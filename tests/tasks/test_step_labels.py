"""Step labels of the published forms, and rows that have none.

Why this matters: a step read against the label of its neighbour teaches a process model the opposite, quietly.

Not exercised here: whole published files, which are not part of the data these tests may read.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1kit.config.data import ColumnSettings, DataSettings
from r1kit.config.errors import UserError
from r1kit.tasks.step_labels import RatedSteps, StepReading, find_step_columns, rated_steps
from r1kit.tasks.traces import BadRowError


def rated(row: dict[str, Any], system: str | None = None, **named: str) -> RatedSteps:
    """A row as the only one of its file."""
    return rated_steps(row, find_step_columns(row, ColumnSettings(**named), "p:1"), "p:1", system)


def prm800k_row() -> dict[str, Any]:
    def completion(text: str, rating: int | None) -> dict[str, Any]:
        return {"text": text, "rating": rating, "flagged": False}

    return {
        "question": {"problem": "What is 2+3?", "ground_truth_answer": "5"},
        "label": {
            "finish_reason": "found_error",
            "steps": [
                {"completions": [completion("We add.", 0), completion("We guess.", -1)], "chosen_completion": 0},
                {"completions": [completion("2+3=6", -1)], "human_completion": completion("2+3=5", None)},
                {"completions": [completion("So 6.", -1), completion("So 7.", -1)], "chosen_completion": None},
            ],
        },
    }


def test_prm800k_follows_the_path_the_labeller_took() -> None:
    found = rated(prm800k_row())
    assert found.steps == ("We add.", "2+3=5", "So 6.")
    assert found.ratings == (0, None, -1)
    assert found.human
    assert found.prompt[0].content == "What is 2+3?"


def test_math_shepherd_reads_each_sign_where_its_step_ends() -> None:
    question = "Janet has 3 ducks + 2. How many? "
    row = {
        "input": f"{question}Step 1: 3 + 2 = 5 ки\nStep 2: 5 - 1 = 3 ки\nStep 3: The answer is: 3 ки",
        "label": f"{question}Step 1: 3 + 2 = 5 +\nStep 2: 5 - 1 = 3 -\nStep 3: The answer is: 3 -",
        "task": "GSM8K",
    }
    found = rated(row)
    assert found.prompt[0].content == question.strip()
    assert found.steps == ("Step 1: 3 + 2 = 5", "Step 2: 5 - 1 = 3", "Step 3: The answer is: 3")
    assert found.ratings == (1.0, 0.0, 0.0)
    assert not found.human


@pytest.mark.parametrize("name", ["steps", "completions"])
def test_rows_of_prompt_steps_and_labels(name: str) -> None:
    found = rated({"prompt": "2+3?", name: ["a", "b", "c"], "labels": [True, 0.25, None]}, system="Be brief")
    assert found.ratings == (1.0, 0.25, None)
    assert not found.human
    assert [m.content for m in found.prompt] == ["Be brief", "2+3?"]
    people = rated({"prompt": "2+3?", "System": "Sky", name: ["a", "b"], "ratings": [1, 0]}, system="Be brief")
    assert people.human, "0 is neutral, whether or not the row has a -1 too"
    assert [m.content for m in people.prompt] == ["Sky", "2+3?"]


def test_columns_named_in_the_recipe(tmp_path: Path) -> None:
    """Every form with other names reads as it does under its own."""
    prm, question = prm800k_row(), "Janet has 3. "
    shepherd = {"input": f"{question}Step 1: 3 ки", "label": f"{question}Step 1: 3 -"}
    shares: dict[str, Any] = {"prompt": "2+3?", "steps": ["a", "b"], "labels": [0.5, None], "system": "Be brief"}
    people: dict[str, Any] = {"prompt": "2+3?", "steps": ["a", "b"], "ratings": [0, -1]}
    cases: list[tuple[dict[str, Any], dict[str, str]]] = [
        (prm, {"question": "frage", "label": "urteil"}),
        (shepherd, {"input": "text", "label": "zeichen"}),
        (shares, {"prompt": "frage", "steps": "schritte", "labels": "noten", "system": "rahmen"}),
        (people, {"prompt": "frage", "steps": "schritte", "ratings": "noten"}),
    ]
    for number, (row, names) in enumerate(cases):
        # Columns of known names that hold something else are not taken.
        renamed = {names.get(name, name): value for name, value in row.items()}
        decoys = {name: "other" for name in names if name != "system"}
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({**decoys, **renamed}) + "\n")
        columns = {"prompt" if name == "question" else name: other for name, other in names.items()}
        (found,) = StepReading(DataSettings(path=str(path), columns=ColumnSettings(**columns)))
        assert found == replace(rated(row), place=f"{path}:1")


def test_steps_and_labels_in_cells_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    with open(path, "w", newline="") as stream:
        rows = [["q", "parts", "p"], ["[2] is a list?", json.dumps(["a", "b"]), "[0.5, null]"], ["q", "abc", "[1,0,1]"]]
        csv.writer(stream).writerows(rows)
    columns = ColumnSettings(prompt="q", steps="parts", labels="p")
    reading = StepReading(DataSettings(path=str(path), columns=columns, bad_rows="skip"))
    (found,) = reading
    assert (found.prompt[0].content, found.steps, found.ratings) == ("[2] is a list?", ("a", "b"), (0.5, None))
    assert (reading.bad[0].place, reading.bad[0].reason.partition(":")[0]) == (f"{path}:3", "parts is not JSON")


@pytest.mark.parametrize(
    ("named", "match"),
    [
        (
            {"steps": "stepz"},
            r'x\.jsonl:2: columns\.steps is .stepz. \(did you mean "steps"\?\); its columns',
        ),
        ({"chosen": "steps"}, r"x\.jsonl:2: columns\.chosen is set, but such rows have none; expected prompt, system"),
        ({"steps": "steps", "label": "labels"}, r"x\.jsonl:2: columns\.steps and columns\.label are of two forms"),
        ({"input": "prompt"}, r"x\.jsonl:2: no known form of step labels: no column that holds the label;"),
    ],
)
def test_columns_that_cannot_be_are_refused_under_either_policy(
    named: dict[str, str], match: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("{broken\n" + json.dumps({"prompt": "q", "steps": ["a"], "labels": [1]}) + "\n")
    data = DataSettings(path=str(path), columns=ColumnSettings(**named), bad_rows="skip")
    with pytest.raises(UserError, match=match):
        list(StepReading(data))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no form": ({"text": "a"}, "no known form of step labels: .*its columns are text"),
    "one label missing": ({"prompt": "q", "steps": ["a", "b"], "labels": [1]}, "2 steps and 1 labels"),
    "no step": ({"prompt": "q", "steps": [], "labels": []}, "0 steps and 0 labels"),
    "an empty step": ({"prompt": "q", "steps": ["a", " "], "labels": [1, 1]}, "step 1 is empty"),
    "no prompt": ({"steps": ["a"], "labels": [1]}, "no prompt"),
    "no sign": ({"input": "q Step 1: a ки", "label": "q Step 1: a ?"}, "expected \\+ or -"),
    "a step that is no text": ({"prompt": "q", "steps": [3], "labels": [1]}, "expected a list of texts"),
    "a text of steps": ({"prompt": "q", "steps": "abc", "labels": [1, 0, 1]}, "steps is not JSON"),
    "a number of steps": ({"prompt": "q", "steps": 3, "labels": [1, 0, 1]}, "steps is '3': expected a list"),
    "a share of 2": ({"prompt": "q", "steps": ["a"], "labels": [2]}, r"label 0 is 2: expected a number in \[0, 1\]"),
    "a rating among shares": ({"prompt": "q", "steps": ["a"], "labels": [-1]}, "1, 0, -1 stand in ratings"),
    "half a rating": ({"prompt": "q", "steps": ["a"], "ratings": [0.5]}, "label 0 is 0.5: expected 1, 0, -1 or null"),
    "a sign": ({"prompt": "q", "steps": ["a"], "labels": ["+"]}, r"label 0 is '\+'"),
    "no number": ({"prompt": "q", "steps": ["a"], "labels": [float("nan")]}, "label 0 is nan"),
    "no completion": (
        {"question": {"problem": "q"}, "label": {"steps": [{"completions": []}]}},
        "step 0 has 0 completions: expected number 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_say_what_is_wrong(name: str) -> None:
    row, match = BAD[name]
    with pytest.raises((ValueError, UserError), match=match):
        rated(row)


def test_bad_rows_end_the_reading_or_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    good = json.dumps({"prompt": "q", "steps": ["a"], "labels": [1]})
    path.write_text(f"{good}\n{{broken\n{json.dumps({'prompt': 'q'})}\n{good}\n")
    with pytest.raises(BadRowError, match=r"steps\.jsonl:2: .* set bad_rows: skip"):
        list(StepReading(DataSettings(path=str(path))))
    reading = StepReading(DataSettings(path=str(path), bad_rows="skip"))
    assert len(list(reading)) == 2
    assert (reading.read, reading.skipped) == (4, 2)
    assert reading.bad[0].place.endswith("steps.jsonl:2")
    reading.require_rows()
    assert len(list(StepReading(DataSettings(path=str(path), bad_rows="skip", max_rows=1)))) == 1
    path.write_text("{broken\n")
    reading = StepReading(DataSettings(path=str(path), bad_rows="skip"))
    assert not list(reading)
    with pytest.raises(UserError, match="none of its 1 rows can be used; the first: "):
        reading.require_rows()

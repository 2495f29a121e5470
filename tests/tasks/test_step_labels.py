"""Step labels of the published forms, and rows that have none.

Why this matters: a step read against the label of its neighbour teaches a process model the opposite, quietly.

Not exercised here: whole published files, which are not part of the data these tests may read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1kit.config.data import DataSettings
from r1kit.config.errors import UserError
from r1kit.tasks.step_labels import StepReading, rated_steps
from r1kit.tasks.traces import BadRowError


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
    found = rated_steps(prm800k_row(), "p:1")
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
    found = rated_steps(row, "p:1")
    assert found.prompt[0].content == question.strip()
    assert found.steps == ("Step 1: 3 + 2 = 5", "Step 2: 5 - 1 = 3", "Step 3: The answer is: 3")
    assert found.ratings == (1.0, 0.0, 0.0)
    assert not found.human


@pytest.mark.parametrize("name", ["steps", "completions"])
def test_rows_of_prompt_steps_and_labels(name: str) -> None:
    found = rated_steps(
        {"prompt": "2+3?", name: ["a", "b", "c"], "labels": [True, 0.25, None]}, "p:1", system="Be brief"
    )
    assert found.ratings == (1.0, 0.25, None)
    assert [m.role for m in found.prompt] == ["system", "user"]
    assert rated_steps({"prompt": "2+3?", name: ["a"], "labels": [-1]}, "p:1").human


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no form": ({"text": "a"}, "no known form of step labels.*found text"),
    "one label missing": ({"prompt": "q", "steps": ["a", "b"], "labels": [1]}, "2 steps and 1 labels"),
    "no step": ({"prompt": "q", "steps": [], "labels": []}, "0 steps and 0 labels"),
    "an empty step": ({"prompt": "q", "steps": ["a", " "], "labels": [1, 1]}, "step 1 is empty"),
    "no prompt": ({"steps": ["a"], "labels": [1]}, "no prompt"),
    "no sign": ({"input": "q Step 1: a ки", "label": "q Step 1: a ?"}, "expected \\+ or -"),
    "a step that is no text": ({"prompt": "q", "steps": [3], "labels": [1]}, "expected a list of texts"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_say_what_is_wrong(name: str) -> None:
    row, match = BAD[name]
    with pytest.raises(ValueError, match=match):
        rated_steps(row, "p:1")


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

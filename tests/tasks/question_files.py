"""Small data files of questions and the tasks over them, shared by the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1kit.config.load import parse_recipe
from r1kit.config.tasks import TaskSettings
from r1kit.records import Problem
from r1kit.tasks import FileTask, make_task

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Peru": "Lima", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Ghana": "Accra", "Cuba": "Havana", "Nepal": "Kathmandu", "Chile": "Santiago", "Egypt": "Cairo", "Qatar": "Doha",
}  # fmt: skip


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """A file of JSON lines; a row that is text stands as it is."""
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def capitals(path: Path) -> Path:
    rows = [{"question": f"What is the capital of {land}?", "answer": city} for land, city in CAPITALS.items()]
    return write_rows(path, rows)


def task_settings(**settings: Any) -> TaskSettings:
    """The settings of a task as a recipe gives them: checked, and explained where they are wrong."""
    plain = json.dumps(
        {"name": "t", "task": settings, "stages": {"e": {"kind": "evaluate", "model": "m"}}}, default=str
    )
    return parse_recipe(plain, "recipe.yaml").task


def file_task(**settings: Any) -> FileTask:
    """A task over data files; `name` is "file" where it is not said."""
    task = make_task(task_settings(**{"name": "file", **settings}))
    assert isinstance(task, FileTask)
    return task


def all_problems(task: FileTask) -> list[Problem]:
    return [*task.problems("train"), *task.problems("test")]

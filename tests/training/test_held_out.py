"""Why this matters: a policy that has found a hole in the training verifier looks better and better; only another judge
of the same responses can tell.

Not exercised: evaluation itself (tests/evaluation), the alarm that reads the number (test_alarms.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1kit.config.errors import ConfigError
from r1kit.engines.local import LocalEngine
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.tasks import Task, make_task
from r1kit.training.held_out import HeldOut
from r1kit.training.parallel import World

from .stage import TASK, TASK_SETTINGS, ListRecorder, stage_settings, write_base

GENEROUS = "def judge(problem, response):\n    return True\n"
STRICT = "def judge(problem, response):\n    return False\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def measured(base: Path, task: Task, verifier: str) -> dict[str, Any]:
    recorder = ListRecorder()
    evaluate = {"every": 1, "problems": 3, "samples": 2, "max_tokens": 6, "verifier": verifier}
    tokenizer = load_tokenizer(base)
    engine = LocalEngine(load_model(base, dtype="float32"), tokenizer=tokenizer, slots=8)
    held_out = HeldOut(
        stage_settings(evaluate=evaluate).evaluate, "rl", task, engine, tokenizer, 5, World.single(), recorder
    )
    row = held_out.run(0)
    assert row is not None
    assert row.items() <= recorder.rows[0].items()
    return row


def hacked(tmp_path: Path) -> Task:
    """The task judged by a verifier of the user's that calls everything right."""
    (tmp_path / "mine.py").write_text(GENEROUS)
    return make_task(TASK_SETTINGS.model_copy(update={"verifier": f"{tmp_path}/mine.py:judge"}))


def test_the_tasks_own_rule_is_the_second_where_a_users_took_its_place(base: Path, tmp_path: Path) -> None:
    row = measured(base, hacked(tmp_path), "auto")
    assert (row["pass@1"], row["pass@1_second"]) == (1.0, 0.0)
    assert "pass@1_second" not in measured(base, hacked(tmp_path), "off")


def test_a_function_may_be_the_second(base: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(STRICT)
    row = measured(base, hacked(tmp_path), f"{tmp_path}/other.py:judge")
    assert (row["pass@1"], row["pass@1_second"]) == (1.0, 0.0)
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.py"):
        measured(base, TASK, "nowhere.py:judge")


def test_without_another_judge_there_is_no_second_number(base: Path) -> None:
    row = measured(base, TASK, "auto")
    assert "pass@1_second" not in row
    assert "right_second" not in row

"""Why this matters: the published sets are what a recipe will really be pointed at. Their columns have to be told,
their golds to verify, and what overlaps with a test set to be left out.

Not exercised: sets that are not in the shared data (GPQA is not, as its authors ask; AQuA and MMLU stand for it).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from r1kit.sandbox import SandboxError, shared_sandbox
from r1kit.tasks import FileTask, close_judges, verify_many, witness_response

from .question_files import all_problems, file_task

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def task(name: str, path: str, **settings: Any) -> FileTask:
    if not (DATA / path).exists():
        pytest.skip(f"no {path}: set R1KIT_DATA to a folder that holds it")
    return file_task(name=name, **{"data": DATA / path, **settings})


@pytest.mark.parametrize(
    ("name", "path", "settings", "problems"),
    [
        ("math", "gsm8k/test.jsonl.gz", {"template": "r1_zero"}, 1319),
        ("math", "math500/test.jsonl.gz", {"template": "qwen_math", "columns": {"difficulty": "level"}}, 500),
        ("math", "olympiadbench/test_half.jsonl.gz", {"template": "dapo"}, 337),
        ("choice", "aqua/test.jsonl.gz", {"template": "deepseek_r1"}, 254),
        ("choice", "mmlu/dev.jsonl.gz", {"template": "open_r1", "bad_rows": "skip"}, 283),
        ("file", "countdown/test.jsonl.gz", {"verifier": "countdown", "template": "s1"}, 1024),
    ],
)
def test_a_right_answer_scores_in_every_published_set(
    name: str, path: str, settings: dict[str, Any], problems: int
) -> None:
    made = task(name, path, **settings)
    found = all_problems(made)
    assert len(found) == problems
    assert made.problems("test")
    sample = found[::5]
    responses = [witness_response(p) for p in sample]
    assert all(responses)
    for verdicts in verify_many(made, sample, [r or "" for r in responses]):
        assert verdicts["accuracy"].correct
        assert verdicts["format"].correct
    close_judges()


def test_the_math_test_set_holds_math500() -> None:
    made = task("math", "math/test.jsonl.gz", test_data=DATA / "math500/test.jsonl.gz", bad_rows="skip")
    assert len(made.problems("test")) == 500
    assert 500 <= made.intake.left_out["nearly a held-out one"] < 600
    families = {p.family for p in made.problems("test")}
    assert not any(p.family in families for p in made.problems("train"))


@pytest.mark.parametrize("path", ["mbpp/mbpp.jsonl.gz", "humaneval/test.jsonl.gz", "leetcode/train.jsonl.gz"])
def test_reference_programs_pass(path: str) -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    made = task("code", path, template="r1_zero")
    found = all_problems(made)
    sample = found[:: len(found) // 8][:8]
    verdicts = verify_many(made, sample, [witness_response(p) or "" for p in sample])
    assert [(v["accuracy"].reason, v["format"].score) for v in verdicts] == [("correct", 1)] * 8
    close_judges()

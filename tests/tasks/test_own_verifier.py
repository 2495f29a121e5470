"""Why this matters: "bring your own judge" has to hold from the recipe to the verdict, and to change nothing else.

Not exercised: what a function may return and how it fails (tests/verifiers/test_user.py).
"""

from __future__ import annotations

from pathlib import Path

from r1kit.config.tasks import CountdownSettings
from r1kit.tasks import make_task

JUDGE = """\
def any_number(problem, response):
    return any(character.isdigit() for character in response)

def broken(problem, response):
    raise RuntimeError("judge asleep")
"""


def test_the_recipes_function_judges_and_all_else_is_the_tasks(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text(JUDGE)
    plain = make_task(CountdownSettings(high=4))
    own = make_task(CountdownSettings(high=4, verifier=f"{path}:any_number"))
    problem = plain.problems("test")[0]
    assert list(own.problems("test")) == list(plain.problems("test"))
    assert own.name == plain.name
    assert own.blind_rate(problem) == plain.blind_rate(problem)
    response = "<think>hm</think><answer>1</answer>"
    assert own.statistics(problem, response) == plain.statistics(problem, response)
    found = own.verify(problem, response)
    assert found["accuracy"].score == 1.0
    assert found["format"] == plain.verify(problem, response)["format"]
    assert not plain.verify(problem, response)["accuracy"].correct
    assert own.verify(problem, "none")["accuracy"].score == 0.0


def test_a_judge_that_fails_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text(JUDGE)
    task = make_task(CountdownSettings(high=4, verifier=f"{path}:broken"))
    assert task.verify(task.problems("test")[0], "1")["accuracy"].outcome == "error"

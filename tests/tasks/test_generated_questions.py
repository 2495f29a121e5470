"""Why this matters: a generated puzzle with two solutions marks right answers wrong, and one with the training
puzzle's statements under other names is no test.

Not exercised: the checks of reasoning-gym's kinds and what an answer may look like (tests/verifiers).
"""

from __future__ import annotations

import sys

import pytest

from r1kit.config import ConfigError, UserError
from r1kit.records import Problem
from r1kit.tasks import knights_knaves, make_task, witness_response
from r1kit.tasks.knights_knaves import NAMES, question
from r1kit.verifiers import solve

from .question_files import task_settings

SMALL = {"train_problems": 120, "test_problems": 30}


def knights(**settings: object) -> dict[str, list[Problem]]:
    task = make_task(task_settings(name="knights_knaves", **{**SMALL, **settings}))
    return {side: list(task.problems(side)) for side in ("train", "test")}


def test_every_puzzle_has_one_solution_and_its_own_family() -> None:
    sides = knights()
    assert (len(sides["train"]), len(sides["test"])) == (120, 30)
    families = [p.family for side in sides.values() for p in side]
    assert len(set(families)) == 150
    task = make_task(task_settings(name="knights_knaves", **SMALL))
    for problem in (*sides["train"], *sides["test"]):
        gold = problem.payload["gold"]
        assert len(solve(gold["statements"])) == 1
        assert len(gold["names"]) == problem.difficulty
        assert 3 <= len(gold["names"]) <= 5
        right = witness_response(problem)
        assert right is not None
        assert task.verify(problem, right)["accuracy"].correct
        swapped = right.replace("knight", "KNAVE").replace("knave", "knight")
        assert task.verify(problem, swapped)["accuracy"].reason == "wrong"
        assert task.blind_rate(problem) == 0.5 ** len(gold["names"])


def test_puzzles_are_the_same_everywhere_and_others_under_another_seed() -> None:
    assert [p.to_json() for p in knights()["test"]] == [p.to_json() for p in knights()["test"]]
    assert {p.family for p in knights(seed=1)["test"]} != {p.family for p in knights()["test"]}
    more = knights(train_problems=240)
    assert {p.family for p in knights()["train"]} <= {p.family for p in more["train"]}


def test_few_puzzles_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knights_knaves, "PATIENCE", 500)
    sides = knights(people=[2, 2], train_problems=5000, test_problems=5000)
    assert 20 < len(sides["train"]) < 1000


def test_statements_in_words() -> None:
    statements = (
        ("<=>", ("telling-truth", 1), ("not", ("lying", 2))),
        ("->", ("lying", 0), ("and", ("telling-truth", 2), ("lying", 1))),
        ("not", ("or", ("lying", 0), ("telling-truth", 1))),
    )
    assert question(("Ada", "Ben", "Kira"), statements) == (
        "On an island live knights, who always tell the truth, and knaves, who always lie. You meet Ada, Ben "
        "and Kira.\n"
        'Ada says: "Ben is a knight if and only if (it is not true that Kira is a knave)."\n'
        'Ben says: "if Ada is a knave, then (Kira is a knight and Ben is a knave)."\n'
        'Kira says: "it is not true that (Ada is a knave or Ben is a knight)."\n'
        "Who is a knight and who is a knave? Answer in this form: Ada is a knight, Ben is a knave."
    )
    assert len(NAMES) == len({name.casefold() for name in NAMES})


def test_questions_of_reasoning_gym() -> None:
    pytest.importorskip("reasoning_gym", reason="questions of reasoning-gym need the extra `tasks`")
    kinds = {"spell_backward": {"max_word_len": 6}, "countdown": {}}
    task = make_task(task_settings(name="reasoning_gym", kinds=kinds, train_problems=60, test_problems=12))
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (60, 12)
    assert {p.source for p in train} == {"reasoning_gym/spell_backward", "reasoning_gym/countdown"}
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert not {p.family for p in train} & {p.family for p in test}
    for problem in (*train, *test):
        right = witness_response(problem)
        assert right is not None
        assert task.verify(problem, f"<think>hm</think>{right}")["accuracy"].correct
        assert task.verify(problem, "nonsense")["accuracy"].score == 0


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["rush_hour"], "task.kinds.rush_hour: reasoning-gym's rush_hour is denied: "),
        (["chess"], "task.kinds.chess: reasoning-gym's 'chess' is not known here"),
        ({"sudoku": {"max_x": 6}}, "task.kinds.sudoku: .*unexpected keyword argument 'max_x'"),
    ],
)
def test_kinds_that_cannot_be_judged_are_refused(kinds: object, message: str) -> None:
    pytest.importorskip("reasoning_gym", reason="questions of reasoning-gym need the extra `tasks`")
    with pytest.raises(UserError, match=message):
        make_task(task_settings(name="reasoning_gym", kinds=kinds)).problems("train")


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match="pip install reasoning-gym"):
        make_task(task_settings(name="reasoning_gym", kinds="sudoku")).problems("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "reasoning_gym", "kinds": ["a", {"b": {}}]}, "a list holds names"),
        ({"name": "reasoning_gym", "kinds": {}}, "task.kinds"),
        ({"name": "knights_knaves", "people": [1, 3]}, "within|expected .fewest, most. with 2 <= fewest"),
    ],
)
def test_settings_that_ask_for_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_settings(**settings)

"""Why this matters: the quick start's numbers rest on this task: that held-out problems share no multiset
with training, that each one can be solved, that blind guessing earns little, and that only right answers
score.

Not exercised: the search itself (test_search), the expression grammar (verifiers/test_expression).
"""

from __future__ import annotations

import pytest

from r1kit.config.tasks import CountdownSettings
from r1kit.records import Problem
from r1kit.tasks import Countdown, make_task
from r1kit.tasks.countdown import DRAWN, family


def settings(**knobs: object) -> CountdownSettings:
    return CountdownSettings(**{"high": 10, **knobs})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def task() -> Countdown:
    return Countdown(settings(high=15))


def test_splits_share_no_multiset(task: Countdown) -> None:
    train, test = task.problems("train"), task.problems("test")
    assert not {p.family for p in train} & {p.family for p in test}
    assert len({p.id for p in (*train, *test)}) == len(train) + len(test)
    assert {p.split for p in train} == {"train"}
    assert len(test) >= 512
    # Every multiset of 1..15 is on one side: 15 * 16 * 17 / 6.
    assert len({p.family for p in (*train, *test)}) == 680


def test_every_problem_is_solvable_and_scores(task: Countdown) -> None:
    for problem in (*task.problems("test"), *task.problems("train")[:500]):
        response = f"<think>so</think><answer>{problem.metadata['witness']}</answer>"
        verdicts = task.verify(problem, response)
        assert verdicts["accuracy"].correct, problem
        assert verdicts["format"].correct
        assert problem.family == family(problem.payload["numbers"])


def test_every_reachable_target_is_a_problem(task: Countdown) -> None:
    found = sorted(p.payload["target"] for p in task.problems("train") if p.family == "3,5,6")
    assert found == task.targets((3, 5, 6))
    assert found[0] >= 1
    assert found[-1] <= 99


@pytest.mark.parametrize("high", [10, 15])
def test_blind_guesses_earn_little(high: int) -> None:
    task = Countdown(settings(high=high))
    for split in ("train", "test"):
        rates = [task.blind_rate(p) for p in task.problems(split)]
        assert 0 < sum(rates) / len(rates) <= 0.082


def test_problems_are_deterministic_and_capped() -> None:
    whole = Countdown(settings()).problems("test")
    assert whole == Countdown(settings()).problems("test")
    assert Countdown(settings(test_problems=20)).problems("test") == whole[:20]
    assert {p.family for p in Countdown(settings(seed=1)).problems("test")} != {p.family for p in whole}


def test_compact_prompt(task: Countdown) -> None:
    problem = task.problems("test")[0]
    numbers, target = problem.payload["numbers"], problem.payload["target"]
    assert [m.to_json() for m in problem.prompt] == [
        {"role": "text", "content": f"Q:{','.join(map(str, numbers))}>{target}\n"}
    ]
    assert problem.prefill == ""
    assert Problem.from_json(problem.to_json()) == problem


def test_wide_ranges_are_drawn() -> None:
    knobs = {"numbers": (3, 6), "high": 99, "max_value": 999, "train_problems": 40, "test_problems": 20}
    task = Countdown(settings(**knobs))
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (40, 20)
    assert not {p.family for p in train} & {p.family for p in test}
    assert {len(p.payload["numbers"]) for p in train} == {3, 4, 5, 6}
    assert all(task.verify(p, f"<answer>{p.metadata['witness']}</answer>")["accuracy"].correct for p in test)
    with pytest.raises(ValueError, match="too many multisets"):
        task.multisets("train")
    assert DRAWN["test"] >= 512


def test_a_cap_above_what_there_is_ends() -> None:
    # 12,376 multisets of six numbers are drawn, not listed; with a tiny test share few pairs exist.
    knobs = {"numbers": (6, 6), "high": 12, "test_share": 0.0002, "test_problems": 10_000}
    found = Countdown(settings(**knobs)).problems("test")
    assert 0 < len(found) < 10_000
    assert len({p.id for p in found}) == len(found)


@pytest.mark.parametrize(
    ("response", "accuracy", "well_formed"),
    [
        ("<think>x</think><answer>(4*4)-3</answer>", "correct", True),
        ("<think>x</think><answer>4*4-3</answer>", "correct", True),
        ("<think>x</think><answer>4+4-3</answer>", "wrong", True),
        ("<think>x</think><answer>13</answer>", "wrong", True),
        ("<think>x</think><answer>4.4*3</answer>", "unparsable", True),
        ("<think>x</think><answer>" + "(" * 2000 + "</answer>", "over_limit", True),
        ("<answer>(4*4)-3</answer>", "correct", False),
        ("<think>x<answer>(4*4)-3</answer>", "no_answer", False),
        ("<think>x</think>(4*4)-3</answer>", "no_answer", False),
        ("A:(4*4)-3", "no_answer", False),
    ],
)
def test_verdicts(task: Countdown, response: str, accuracy: str, well_formed: bool) -> None:
    problem = Problem("p", task.problems("test")[0].prompt, "countdown", {"numbers": [3, 4, 4], "target": 13})
    verdicts = task.verify(problem, response)
    assert verdicts["accuracy"].reason == accuracy
    assert verdicts["format"].correct == well_formed


def test_a_rational_way_counts() -> None:
    """The generator keeps to integers; a response may go through fractions."""
    task = Countdown(settings())
    problem = Problem("p", task.problems("test")[0].prompt, "countdown", {"numbers": [3, 3, 8, 8], "target": 24})
    assert task.verify(problem, "<answer>8/(3-8/3)</answer>")["accuracy"].correct


def test_tinyzero_takes_an_answer_inside_open_thinking() -> None:
    task = Countdown(settings(template="tinyzero"))
    problem = task.problems("test")[0]
    answer = f"<answer>{problem.metadata['witness']}</answer>"
    open_thinking = task.verify(problem, f"let me see {answer}")
    assert (open_thinking["accuracy"].correct, open_thinking["format"].correct) == (True, False)
    assert task.verify(problem, f"let me see</think>\n{answer}")["format"].correct


@pytest.mark.parametrize(
    "knobs",
    [{"numbers": (2, 3)}, {"numbers": (3, 7)}, {"low": 5, "high": 4}, {"max_value": 9}, {"test_share": 0.0}],
)
def test_impossible_settings_are_refused(knobs: dict[str, object]) -> None:
    # Unvalidated on purpose: the task must hold on its own.
    unchecked = settings().model_copy(update=knobs)
    with pytest.raises(ValueError, match="expected"):
        Countdown(unchecked)


def test_unknown_tasks_are_refused() -> None:
    assert isinstance(make_task(settings()), Countdown)
    with pytest.raises(ValueError, match=r"sudoku.*countdown, multiplication"):
        make_task(settings().model_copy(update={"name": "sudoku"}))

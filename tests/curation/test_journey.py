"""Journeys and shortcuts: true in every line, and alike in everything but their wrong turns.

Why this matters: a comparison of two kinds of data says what its author thinks only where nothing else differs; a
journey with a false line, or a wrong attempt that is right, teaches the opposite of what it is for.

Not exercised here: learning from them (tests/recipes/test_journey.py; docs/results.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1kit.config import CountdownSettings, parse_recipe
from r1kit.config.data import DataSettings
from r1kit.config.errors import ConfigError
from r1kit.config.journey import JourneySettings
from r1kit.curation.journey import journey, write_journeys
from r1kit.records import Problem
from r1kit.tasks.behaviour import find_attempts
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.traces import read_traces
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder

TASK = Countdown(CountdownSettings(high=6, test_share=0.3))
WIDE = Countdown(CountdownSettings(numbers=(5, 6), high=30, test_share=0.3, train_problems=4, test_problems=4))


def settings(**changes: Any) -> JourneySettings:
    return JourneySettings.model_validate(changes)


def written(problem: Problem, task: Countdown = TASK, seed: int = 0, **changes: Any) -> str:
    return journey(problem, task, settings(**changes), seed).response.content


def check(problem: Problem, task: Countdown, text: str, trials: int) -> None:
    """Every line holds, all attempts but the last miss, none comes twice, and the answer has full marks."""
    assert all(verdict.correct for verdict in task.verify(problem, text).values())
    attempts, target = find_attempts(text), problem.payload["target"]
    assert len(attempts) == trials + 1
    assert all(a.arithmetic_right() and a.goal == target for a in attempts)
    assert [a.verdict for a in attempts] == ["no"] * trials + ["yes"]
    assert all((a.value() == target) == (a.verdict == "yes") for a in attempts)
    assert len({a.expression for a in attempts}) == len(attempts)
    assert f"<answer>{attempts[-1].expression}</answer>" in text


def test_both_forms_of_every_problem_hold_and_end_alike() -> None:
    wanted = range(9)
    for number, problem in enumerate(TASK.problems("train")[:200]):
        trials = wanted[number % 9]
        whole = written(problem, trials=(trials, trials), wait=0.0)
        short = written(problem, form="shortcut")
        check(problem, TASK, short, 0)
        check(problem, TASK, whole, trials)
        assert whole.endswith(short.removeprefix("<think>"))


def test_more_than_four_numbers_are_drawn() -> None:
    for problem in WIDE.problems("train"):
        check(problem, WIDE, written(problem, WIDE, trials=(3, 3)), 3)
        check(problem, WIDE, written(problem, WIDE, form="shortcut"), 0)


def test_the_number_of_trials_lies_within_its_bounds_and_varies() -> None:
    found = [journey(p, TASK, settings(trials=(1, 4)), 0).provenance["trials"] for p in TASK.problems("train")[:200]]
    assert set(found) == {1, 2, 3, 4}


def test_wait_stands_before_retries_only() -> None:
    problem = TASK.problems("train")[0]
    lines = written(problem, trials=(5, 5), wait=1.0).splitlines()
    assert [line.startswith("wait ") for line in lines] == [False] + [True] * 5


def test_the_draws_go_by_seed_and_problem() -> None:
    problem = TASK.problems("train")[0]
    assert written(problem, seed=1) == written(problem, seed=1)
    assert len({written(problem, seed=seed, trials=(4, 4)) for seed in range(5)}) > 1


@pytest.mark.parametrize("template", ["tinyzero", "r1_zero"])
def test_a_prompt_that_opens_the_thought_is_gone_on_with(template: str) -> None:
    task = Countdown(CountdownSettings(high=6, test_share=0.3, template=template))
    for problem in task.problems("train")[:5]:
        text = written(problem, task, trials=(2, 2))
        check(problem, task, text, 2)
        assert text.startswith("<think>") == (template == "r1_zero")


def test_in_a_chat_the_thought_stands_apart() -> None:
    task = Countdown(CountdownSettings(high=6, test_share=0.3, template="chat"))
    response = journey(task.problems("train")[0], task, settings(trials=(2, 2)), 0).response
    assert [a.verdict for a in find_attempts(response.reasoning)] == ["no", "no", "yes"]
    assert response.content.startswith("<answer>")


def test_words_that_the_assistants_turn_begins_with_are_part_of_the_answer() -> None:
    task = Countdown(CountdownSettings(high=6, test_share=0.3, template="tinyzero_chat"))
    problem = task.problems("train")[0]
    text = written(problem, task, trials=(2, 2))
    assert text.startswith(problem.prefill)
    check(problem, task, text.removeprefix(problem.prefill), 2)


def test_the_stage_writes_what_sft_reads(tmp_path: Path) -> None:
    stage = settings(form="journey", problems=20)
    rest = {"task": TASK, "world": World.single(), "recorder": NullRecorder(), "directory": tmp_path}
    outcome = write_journeys(stage, stage="journeys", seed=3, **rest)
    assert outcome.data is not None
    traces = list(read_traces(DataSettings(path=str(outcome.data))))
    assert traces == [journey(p, TASK, stage, 3) for p in TASK.problems("train")[:20]]
    assert outcome.metrics == {"answers": 20.0, "trials": float(sum(t.provenance["trials"] for t in traces))}


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValidationError, match="fewest <= most"):
        settings(trials=(3, 1))
    with pytest.raises(ConfigError, match="writes searches of countdown; the task is multiplication"):
        parse_recipe("name: x\ntask: multiplication\nstages: {j: {kind: journey}}\n", "x.yaml")

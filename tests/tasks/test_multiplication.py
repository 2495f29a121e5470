"""Why this matters: the second task shows that the chain is not tuned to one; its split must keep every
working of a held-out product out of training as well.

Not exercised: the pretraining text about it (see test_corpus).
"""

from __future__ import annotations

import pytest

from r1kit.config.tasks import MultiplicationSettings
from r1kit.tasks import Multiplication


def settings(**knobs: object) -> MultiplicationSettings:
    return MultiplicationSettings(**{"digits_a": 2, "digits_b": 2, **knobs})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def task() -> Multiplication:
    return Multiplication(settings())


def test_splits_share_no_pair(task: Multiplication) -> None:
    train, test = task.problems("train"), task.problems("test")
    assert len(train) + len(test) == 90 * 90
    assert len(test) >= 512
    assert not {p.family for p in train} & {p.family for p in test}
    # 12 * 34 and 34 * 12 are one family.
    assert {p.family for p in test} == {f"{min(a, b)}*{max(a, b)}" for a, b in map(factors, test)}


def factors(problem: object) -> tuple[int, int]:
    return problem.payload["a"], problem.payload["b"]  # type: ignore[attr-defined]


def test_round_factors_are_never_held_out(task: Multiplication) -> None:
    assert all(n % 10 for p in task.problems("test") for n in factors(p))
    assert not task.holds_out(12, 340)  # other lengths are no problems of this task


def test_order_and_cap(task: Multiplication) -> None:
    assert Multiplication(settings(test_problems=10)).problems("test") == task.problems("test")[:10]
    drawn = Multiplication(settings(digits_a=3, digits_b=4, train_problems=50, test_problems=30))
    assert len(drawn.problems("train")) == 50
    assert all(drawn.holds_out(*factors(p)) for p in drawn.problems("test"))


@pytest.mark.parametrize(
    ("answer", "reason"), [("{}", "correct"), (" {} ", "correct"), ("{}1", "wrong"), ("x", "unparsable")]
)
def test_verdicts(task: Multiplication, answer: str, reason: str) -> None:
    problem = task.problems("test")[0]
    response = f"<think>so</think><answer>{answer.format(problem.payload['product'])}</answer>"
    verdicts = task.verify(problem, response)
    assert verdicts["accuracy"].reason == reason
    assert verdicts["format"].correct
    assert task.verify(problem, "12*34")["accuracy"].reason == "no_answer"


def test_one_digit_factors_start_at_two() -> None:
    task = Multiplication(settings(digits_b=1))
    assert {p.payload["b"] for p in task.problems("train")} == set(range(2, 10))
    assert task.problems("train")[0].prompt[0].content.endswith("\n")


def test_blind_rate_is_about_nothing(task: Multiplication) -> None:
    rates = [task.blind_rate(p) for p in task.problems("test")[:50]]
    assert 0 < max(rates) < 0.005


@pytest.mark.parametrize("knobs", [{"digits_a": 1, "digits_b": 1}, {"digits_a": 7}, {"test_share": 1.0}])
def test_impossible_settings_are_refused(knobs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Multiplication(settings().model_copy(update=knobs))

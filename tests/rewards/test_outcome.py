"""Why this matters: the reward is the objective. Every shape of right and wrong is held to a table worked by hand, and
every shape, whatever its settings, has to prefer right to wrong.

Not exercised: the verdicts themselves (tests/verifiers), how a recipe names these parts (test_compose).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.records import Verdict
from r1kit.rewards import outcome

from .helpers import LOST, NO_ANSWER, RIGHT, WRONG

HALF = Verdict.scored(0.5, "wrong")
NOT_COMPILED = Verdict.scored(0, "unparsable")
scores = st.floats(0, 1)


def scored(score: float) -> Verdict:
    return Verdict.scored(score, "correct" if score == 1 else "wrong")


@pytest.mark.parametrize(
    ("settings", "right", "wrong", "no_answer"),
    [
        ({}, 1.0, 0.0, 0.0),
        ({"wrong": -0.5, "no_answer": -1.0}, 1.0, -0.5, -1.0),
        ({"wrong": -1.0}, 1.0, -1.0, -1.0),
    ],
)
def test_accuracy_by_hand(settings: dict[str, float], right: float, wrong: float, no_answer: float) -> None:
    assert outcome.accuracy(RIGHT, **settings) == right
    assert outcome.accuracy(WRONG, **settings) == wrong
    assert outcome.accuracy(NO_ANSWER, **settings) == no_answer
    assert outcome.accuracy(HALF, **settings) == (right + wrong) / 2


@given(st.floats(-10, 10), st.floats(-10, 10), scores, scores)
def test_accuracy_rises_with_the_score_and_keeps_its_range(a: float, b: float, one: float, other: float) -> None:
    wrong, right = sorted((a, b))
    low, high = (outcome.accuracy(scored(s), right=right, wrong=wrong) for s in sorted((one, other)))
    assert wrong - 1e-9 <= low <= high + 1e-9
    assert high <= right + 1e-9


@given(scores)
def test_plain_accuracy_is_the_score_to_the_bit(score: float) -> None:
    assert outcome.accuracy(scored(score)) == score


def test_consolation_is_for_the_wrong_alone() -> None:
    assert outcome.consolation(RIGHT, RIGHT) == 0.0
    assert outcome.consolation(RIGHT, WRONG) == 1.0
    assert outcome.consolation(WRONG, WRONG) == 0.0


@given(scores, scores)
def test_consolation_never_makes_wrong_worth_as_much_as_right(form: float, score: float) -> None:
    value = outcome.consolation(scored(form), scored(score))
    assert 0.0 <= value <= 1.0
    assert score + 0.1 * value <= 1.0


def test_binary_code_by_hand() -> None:
    assert [outcome.binary_code(scored(s)) for s in (0.0, 0.5, 0.99, 0.991, 1.0)] == [0, 0, 0, 1, 1]
    assert outcome.binary_code(RIGHT, above=1.0) == 1.0


@given(scores, scores)
def test_binary_code_pays_all_tests_whatever_the_threshold(score: float, above: float) -> None:
    assert outcome.binary_code(RIGHT, above=above) == 1.0
    assert outcome.binary_code(scored(score), above=above) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("mode", "right", "half"), [("pass_fail", 1.0, 0.0), ("partial", 1.0, 0.5), ("weighted_sum", 1.1, 0.05)]
)
def test_codeforces_by_hand(mode: str, right: float, half: float) -> None:
    assert outcome.codeforces(RIGHT, mode=mode) == pytest.approx(right)
    assert outcome.codeforces(HALF, mode=mode) == pytest.approx(half)
    assert outcome.codeforces(WRONG, mode=mode) == 0.0
    assert outcome.codeforces(NO_ANSWER, mode=mode) == -1.0
    assert outcome.codeforces(NOT_COMPILED, mode=mode) == -0.1


@given(scores, st.sampled_from(["pass_fail", "partial", "weighted_sum"]))
def test_any_program_that_runs_is_worth_more_than_none(score: float, mode: str) -> None:
    value = outcome.codeforces(scored(score), mode=mode)
    assert outcome.codeforces(NO_ANSWER, mode=mode) < outcome.codeforces(NOT_COMPILED, mode=mode) < value <= 1.1


@given(scores)
def test_inverted_mirrors_the_score(score: float) -> None:
    assert outcome.inverted(scored(score)) == 1.0 - score


def test_what_has_no_score_has_no_value() -> None:
    with pytest.raises(ValueError, match="error \\(worker_lost\\)"):
        outcome.accuracy(LOST)


def test_coins_are_fair_keyed_and_repeatable() -> None:
    tosses = [outcome.coin(0.3, 7, "random", step, f"p{i}", 0) for step in range(50) for i in range(100)]
    # 5,000 tosses of 0.3: four standard deviations are 0.026.
    assert sum(tosses) / len(tosses) == pytest.approx(0.3, abs=0.026)
    assert [outcome.coin(0.5, 1, i) for i in range(64)] != [outcome.coin(0.5, 2, i) for i in range(64)]
    # One toss worked out apart: the first eight bytes of BLAKE2b("3\x1fx") as a fraction are 0.72303.
    assert outcome.coin(0.724, 3, "x") == 1.0
    assert outcome.coin(0.722, 3, "x") == 0.0


@given(st.integers(), st.text(), st.integers(0, 99))
def test_certain_coins(seed: int, problem: str, sample: int) -> None:
    assert outcome.coin(0.0, seed, problem, sample) == 0.0
    assert outcome.coin(1.0, seed, problem, sample) == 1.0

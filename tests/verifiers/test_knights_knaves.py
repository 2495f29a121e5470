"""Why this matters: a puzzle with no or several solutions teaches nonsense, and "A is a knight and a knave" must not be
right about anybody. Exercised: the solver against plain enumeration and against 5,000 published golds, every way to say
who is what, contradictions, gaps, statements that are no statements.

Not exercised: the wording of the quiz; only its statements are read.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest

from r1kit.verifiers.knights_knaves import PuzzleError, judge_knights_knaves, judge_puzzle, read_assignment, solve

from .data_rows import data_rows

NAMES = ["Zoey", "Ava", "Zoe"]
# Zoey: Ava lies. Ava: Zoe and Zoey are alike. Zoe: Zoey lies and Ava does not. Only Zoey can be a knight.
STATEMENTS = (
    ("lying", 1),
    ("<=>", ("telling-truth", 2), ("telling-truth", 0)),
    ("and", ("lying", 0), ("telling-truth", 1)),
)


def holds(statement: Any, knights: tuple[bool, ...]) -> bool:
    operator, *operands = statement
    if operator == "telling-truth":
        return knights[operands[0]]
    if operator == "lying":
        return not knights[operands[0]]
    values = [holds(operand, knights) for operand in operands]
    return {
        "not": lambda: not values[0],
        "and": lambda: all(values),
        "or": lambda: any(values),
        "->": lambda: not values[0] or values[-1],
        "<=>": lambda: values[0] == values[-1],
    }[operator]()


def enumerate_solutions(statements: Any) -> list[tuple[bool, ...]]:
    every = itertools.product((False, True), repeat=len(statements))
    return [k for k in every if all(holds(s, k) == k[i] for i, s in enumerate(statements))]


def test_solver_against_enumeration() -> None:
    rng = random.Random(0)

    def statement(people: int, depth: int) -> Any:
        if depth == 0 or rng.random() < 0.3:
            return (rng.choice(["telling-truth", "lying"]), rng.randrange(people))
        operator = rng.choice(["not", "and", "or", "->", "<=>"])
        count = {"not": 1, "and": rng.randint(2, 3), "or": rng.randint(2, 3)}.get(operator, 2)
        return (operator, *(statement(people, depth - 1) for _ in range(count)))

    for _ in range(400):
        people = rng.randint(1, 6)
        statements = tuple(statement(people, 3) for _ in range(people))
        assert sorted(solve(statements)) == sorted(enumerate_solutions(statements)), statements
        assert solve(repr(statements)) == solve(statements)


def test_every_published_gold_is_valid_and_unique() -> None:
    rows = data_rows("knights_knaves/train.jsonl.gz") + data_rows("knights_knaves/test.jsonl.gz")
    for row in rows:
        assert judge_puzzle(row["statements"], row["solution"]).correct, row["quiz"]
    for row in rows[::10]:
        assert judge_knights_knaves(row["solution_text"], row["names"], row["statements"]).correct
        one, many = row["solution_text"].split(",", 1)
        assert judge_knights_knaves(one, row["names"], row["statements"]).reason == "wrong"
        assert judge_knights_knaves(many, row["names"], row["statements"]).reason == "wrong"


@pytest.mark.parametrize(
    "answer",
    [
        "Zoey is a knight, Ava is a knave, and Zoe is a knave.",
        "(1) Zoey is a knight\n(2) Ava is a knave\n(3) Zoe is a knave",
        "**Zoey**: Knight\n**Ava**: Knave\n**Zoe**: Knave",
        "zoey - knight; ava - knave; zoe - knave",
        "| Zoey | knight |\n| Ava | knave |\n| Zoe | knave |",
        "Zoey is a knight; Ava and Zoe are knaves.",
        "Knights: Zoey\nKnaves: Ava, Zoe",
        "Zoey is not a knave. Ava is not a knight. Zoe is a liar.",
        "Zoey是骑士，Ava是无赖，Zoe是骗子。",
        "Zoey is a truth-teller, and Ava and Zoe are both liars",
    ],
)
def test_right_answers(answer: str) -> None:
    assert solve(STATEMENTS) == [(True, False, False)]
    assert judge_knights_knaves(answer, NAMES, STATEMENTS).correct


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Zoey is a knight, Ava is a knave, and Zoe is a knight.", "wrong"),
        ("Zoey is a knight, Ava is a knave.", "wrong"),
        ("Zoey is a knight, Ava is a knave, Zoe is a knave, Zoe is a knight.", "wrong"),
        ("Zoey is a knight and Ava is a knave and Zoe is a knave. Or: Ava is a knight.", "wrong"),
        ("If Zoey is a knight, Ava is a knave and Zoe is a knave.", "unparsable"),
        ("Either Zoey is a knight or not.", "unparsable"),
        ("Zoey, Ava, Zoe", "unparsable"),
        ("knight knave knave", "unparsable"),
        ("", "no_answer"),
        ("Zoey is a knight. " * 5000, "over_limit"),
    ],
)
def test_wrong_answers(answer: str, reason: str) -> None:
    verdict = judge_knights_knaves(answer, NAMES, STATEMENTS)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("score", 0.0, reason)


@pytest.mark.parametrize(
    "statements",
    [
        "",
        "os.system('x')",
        "(" * 5000,
        (("telling-truth", 5),),
        (("telling-truth", True),),
        (("xor", ("lying", 0), ("lying", 0)),),
        (("not",),),
        (3,),
        (),
        (("lying", 0),) * 17,
        (("lying", 0),),  # nobody can say that
        "[" * 15_000,
    ],
)
def test_what_is_no_puzzle_is_a_skip(statements: Any) -> None:
    assert judge_knights_knaves("A is a knight", ["A"], statements).reason == "gold_invalid"


def test_golds_that_do_not_hold_or_are_not_alone() -> None:
    assert judge_puzzle(STATEMENTS, (True, True, False)).reason == "gold_invalid"
    assert "2 solutions" in str(judge_puzzle((("telling-truth", 0),), (True,)).normal_form)
    with pytest.raises(PuzzleError, match="person from 0 to 0"):
        solve((("lying", 1),))
    assert judge_knights_knaves("A is a knight", ["A", "a"], (("lying", 1), ("lying", 0))).reason == "gold_invalid"


@pytest.mark.parametrize(
    "text", ["Zoey " * 4000, "Zoey, " * 3000, "Zoey and " * 2000, "knights: " * 2000 + "Zoey, " * 300]
)
def test_pathological_answers_are_cheap(text: str) -> None:
    started = time.process_time()
    read_assignment(text, [*NAMES, "A", "B", "C", "D"])
    assert time.process_time() - started < 1


def test_the_largest_puzzle_is_cheap() -> None:
    started = time.process_time()
    assert len(solve([("telling-truth", i) for i in range(16)])) == 1 << 16
    assert time.process_time() - started < 3

"""Why this matters: this evaluator is the reward. Whatever it wrongly accepts, a policy will find; whatever
it wrongly refuses, a policy is punished for. The known hacks of public countdown scorers are listed one by
one; random expressions are compared with Python's own arithmetic on fractions.

Not exercised: extraction of the answer from a response (see test_tags).
"""

from __future__ import annotations

import random
import time
from fractions import Fraction
from itertools import permutations

import pytest

from r1kit.verifiers import (
    ExpressionError,
    ExpressionLimitError,
    judge_expression,
    judge_integer,
    parse_expression,
)
from r1kit.verifiers.expression import MAX_CHARS, MAX_DEPTH, MAX_DIGITS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3+5*6", 33),
        ("(3+5)*6", 48),
        ("8-3-2", 3),
        ("8/4/2", 1),
        ("2*(3+4)*5", 70),
        (" ( 1 + 2 )\n/ 3 ", 1),
        ("((7))", 7),
        ("0*5", 0),
        ("-3+5", 2),
        ("2*(-3+5)", 4),
    ],
)
def test_values(text: str, value: int) -> None:
    assert parse_expression(text).value == value


def test_rationals_are_exact() -> None:
    assert parse_expression("1/3+1/6").value == Fraction(1, 2)
    # In floating point this is 23.999999999999993: a tolerance would be needed, and would let near misses in.
    assert parse_expression("8/(3-8/3)").value == 24


HACKS = [
    "3.5*2",  # digits glued by a decimal point
    "3.0+5",
    ".5+3",
    "2**3",
    "2 ** 3",
    "7//2",
    "9**9**9**9",
    "1e3",
    "0x10",
    "٣+5",  # digits that are not ASCII
    "３+5",
    "3²",
    "3×5",
    "007+3",
    "3 5",
    "3(5)",
    "(3)(5)",
    "+3+5",
    "3++5",
    "3--5",
    "--3",
    "3*-5",
    "3+",
    "()",
    "",
    "   ",
    "(3+5",
    "3+5)",
    "3+5=8",
    "3,5",
    "3;5",
    "__import__('os')",
    "3+5 # 13",
    "1/0",
    "3/(5-5)",
    "True+3",
    "3 if 1 else 5",
    "3\u00a0+5",
    "3+5 = 8",
    "3+5 is 8",
    "3+5 (which is 8)",
    "3+5.",
    "3+5, 2",
    "3+5!",
    "3^2",
    "5%3",
    "5C2",
    "sqrt(5)+3",
    "3_5",
    "1_000",
    "~3",
    "-+3",
    "(-(-3",
    "3-+5",
    "3−5",
    "$3+5$",
    "\\frac{3}{5}",
    "3+5\\n2",
    "lambda: 3",
    "<answer>3+5</answer>",
]


@pytest.mark.parametrize("text", HACKS)
def test_hacks_are_no_expressions(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_expression(text)
    verdict = judge_expression(text, [2, 3, 5], 7)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("score", 0.0, "unparsable")


@pytest.mark.parametrize(
    "text",
    [
        "1+" * MAX_CHARS + "1",
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "9" * (MAX_DIGITS + 1),
        "(" * 10_000_000,
    ],
)
def test_limits(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpressionLimitError):
        parse_expression(text)
    assert judge_expression(text, [1], 1).reason == "over_limit"
    assert time.process_time() - started < 0.5


def test_the_largest_text_within_limits_is_cheap() -> None:
    number = "9" * MAX_DIGITS
    text = "*".join([number] * ((MAX_CHARS + 1) // (MAX_DIGITS + 1)))
    started = time.process_time()
    assert parse_expression(text).value == int(number) ** len(text.split("*"))
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("answer", "score", "reason"),
    [
        ("(3+5)*6", 1.0, "correct"),
        ("6*(5+3)", 1.0, "correct"),
        ("(3+5)*6+0", 0.0, "wrong"),
        ("3*5+33", 0.0, "wrong"),
        ("48", 0.0, "wrong"),
        ("(3+5)*6*6/6", 0.0, "wrong"),
        ("35+6+7", 0.0, "wrong"),
        ("(3+5)+6", 0.0, "wrong"),
    ],
)
def test_numbers_must_be_used_exactly_once(answer: str, score: float, reason: str) -> None:
    verdict = judge_expression(answer, [3, 5, 6], 48)
    assert (verdict.score, verdict.reason, verdict.extracted) == (score, reason, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "3.5*2",  # 7, by gluing 3 and 5 with a point
        "35/(2+3)",  # 7, digits glued, 3 used again
        "2+5",  # 7, one number unused
        "2+5+3-3",  # 7, one number used twice
        "(2+5)*(3/3)",
        "2**3-5+4",
        "15//2",
        "-(-2-5)+3-3",
        "7",
        "2+5*1",
    ],
)
def test_seven_from_2_3_5_by_tricks(answer: str) -> None:
    verdict = judge_expression(answer, [2, 3, 5], 7)
    assert (verdict.outcome, verdict.score) == ("score", 0.0)


def test_a_leading_minus_reaches_nothing_new() -> None:
    """Signs can be moved out of an expression, so the unary minus that is read is notation, not a hack."""
    orders = list(permutations((4, 9, 13)))

    def values(*shapes: str) -> set[Fraction]:
        found = {parse_expression(shape.format(*order)).value for shape in shapes for order in orders}
        return {value for value in found if value > 0}

    with_minus = values("-{}+{}*{}", "-({}-{})*{}", "{}*(-{}+{})", "-({}-{}*{})", "(-{}-{})*(-{})", "{}/(-{}+{})")
    assert with_minus <= values("{}*{}-{}", "({}-{})*{}", "({}+{})*{}", "{}/({}-{})")


def test_repeated_numbers_count() -> None:
    assert judge_expression("4*4-3", [4, 4, 3], 13).correct
    assert not judge_expression("4*4-3", [4, 3], 13).correct


def test_against_fractions() -> None:
    """Random trees, printed with and without needless brackets, agree with exact arithmetic done apart."""
    rng = random.Random(0)

    def tree(depth: int) -> tuple[str, Fraction | None, int]:
        """Text, value (None: undefined), and the binding strength of its top operator."""
        if depth == 0 or rng.random() < 0.3:
            number = rng.randint(0, 20)
            return str(number), Fraction(number), 3
        op = rng.choice("+-*/")
        strength = 1 if op in "+-" else 2
        (a_text, a, a_strength), (b_text, b, b_strength) = tree(depth - 1), tree(depth - 1)
        if a_strength < strength or rng.random() < 0.2:
            a_text = f"({a_text})"
        if b_strength <= strength:
            b_text = f"({b_text})"
        value = None
        if a is not None and b is not None and not (op == "/" and b == 0):
            value = {"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a / b
        return f"{a_text}{op}{b_text}", value, strength

    for _ in range(500):
        text, value, _ = tree(4)
        if value is None:
            with pytest.raises(ExpressionError):
                parse_expression(text)
        else:
            assert parse_expression(text).value == value, text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("408", "correct"),
        (" 408\n", "correct"),
        ("1,408", "wrong"),
        ("409", "wrong"),
        ("0408", "unparsable"),
        ("408.0", "unparsable"),
        ("12*34", "unparsable"),
        ("4,08", "unparsable"),
        ("٤٠٨", "unparsable"),
        ("", "unparsable"),
        ("9" * 1000, "over_limit"),
    ],
)
def test_integers(answer: str, reason: str) -> None:
    assert judge_integer(answer, 408).reason == reason


def test_thousands_commas() -> None:
    assert judge_integer("187,812", 187812).correct
    assert judge_integer("187812", 187812).correct

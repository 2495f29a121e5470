"""An arithmetic evaluator of its own: exact rationals, four operators, nothing else.

Grammar (ASCII only, spaces and line breaks between tokens ignored):

    expression = ["-"] term { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = number | "(" expression ")"
    number     = "0" | nonzero digit { digit }

What that refuses, on purpose: a decimal point (`3.5*2` must not pass for the numbers 3, 5 and 2), `**` and
`//`, digits that are not ASCII, leading zeros, two numbers side by side, `2(3)`, a unary plus, and a unary
minus anywhere but at the start of an expression or just after "(" (`-3+5` is school notation, `3--5` and
`3*-5` are not). Length, depth and the size of a number are limited, so the cost of any text is bounded;
powers do not exist, so values stay small.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from r1kit.records import Verdict

MAX_CHARS = 512
MAX_DEPTH = 32
MAX_DIGITS = 12

_TOKEN = re.compile(r"[ \n\r\t]*(?:([0-9]+)|([-+*/()]))")
_REST = re.compile(r"[ \n\r\t]*\Z")


class ExpressionError(ValueError):
    """The text is not an expression of the grammar, or has no value."""


class ExpressionLimitError(ExpressionError):
    """The text is longer, deeper or holds a larger number than the limits of this module."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its exact value, its numbers from left to right, how many operators it has."""

    value: Fraction
    numbers: tuple[int, ...]
    operators: int


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_CHARS:
        raise ExpressionLimitError(f"{len(text)} characters, at most {MAX_CHARS} are read")
    tokens, position = [], 0
    while match := _TOKEN.match(text, position):
        number, symbol = match.groups()
        if number and len(number) > MAX_DIGITS:
            raise ExpressionLimitError(f"a number of {len(number)} digits, at most {MAX_DIGITS} are read")
        if number and number[0] == "0" and number != "0":
            raise ExpressionError(f"{number!r} has a leading zero")
        tokens.append(number or symbol)
        position = match.end()
    if not _REST.match(text, position):
        raise ExpressionError(f"unexpected character {text[position:].lstrip()[0]!r}")
    return tokens


class _Parser:
    """Recursive descent over the tokens; every method returns the exact value of what it read.

    Values stay plain integers while divisions are exact: most are, and a Fraction costs ten times as much.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.numbers: list[int] = []
        self.operators = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def expression(self) -> int | Fraction:
        negative = self.peek() == "-"
        if negative:
            self.take()
        value = self.term()
        value = -value if negative else value
        while self.peek() in ("+", "-"):
            self.operators += 1
            value = value + self.term() if self.take() == "+" else value - self.term()
        return value

    def term(self) -> int | Fraction:
        value = self.factor()
        while self.peek() in ("*", "/"):
            self.operators += 1
            operator = self.take()
            right = self.factor()
            if operator == "*":
                value = value * right
            elif right == 0:
                raise ExpressionError("division by zero")
            else:
                value = value // right if value % right == 0 else Fraction(value) / right
        return value

    def factor(self) -> int | Fraction:
        token = self.take()
        if token == "(":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ExpressionLimitError(f"brackets nested deeper than {MAX_DEPTH}")
            value = self.expression()
            if self.take() != ")":
                raise ExpressionError("a bracket is not closed")
            self.depth -= 1
            return value
        if not token.isdigit():
            raise ExpressionError(f"expected a number or a bracket, found {token or 'the end'!r}")
        self.numbers.append(int(token))
        return self.numbers[-1]


@lru_cache(maxsize=1 << 16)
def parse_expression(text: str) -> Expression:
    """Parse and evaluate `text`; ExpressionError, or its subclass for limits, where that cannot be done."""
    parser = _Parser(_tokens(text))
    value = parser.expression()
    if parser.peek():
        raise ExpressionError(f"unexpected {parser.peek()!r} after a complete expression")
    return Expression(Fraction(value), tuple(parser.numbers), parser.operators)


def judge_expression(answer: str, numbers: Iterable[int], target: int) -> Verdict:
    """Score 1 where `answer` uses each of `numbers` exactly once and equals `target` exactly, else 0.

    The reason says why: "unparsable", "over_limit" or "wrong" (other numbers, or another value).
    """
    voter = "expression"
    try:
        parsed = parse_expression(answer)
    except ExpressionLimitError:
        return Verdict.scored(0, "over_limit", extracted=answer[:MAX_CHARS], voter=voter)
    except ExpressionError:
        return Verdict.scored(0, "unparsable", extracted=answer, voter=voter)
    right = Counter(parsed.numbers) == Counter(numbers) and parsed.value == target
    return Verdict.scored(
        float(right),
        "correct" if right else "wrong",
        extracted=answer,
        normal_form=f"{parsed.value} from {','.join(map(str, sorted(parsed.numbers)))}",
        voter=voter,
    )


def judge_integer(answer: str, gold: int) -> Verdict:
    """Score 1 where `answer` is the integer `gold` in plain digits or with thousands commas, else 0."""
    voter = "integer"
    text = answer.strip(" \n\r\t")
    if len(text) > MAX_CHARS:
        return Verdict.scored(0, "over_limit", extracted=text[:MAX_CHARS], voter=voter)
    if not re.fullmatch(r"-?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:,[0-9]{3})+)", text):
        return Verdict.scored(0, "unparsable", extracted=text, voter=voter)
    value = text.replace(",", "")
    right = value == str(gold)
    reason = "correct" if right else "wrong"
    return Verdict.scored(float(right), reason, extracted=text, normal_form=value, voter=voter)

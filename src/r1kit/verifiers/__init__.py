"""Verifiers: from a response to a `Verdict` (score, skip or error), never a fake 0."""

from r1kit.verifiers.expression import (
    Expression,
    ExpressionError,
    ExpressionLimitError,
    judge_expression,
    judge_integer,
    parse_expression,
)
from r1kit.verifiers.tags import find_answer, judge_format

__all__ = [
    "Expression",
    "ExpressionError",
    "ExpressionLimitError",
    "find_answer",
    "judge_expression",
    "judge_format",
    "judge_integer",
    "parse_expression",
]

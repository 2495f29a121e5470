"""Jobs that worker processes of a test import: a verdict from wherever they run."""

from __future__ import annotations

from r1kit.verifiers.math import judge_math

# Decided by the exact tier; by math-verify; over a limit; a gold that nobody reads.
PAIRS = [
    (r"\frac{2}{4}", "0.5"),
    ("41 or 42", "42"),
    (r"\int_0^1 2x \, dx", "1"),
    (r"\int_0^1 2x \, dx", "2"),
    ("9^{9^{9^9}}", "42"),
    ("words", r"\frac{"),
]


def verdicts(_: object = None) -> list[tuple[str, float | None, str]]:
    found = [judge_math(prediction, gold) for prediction, gold in PAIRS]
    return [(v.outcome, v.score, v.reason) for v in found]

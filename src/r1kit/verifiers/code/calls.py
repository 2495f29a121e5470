"""Judging functions by calls whose expected values stay on this side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.sandbox.protocol import Sandbox
from r1kit.verifiers.code.asking import ask, said
from r1kit.verifiers.code.compare import largest_hashed, same_value
from r1kit.verifiers.code.inside import wire
from r1kit.verifiers.code.problem import CallTest, CodeProblem, Comparison
from r1kit.verifiers.code.report import NOT_RUN, TestReport, decided, met_limit, shown


def judge_calls(source: str, tests: Sequence[CallTest], problem: CodeProblem, sandbox: Sandbox) -> list[TestReport]:
    """A report for every call, in order.

    One process makes all calls. Unless one failure decides, calls behind one that ended the process are made in a
    fresh one, so that an endless loop costs one test and not those behind it.
    """
    first_decides = problem.scoring == "pass_fail"
    calls = [["call", ["entry"], wire.encode([list(t.args), dict(t.kwargs)])] for t in tests]
    reports: list[TestReport] = []
    while len(reports) < len(tests):
        answers = ask(source, calls[len(reports) :], problem, sandbox, stop=first_decides)
        share = answers.cpu_seconds / max(1, len(answers.lines))
        for line in answers.lines:
            reports.append(_report(line, tests[len(reports)], problem.comparison, share))
            if first_decides and decided(reports[-1]):
                return _padded(reports, len(tests))
        if answers.failure:
            reports.append(answers.failure)
            if first_decides or not answers.loaded or answers.failure.status == "sandbox_failed":
                break
    return _padded(reports, len(tests))


def _padded(reports: list[TestReport], length: int) -> list[TestReport]:
    return [*reports, *[NOT_RUN] * (length - len(reports))]


def _report(line: list[Any], test: CallTest, comparison: Comparison, cpu_seconds: float) -> TestReport:
    kind, *rest = line
    if kind == "raised":
        words = said(rest)
        return TestReport("over_limit" if met_limit(words) else "raised", detail=words, cpu_seconds=cpu_seconds)
    if kind == "object":
        return TestReport("wrong", detail="returned an object that is no data", cpu_seconds=cpu_seconds)
    try:
        value = wire.decode(rest[0], hashed_limit=largest_hashed(test.expected))
    except wire.WireError as error:
        return TestReport("wrong", detail=str(error), cpu_seconds=cpu_seconds)
    if same_value(value, test.expected, comparison):
        return TestReport("passed", 1.0, cpu_seconds=cpu_seconds)
    return TestReport("wrong", detail=f"returned {shown(value)}", cpu_seconds=cpu_seconds)

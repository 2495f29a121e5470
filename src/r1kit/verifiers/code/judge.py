"""From a response, or a source, to a verdict: the face of this package."""

from __future__ import annotations

import re
import time

from r1kit.records import Verdict
from r1kit.sandbox.protocol import Sandbox
from r1kit.verifiers.code.assertions import TestProgramError
from r1kit.verifiers.code.build import BuildCache, shared_cache
from r1kit.verifiers.code.calls import judge_calls
from r1kit.verifiers.code.extract import extract_code
from r1kit.verifiers.code.problem import CodeProblem
from r1kit.verifiers.code.programs import judge_programs
from r1kit.verifiers.code.report import CodeReport, GoldInvalidError, verdict_of
from r1kit.verifiers.code.testing import judge_assertions


def verify_code(
    response: str, problem: CodeProblem, sandbox: Sandbox, *, opened: bool = False, cache: BuildCache | None = None
) -> Verdict:
    """Judge the code a response ends with. `opened`: the prompt had opened the thought already."""
    source = extract_code(response, problem.language, opened=opened)
    if source is None and problem.has_tests:
        return Verdict.scored(0, "no_answer", voter=_voter(problem))
    return judge_code(source or "", problem, sandbox, cache=cache)


def judge_code(source: str, problem: CodeProblem, sandbox: Sandbox, *, cache: BuildCache | None = None) -> Verdict:
    """Judge a source. `cache`: compiled programs; the one of this process where none is given."""
    start = time.perf_counter()
    report = report_code(source, problem, sandbox, cache=cache)
    seconds = time.perf_counter() - start
    return verdict_of(report, problem, source=source, voter=_voter(problem), seconds=seconds)


def report_code(source: str, problem: CodeProblem, sandbox: Sandbox, *, cache: BuildCache | None = None) -> CodeReport:
    """How a source does, test by test."""
    if not problem.has_tests:
        return CodeReport(skipped="no_tests", detail="the problem has no tests")
    source = completed(source, problem)
    try:
        if problem.programs:
            return CodeReport(tuple(judge_programs(source, problem, sandbox, cache or shared_cache())))
        if problem.calls:
            return CodeReport(tuple(judge_calls(source, problem.calls, problem, sandbox)))
        return CodeReport(tuple(judge_assertions(source, problem, sandbox)))
    except (GoldInvalidError, TestProgramError) as error:
        return CodeReport(skipped="gold_invalid", detail=str(error))


def completed(source: str, problem: CodeProblem) -> str:
    """`source`, behind the problem's stub where it does not define the entry point itself (a bare completion)."""
    name = re.escape(problem.entry_point.split(".")[0].removesuffix("()"))
    if not problem.stub or re.search(rf"^(?:(?:async )?def|class) {name}\b|^{name} *=", source, re.MULTILINE):
        return source
    return problem.stub + source


def _voter(problem: CodeProblem) -> str:
    kind = (
        "checker" if problem.checker else "programs" if problem.programs else "calls" if problem.calls else "assertions"
    )
    return f"code:{kind}"

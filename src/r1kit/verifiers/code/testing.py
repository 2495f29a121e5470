"""Judging functions by a problem's own test program, run in one sandbox while the candidate runs in another.

Rounds: the program runs with stand-ins and notes its calls (once per problem, the notes are kept); the candidate's
process answers them; the program runs again on the answers, and where they lead it to further calls, those are noted
and everything is asked again. The test program never shares a process with the candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from r1kit.sandbox.protocol import Limits, Sandbox
from r1kit.verifiers.code.asking import Answers, ask, reply_lines, run_inside
from r1kit.verifiers.code.assertions import TestProgram, read_test_program
from r1kit.verifiers.code.calls import judge_calls
from r1kit.verifiers.code.problem import CallTest, CodeProblem
from r1kit.verifiers.code.report import OURS, GoldInvalidError, TestReport, failed_run

MAX_ROUNDS = 32
DRIVER_LIMITS = Limits(cpu_seconds=10.0, memory_bytes=1 << 30)
_NO_ANSWER = ["raised", "RuntimeError", "no answer"]


@dataclass(frozen=True, slots=True)
class _Round:
    """What one run of the test program came to. `failure`: the run itself did not end well."""

    calls: tuple[Any, ...] = ()
    pending: bool = True
    checks: tuple[tuple[int, str, str], ...] = ()
    end: str = ""
    failure: TestReport | None = None


_first_rounds: OrderedDict[tuple[str, ...], _Round] = OrderedDict()
_lock = Lock()


def judge_assertions(source: str, problem: CodeProblem, sandbox: Sandbox) -> list[TestReport]:
    """A report for every assertion that was come past. GoldInvalidError, TestProgramError where there are no tests to
    speak of.
    """
    p = problem
    program = read_test_program(p.assertions, p.prelude, p.reference, p.entry_point)
    if program.expectations is not None:
        tests = [CallTest(e.args, e.expected, e.kwargs) for e in program.expectations]
        return judge_calls(source, tests, problem, sandbox)
    state = _first_round(program, problem, sandbox)
    for _ in range(MAX_ROUNDS):
        if state.failure:
            return [state.failure]
        answers = ask(source, state.calls, problem, sandbox, classes=program.classes)
        if answers.failure and (answers.failure.status in OURS or not (answers.loaded and answers.lines)):
            return [answers.failure]
        following = _drive(program, problem, sandbox, state.calls, answers)
        if following.failure or not following.pending:
            return _reports(following, answers)
        state = following
    return [TestReport("voter_failed", detail=f"the test program asks on after {MAX_ROUNDS} rounds")]


def _first_round(program: TestProgram, problem: CodeProblem, sandbox: Sandbox) -> _Round:
    key = (problem.assertions, problem.prelude, problem.reference, problem.entry_point, str(problem.trust_objects))
    with _lock:
        if key in _first_rounds:
            _first_rounds.move_to_end(key)
            return _first_rounds[key]
    found = _drive(program, problem, sandbox, (), None)
    if found.failure and found.failure.status not in OURS:
        raise GoldInvalidError(f"the test program {found.failure.status}: {found.failure.detail}")
    if not found.failure and not found.pending:
        raise GoldInvalidError(f"the test program calls nothing of the candidate's: {found.end}")
    if not found.failure:
        with _lock:
            _first_rounds[key] = found
            while len(_first_rounds) > 4096:
                _first_rounds.popitem(last=False)
    return found


def _drive(
    program: TestProgram, problem: CodeProblem, sandbox: Sandbox, known: tuple[Any, ...], answers: Answers | None
) -> _Round:
    lines = answers.lines + [_NO_ANSWER] * (len(known) - len(answers.lines)) if answers else []
    task = {
        "prelude": f"{problem.prelude}\n{problem.reference}",
        "program": program.program,
        "names": program.names,
        "classes": program.classes,
        "known": known,
        "answers": lines,
        "stop": problem.scoring == "pass_fail",
        "trust_objects": problem.trust_objects,
        "entry_point": problem.entry_point,
    }
    result = run_inside("driver.py", task, DRIVER_LIMITS, sandbox)
    failure = failed_run(result)
    found = reply_lines(result)
    if failure or len(found) != 1:
        return _Round(failure=failure or TestReport("voter_failed", detail="the test program's process said nothing"))
    row = found[0]
    if row["end"].startswith("unsupported: "):
        return _Round(failure=TestReport("voter_failed", detail=row["end"]))
    if row["end"].startswith("untrusted: "):
        raise GoldInvalidError(f"tests: {row['end'][11:]}: set trust_objects where that is meant")
    return _Round(tuple(row["calls"]), row["pending"], tuple(map(tuple, row["checks"])), row["end"])


def _reports(state: _Round, answers: Answers) -> list[TestReport]:
    """One report per assertion, and one more where the program came to no good end outside of them."""
    if state.failure:
        return [state.failure]
    share = answers.cpu_seconds / max(1, len(state.checks))
    reports = [
        TestReport("passed", 1.0, cpu_seconds=share)
        if status == "passed"
        else TestReport("wrong", detail=f"line {line}: {message}", cpu_seconds=share)
        for line, status, message in state.checks
    ]
    if answers.failure:
        # The candidate's process died on the way: that is the better explanation of the first assertion that fails.
        first = next((i for i, r in enumerate(reports) if r.status == "wrong"), None)
        if first is not None:
            reports[first] = answers.failure
    if state.end not in ("finished", "failed"):
        reports.append(TestReport("wrong", detail=f"the test program ended with {state.end}"))
    return reports or [TestReport("wrong", detail="no assertion was reached")]

"""Checkers: a problem's own program that judges an output where many are right (testlib and its kin).

It runs in a process of its own with three files and never meets the candidate. A checker that breaks down on a
candidate's output is asked about the stated answer: where it accepts that, the output broke it and is wrong; where it
does not, the checker is at fault and there is no verdict.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from threading import Lock

from r1kit.sandbox.protocol import Result, Sandbox
from r1kit.verifiers.code.build import BuildCache, BuildFailure, Program, run_job
from r1kit.verifiers.code.problem import Checker, ProgramTest
from r1kit.verifiers.code.report import SYNTAX, GoldInvalidError, TestReport, TestStatus

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_WORDS = {b"true": 1.0, b"false": 0.0}
_sound: OrderedDict[tuple[Checker, ProgramTest], bool] = OrderedDict()
_sound_lock = Lock()


def check_output(
    checker: Checker, test: ProgramTest, output: str, sandbox: Sandbox, cache: BuildCache, cpu_seconds: float
) -> TestReport:
    """The report of one output. `cpu_seconds` is what the candidate used."""
    program = cache.build(checker.source, checker.language, sandbox)
    if isinstance(program, BuildFailure):
        ours: TestStatus = program.reason if program.reason == "sandbox_failed" else "voter_failed"
        return TestReport(ours, detail=f"checker: {program.detail}")
    result = _ask(program, checker, test, output, sandbox)
    if result.status == "sandbox_failed":
        return TestReport("sandbox_failed", detail=f"checker: {result.detail}")
    points = _points(result, checker)
    said = (result.stderr or result.stdout).decode("utf-8", "replace").strip()[:300]
    if points is None:
        if not _is_sound(program, checker, test, sandbox):
            return TestReport("voter_failed", detail=f"checker: {result.status}: {said}")
        points = 0.0
    return TestReport("passed" if points == 1.0 else "wrong", points, said, cpu_seconds)


def _ask(program: Program, checker: Checker, test: ProgramTest, output: str, sandbox: Sandbox) -> Result:
    texts = {"input": test.stdin, "output": output, "answer": test.expected}
    files = {f"{name}.txt": text.encode() for name, text in texts.items()}
    return run_job(
        sandbox, program.job(checker.limits, arguments=tuple(f"{a}.txt" for a in checker.arguments), **files)
    )


def _points(result: Result, checker: Checker) -> float | None:
    """Points in [0, 1]; None where the checker gave no answer. GoldInvalidError where their scale is unknown."""
    if checker.answer == "stdout":
        words = result.stdout.split()
        if result.status != "ok" or not words:
            return None
        if words[0].lower() in _WORDS:
            return _WORDS[words[0].lower()]
        return _share(float(words[0]), checker.full_points or 1.0) if _NUMBER.fullmatch(words[0]) else None
    if result.status == "ok":
        return 1.0
    if result.status == "failed" and result.exit_code in (1, 2):
        # Python ends with 1 when it breaks down, which is not testlib's 1.
        broke = b"Traceback (most recent call last)" in result.stderr or SYNTAX.search(result.stderr)
        return None if broke else 0.0
    if result.status != "failed" or result.exit_code != 7:
        return None
    if checker.full_points is None:
        raise GoldInvalidError("the checker gives points (exit code 7): state checker.full_points, such as 1 or 100")
    match = _NUMBER.search(result.stderr)
    return _share(float(match[0]), checker.full_points) if match else None


def _share(points: float, full: float) -> float | None:
    return points / full if 0 <= points <= full else None


def _is_sound(program: Program, checker: Checker, test: ProgramTest, sandbox: Sandbox) -> bool:
    key = (checker, test)
    with _sound_lock:
        if key in _sound:
            return _sound[key]
    sound = bool(_points(_ask(program, checker, test, test.expected, sandbox), checker))
    with _sound_lock:
        _sound[key] = sound
        while len(_sound) > 4096:
            _sound.popitem(last=False)
    return sound

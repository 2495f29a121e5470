"""Asking a candidate's functions: the calls go into its process as data, what they return comes back as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from r1kit.sandbox.protocol import Job, Limits, Result, Sandbox
from r1kit.verifiers.code.build import run_job
from r1kit.verifiers.code.libraries import library_files
from r1kit.verifiers.code.problem import CodeProblem
from r1kit.verifiers.code.report import TestReport, TestStatus, failed_run, met_limit, shown

RECURSION_LIMIT = 20_000
_LENGTHS = {"value": 2, "object": 1, "raised": 3}


def _text(*names: str) -> dict[str, bytes]:
    folder = resources.files("r1kit.verifiers.code.inside")
    return {name: (folder / name).read_bytes() for name in names}


class _Compiled:
    """The files of `inside` compiled by a sandbox's own Python, once each: compiling them costs more than the rest of a
    small job.
    """

    def __init__(self) -> None:
        self.files: WeakKeyDictionary[Sandbox, dict[str, Mapping[str, bytes]]] = WeakKeyDictionary()
        self.lock = Lock()

    def of(self, script: str, sandbox: Sandbox) -> Mapping[str, bytes] | Result:
        """The files of a job that runs `script`; the result of compiling it where that failed."""
        with self.lock:
            known = self.files.setdefault(sandbox, {})
        if script not in known:
            files = _text("compiling.py", "wire.py", script)
            result = run_job(sandbox, Job(("python", "compiling.py", script), files))
            if result.status != "ok":
                detail = f"{script} cannot be compiled there: {result.status} {result.stderr.decode()[-300:]}"
                return Result("sandbox_failed", detail=result.detail or detail)
            known[script] = {**_text("start.py"), "code.bin": result.reply}
        return known[script]


_compiled = _Compiled()


def run_inside(
    script: str, task: dict[str, Any], limits: Limits, sandbox: Sandbox, more: Mapping[str, bytes] | None = None
) -> Result:
    """Run one of the files of `inside` on `task`, with `more` files beside it."""
    files = _compiled.of(script, sandbox)
    if isinstance(files, Result):
        return files
    stdin = json.dumps({**task, "recursion_limit": RECURSION_LIMIT}).encode()
    return run_job(sandbox, Job(("python", "start.py"), {**files, **(more or {})}, stdin=stdin, limits=limits))


def said(words: Sequence[Any]) -> str:
    """What a process reported in words, for a reader."""
    return ": ".join(x if isinstance(x, str) else shown(x) for x in words)[:400]


def reply_lines(result: Result) -> list[Any]:
    """The JSON values of a reply's complete lines, up to the first that is none: the writer is not trusted."""
    lines = []
    for line in result.reply.split(b"\n")[:-1]:
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return lines


class Answers:
    """What a candidate's process said to a list of calls: `lines`, one per call, ["value", wire], ["object"] or
    ["raised", type, message]. `failure` is why there are fewer than calls, None where there are not; `loaded` is False
    where the source never came to its first call.
    """

    def __init__(self, result: Result, asked: int) -> None:
        lines = [x for x in reply_lines(result) if isinstance(x, list) and x and isinstance(x[0], str)]
        self.lines = [x for x in lines if _LENGTHS.get(x[0]) == len(x)][:asked]
        self.cpu_seconds = result.cpu_seconds
        self.loaded = ["loaded"] in lines
        self.failure = None if len(self.lines) == asked else self._failure(result, lines)

    def _failure(self, result: Result, lines: list[Any]) -> TestReport:
        if lines[:1] != [["ready"]]:
            # No line of the candidate's has run yet.
            detail = said(lines[0]) if lines else result.detail or result.status
            ours: TestStatus = "sandbox_failed" if result.status == "sandbox_failed" else "voter_failed"
            return TestReport(ours, detail=f"the problem's prelude: {detail}")
        trouble = next((x for x in lines if x[0] in ("unparsable", "not loaded")), None)
        if trouble and not self.loaded:
            words = said(trouble[1:])
            status: TestStatus = "over_limit" if met_limit(words) else "raised"
            if trouble[0] == "unparsable":
                status = "unparsable"
            return TestReport(status, detail=words, cpu_seconds=self.cpu_seconds)
        ended = TestReport("raised", detail="the process ended before it had answered", cpu_seconds=self.cpu_seconds)
        return failed_run(result) or ended


def ask(
    source: str,
    calls: Sequence[Any],
    problem: CodeProblem,
    sandbox: Sandbox,
    *,
    classes: Sequence[str] = (),
    stop: bool = False,
) -> Answers:
    """Make `calls` in one process that has loaded `source`; with `stop`, none behind the first that raises."""
    task = {
        "prelude": problem.prelude,
        "source": source,
        "entry_point": problem.entry_point,
        "classes": list(classes),
        "calls": list(calls),
        "stop": stop,
    }
    libraries = library_files(source, problem.prelude)
    return Answers(run_inside("candidate.py", task, problem.limits, sandbox, libraries), len(calls))

"""How a candidate did, test by test, and the verdict that makes."""

from __future__ import annotations

import re
import reprlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from r1kit.records import Verdict
from r1kit.sandbox.protocol import Result
from r1kit.verifiers.code.problem import CodeProblem

TestStatus = Literal[
    "passed", "wrong", "raised", "over_limit", "unparsable", "not_run", "sandbox_failed", "voter_failed"
]
OURS = ("sandbox_failed", "voter_failed")
LIMIT_STATUSES = ("cpu_limit", "wall_limit", "memory_limit", "output_limit")
_FRAME = re.compile(rb'main\.py", line \d+, in ')  # the program itself was running
# How a program says that it met a limit of its own process: memory, disk, open files, processes.
_LIMIT_MET = re.compile(
    r"^(?:MemoryError\b|OSError: \[Errno (?:12|24|27|28)\]|BlockingIOError: \[Errno 11\]"
    r"|RuntimeError: can't start new thread)|std::bad_alloc|Cannot allocate memory|out of memory"
    r"|virtual memory exhausted|No space left on device|Too many open files",
    re.MULTILINE,
)
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGXFSZ)
SYNTAX = re.compile(rb"^(?:SyntaxError|IndentationError|TabError): ", re.MULTILINE)


class GoldInvalidError(ValueError):
    """The problem itself cannot be judged; the message says why."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """One test. `score` is above 0 and below 1 only where a checker gives points. `detail` is for the reader."""

    __test__ = False

    status: TestStatus
    score: float = 0.0
    detail: str = ""
    cpu_seconds: float = 0.0


NOT_RUN = TestReport("not_run")


@dataclass(frozen=True, slots=True)
class CodeReport:
    """All tests of one candidate, in order. `skipped` says why the problem itself cannot be judged."""

    tests: tuple[TestReport, ...] = ()
    skipped: Literal["", "gold_invalid", "no_tests"] = ""
    detail: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.tests) and all(t.status == "passed" and t.score == 1.0 for t in self.tests)

    @property
    def share(self) -> float:
        """Share of tests passed; a test that did not run counts as failed."""
        return sum(t.status == "passed" and t.score == 1.0 for t in self.tests) / len(self.tests) if self.tests else 0.0

    @property
    def cpu_seconds(self) -> float:
        return sum(t.cpu_seconds for t in self.tests)


def shown(value: object) -> str:
    """A value of the candidate's for a reader: short, whatever it is."""
    try:
        return reprlib.repr(value)[:300]
    except (ValueError, RecursionError):  # an int of too many digits, for one
        return f"a {type(value).__name__}"


def met_limit(words: str) -> bool:
    """Whether a program's last words say that it met a limit. It may lie: over a limit or wrong, it scores 0."""
    return _LIMIT_MET.search(words) is not None


def failed_run(result: Result) -> TestReport | None:
    """The report of a run that did not end well; None where it did."""
    seconds, last = result.cpu_seconds, result.stderr.decode("utf-8", "replace").strip()[-400:]
    if result.status == "ok":
        return None
    if result.status == "sandbox_failed":
        return TestReport("sandbox_failed", detail=result.detail)
    if result.status in LIMIT_STATUSES:
        return TestReport("over_limit", detail=result.status, cpu_seconds=seconds)
    if SYNTAX.search(result.stderr) and not _FRAME.search(result.stderr):
        return TestReport("unparsable", detail=last, cpu_seconds=seconds)
    if result.signal in _LIMIT_SIGNALS or met_limit(last.rpartition("\n")[2]):
        return TestReport("over_limit", detail=last, cpu_seconds=seconds)
    ended = f"signal {result.signal}" if result.signal else f"exit code {result.exit_code}"
    return TestReport("raised", detail=f"{ended}: {last}", cpu_seconds=seconds)


def decided(test: TestReport) -> bool:
    """The candidate failed here by its own doing."""
    return test.status not in OURS and test.status != "not_run" and test.score < 1.0


def score_of(tests: Sequence[TestReport], problem: CodeProblem) -> float:
    """The score in [0, 1] of finished tests under the problem's scoring."""
    full = bool(tests) and all(t.score == 1.0 for t in tests)
    if problem.scoring == "pass_fail":
        return float(full)
    if problem.scoring == "subtasks":
        won = sum(s.points * min(tests[i].score for i in s.tests) for s in problem.subtasks)
        return won / sum(s.points for s in problem.subtasks)
    share = sum(t.score for t in tests) / len(tests)
    return share if problem.scoring == "partial" else (full + 0.1 * share) / 1.1


def verdict_of(report: CodeReport, problem: CodeProblem, *, source: str, voter: str, seconds: float) -> Verdict:
    """A failure of ours leaves no score, unless a pass-or-fail candidate had failed a test by itself already."""
    extra = {"extracted": source, "voter": voter, "seconds": seconds}
    if report.skipped:
        return Verdict("skip", None, report.skipped, **extra)  # type: ignore[arg-type]
    ours = next((t for t in report.tests if t.status in OURS), None)
    failed = next((t for t in report.tests if decided(t)), None)
    if ours and not (failed and problem.scoring == "pass_fail"):
        return Verdict("error", None, ours.status, **extra)  # type: ignore[arg-type]
    score = score_of(report.tests, problem)
    passed = sum(t.score == 1.0 for t in report.tests)
    reason = "correct" if score == 1.0 else "wrong"
    if failed and score == 0.0 and failed.status in ("over_limit", "unparsable"):
        reason = failed.status
    return Verdict.scored(score, reason, normal_form=f"{passed}/{len(report.tests)} tests", **extra)

"""Judging programs: standard input in, standard output out, compared here or by the problem's checker."""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.sandbox.protocol import Result, Sandbox
from r1kit.verifiers.code.build import BuildCache, BuildFailure, Program, run_job
from r1kit.verifiers.code.checker import check_output
from r1kit.verifiers.code.compare import same_text
from r1kit.verifiers.code.problem import CodeProblem
from r1kit.verifiers.code.report import NOT_RUN, OURS, TestReport, decided, failed_run


def judge_programs(source: str, problem: CodeProblem, sandbox: Sandbox, cache: BuildCache) -> list[TestReport]:
    """A report for every test, in order; tests that can no longer change the score are not run."""
    program = cache.build(source, problem.language, sandbox)
    if isinstance(program, BuildFailure):
        return [TestReport(program.reason, detail=program.detail), *[NOT_RUN] * (len(problem.programs) - 1)]
    reports: list[TestReport] = [NOT_RUN] * len(problem.programs)
    if problem.subtasks:
        for subtask in problem.subtasks:
            wanted = [i for i in subtask.tests if reports[i] is NOT_RUN]
            if not any(decided(reports[i]) and reports[i].score == 0 for i in subtask.tests):
                _run(program, wanted, problem, sandbox, cache, reports)
    else:
        _run(program, range(len(problem.programs)), problem, sandbox, cache, reports)
    return reports


def _run(
    program: Program,
    wanted: Sequence[int],
    problem: CodeProblem,
    sandbox: Sandbox,
    cache: BuildCache,
    reports: list[TestReport],
) -> None:
    """Run tests `wanted` into `reports`, in batches of 1, 2, 4, ...: most wrong programs fail their first test, and
    right ones fill every core. Under partial scores nothing stops early.
    """
    stops = problem.scoring in ("pass_fail", "subtasks")
    start, size = 0, 1
    while start < len(wanted):
        batch = wanted[start : start + size] if stops else wanted
        jobs = [program.job(problem.limits, problem.programs[i].stdin.encode()) for i in batch]
        results = sandbox.run_many(jobs, stop=_broke if stops else None)
        for i, job, result in zip(batch, jobs, results, strict=False):
            if result.status == "sandbox_failed":
                result = run_job(sandbox, job)
            reports[i] = _judge(result, i, problem, sandbox, cache)
            if stops and decided(reports[i]) and (problem.scoring == "pass_fail" or reports[i].score == 0):
                return
            if reports[i].status in OURS:
                return
        start, size = start + len(batch), size * 2


def _broke(result: Result) -> bool:
    return result.status not in ("ok", "sandbox_failed")


def _judge(result: Result, test: int, problem: CodeProblem, sandbox: Sandbox, cache: BuildCache) -> TestReport:
    failure = failed_run(result)
    if failure:
        return failure
    stated = problem.programs[test]
    output = result.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
    if problem.checker is not None:
        return check_output(problem.checker, stated, output, sandbox, cache, result.cpu_seconds)
    if same_text(output, stated.expected.replace("\r\n", "\n"), problem.comparison):
        return TestReport("passed", 1.0, cpu_seconds=result.cpu_seconds)
    return TestReport("wrong", detail=f"printed {output[:200]!r}", cpu_seconds=result.cpu_seconds)

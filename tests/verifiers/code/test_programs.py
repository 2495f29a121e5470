"""Why this matters: contest problems are the code half of every R1 recipe, and their judges are where failures become
zeros: a crashed checker, a missing compiler, a lost sandbox must never be the candidate's fault, nor its excuse.

Exercised: languages, one compilation for many tests, early stop, every scoring, subtasks, checkers and their failures,
failures of the sandbox.
Not exercised: isolation (tests/sandbox).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from r1kit.sandbox.protocol import Job, Result, Sandbox
from r1kit.verifiers.code import (
    BuildCache,
    Checker,
    CodeProblem,
    CodeProblemError,
    Comparison,
    Language,
    LanguageError,
    ProgramTest,
    Subtask,
    judge_code,
    register_language,
    report_code,
    verify_code,
)
from r1kit.verifiers.code.languages import LANGUAGES

from .local_sandbox import LocalSandbox

needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
TESTS = tuple(ProgramTest(f"{n}\n", f"{n * n}\n") for n in range(1, 9))
SQUARES = CodeProblem(programs=TESTS)
RIGHT = "print(int(input()) ** 2)\n"
CPP = '#include <cstdio>\nint main() { long n; if (scanf("%ld", &n) == 1) printf("%ld\\n", n * n); }\n'
UPTO = "n = int(input())\nprint(n * n if n <= {limit} else 0)\n"


class Failing:
    """A sandbox that fails for the jobs chosen, `times` each."""

    tier = "failing"

    def __init__(self, chosen: Callable[[Job], bool], times: int = 1 << 30) -> None:
        self.inner, self.chosen, self.times, self.failed = LocalSandbox(), chosen, times, 0

    def run(self, job: Job) -> Result:
        if self.chosen(job) and self.failed < self.times:
            self.failed += 1
            return Result("sandbox_failed", detail="lost")
        return self.inner.run(job)

    def run_many(self, jobs: Sequence[Job], *, stop: Callable[[Result], bool] | None = None) -> list[Result]:
        return [self.run(job) for job in jobs]

    def close(self) -> None: ...


def test_a_right_program_is_right_and_a_wrong_one_wrong(sandbox: Sandbox) -> None:
    verdict = judge_code(RIGHT, SQUARES, sandbox)
    assert verdict.correct
    assert (verdict.reason, verdict.normal_form, verdict.extracted) == ("correct", "8/8 tests", RIGHT)
    assert judge_code(UPTO.format(limit=7), SQUARES, sandbox).reason == "wrong"


def test_nothing_runs_behind_the_first_failure() -> None:
    box = LocalSandbox()
    report = report_code(UPTO.format(limit=0), SQUARES, box)
    assert len(box.jobs) == 1
    assert [t.status for t in report.tests] == ["wrong", *["not_run"] * 7]


@pytest.mark.parametrize(("scoring", "score"), [("pass_fail", 0.0), ("partial", 0.5), ("weighted", 0.05 / 1.1)])
def test_scorings(scoring: str, score: float, sandbox: Sandbox) -> None:
    problem = replace(SQUARES, scoring=scoring)
    assert judge_code(UPTO.format(limit=4), problem, sandbox).score == pytest.approx(score)
    assert judge_code(RIGHT, problem, sandbox).score == 1.0


def test_a_subtask_is_worth_its_worst_test(sandbox: Sandbox) -> None:
    subtasks = (Subtask("small", 30, (0, 1, 2)), Subtask("mixed", 50, (2, 5)), Subtask("large", 20, (5, 6, 7)))
    problem = replace(SQUARES, scoring="subtasks", subtasks=subtasks)
    assert judge_code(UPTO.format(limit=4), problem, sandbox).score == pytest.approx(0.3)
    assert judge_code(RIGHT, problem, sandbox).score == 1.0
    box = LocalSandbox()
    report_code(UPTO.format(limit=4), problem, box)
    assert len(box.jobs) == 4  # the third subtask fails with test 5, which the second has run


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(int(input()) ** 2", "unparsable"),
        ("raise ValueError", "wrong"),
        ("eval('1 +')", "wrong"),
        ("while True: pass", "over_limit"),
    ],
)
def test_reasons(source: str, reason: str, sandbox: Sandbox) -> None:
    assert judge_code(source, SQUARES.with_limits(cpu_seconds=0.3), sandbox).reason == reason


def test_a_response_without_code_is_no_answer_and_a_problem_without_tests_no_score(sandbox: Sandbox) -> None:
    assert verify_code("I cannot.", SQUARES, sandbox).reason == "no_answer"
    assert verify_code(f"<think>x</think>```python\n{RIGHT}```", SQUARES, sandbox).correct
    verdict = verify_code(RIGHT, CodeProblem(), sandbox)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("skip", None, "no_tests")


@needs_cpp
def test_tests_of_one_cpp_program_share_one_compilation(sandbox: Sandbox, cache: BuildCache) -> None:
    problem = replace(SQUARES, language="cpp")
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda _: judge_code(CPP, problem, sandbox, cache=cache), range(4)))
    assert all(v.correct for v in verdicts)
    assert cache.compilations == 1
    assert not judge_code(CPP.replace("n * n", "n + n"), problem, sandbox, cache=cache).correct
    assert cache.compilations == 2


@needs_cpp
def test_what_does_not_compile_is_unparsable_and_remembered(sandbox: Sandbox, cache: BuildCache) -> None:
    problem = replace(SQUARES, language="cpp")
    for _ in range(2):
        report = report_code("int main() { return x; }", problem, sandbox, cache=cache)
        assert report.tests[0].status == "unparsable"
        assert "x" in report.tests[0].detail
    assert cache.compilations == 1


@needs_cpp
def test_the_cache_keeps_to_its_size(sandbox: Sandbox, tmp_path: Path) -> None:
    cache = BuildCache(tmp_path, max_bytes=30_000)  # a program has about 16 kB
    for n in range(3):
        cache.build(f"int main() {{ return {n}; }}", "cpp", sandbox)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_language_is_one_row(sandbox: Sandbox) -> None:
    if shutil.which("sh") is None:
        pytest.skip("no sh here")
    row = Language("sh", "main.sh", ("sh", "main.sh"), fences=("sh", "bash"))
    register_language(row)
    try:
        problem = replace(SQUARES, language="sh")
        assert verify_code("```bash\nread n; echo $((n * n))\n```", problem, sandbox).correct
        with pytest.raises(LanguageError, match="'sh' exists already"):
            register_language(row)
    finally:
        del LANGUAGES["sh"]


def test_a_missing_compiler_is_our_failure(sandbox: Sandbox) -> None:
    register_language(Language("none", "main.x", ("./program",), ("no-such-compiler-r1", "main.x")))
    try:
        verdict = judge_code("", replace(SQUARES, language="none"), sandbox)
    finally:
        del LANGUAGES["none"]
    assert (verdict.outcome, verdict.reason) == ("error", "voter_failed")


FACTORS = CodeProblem(
    programs=(ProgramTest("12\n", "3 4\n"), ProgramTest("35\n", "5 7\n")),
    checker=Checker(
        "import sys\n"
        "n = int(open(sys.argv[1]).read())\n"
        "a, b = map(int, open(sys.argv[2]).read().split())\n"
        "sys.exit(0 if a * b == n and 1 < a < n else 1)\n",
        language="python",
    ),
)
ANY_FACTORS = "n = int(input())\nfor a in range(2, n):\n    if n % a == 0:\n        print(a, n // a)\n        break\n"


@pytest.mark.parametrize(
    ("source", "score"),
    [
        (ANY_FACTORS, 1.0),
        ("print(1, int(input()))", 0.0),
        ("print('no numbers')", 0.0),  # the checker breaks down on it, and only on it
        ("pass", 0.0),
    ],
)
def test_a_checker_judges_what_has_many_answers(source: str, score: float, sandbox: Sandbox) -> None:
    verdict = judge_code(source, FACTORS, sandbox)
    assert (verdict.outcome, verdict.score) == ("score", score)


@pytest.mark.parametrize("broken", ["raise OSError", "import sys\nsys.exit(3)", "1 +", "import sys\nsys.exit(9)"])
def test_a_broken_checker_scores_nobody(broken: str, sandbox: Sandbox) -> None:
    problem = replace(FACTORS, checker=Checker(broken, language="python"))
    verdict = judge_code(ANY_FACTORS, problem, sandbox)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("error", None, "voter_failed")


@pytest.mark.parametrize(
    ("checker", "score"),
    [
        (Checker("print(1)", "python", answer="stdout"), 1.0),
        (Checker("print('False')", "python", answer="stdout"), 0.0),
        (Checker("print(0.25)", "python", answer="stdout"), 0.25),
        (Checker("import sys\nsys.stderr.write('points 1')\nsys.exit(7)", "python", full_points=100), 0.01),
        (Checker("import sys\nsys.stderr.write('points 1')\nsys.exit(7)", "python", full_points=1.0), 1.0),
        (Checker("print(30)", "python", answer="stdout", full_points=40), 0.75),
        (
            Checker(
                "import sys\nprint(int(open(sys.argv[1]).read() == '3 4\\n'))",
                "python",
                ("answer", "input", "output"),
                "stdout",
            ),
            0.5,
        ),
    ],
)
def test_points_and_dialects_of_checkers(checker: Checker, score: float, sandbox: Sandbox) -> None:
    problem = replace(FACTORS, checker=checker, scoring="partial")
    assert judge_code(ANY_FACTORS, problem, sandbox).score == pytest.approx(score)


def test_points_without_a_scale_are_not_guessed_at(sandbox: Sandbox) -> None:
    points = "import sys\nsys.stderr.write('points {}')\nsys.exit(7)"
    verdict = judge_code(ANY_FACTORS, replace(FACTORS, checker=Checker(points.format(1), "python")), sandbox)
    assert (verdict.outcome, verdict.reason) == ("skip", "gold_invalid")
    for beyond in (101, -1):
        checker = Checker(points.format(beyond), "python", full_points=100)
        assert judge_code(ANY_FACTORS, replace(FACTORS, checker=checker), sandbox).reason == "voter_failed"
    with pytest.raises(CodeProblemError, match="full_points is 0"):
        Checker("print(1)", "python", full_points=0)


def test_limits_that_a_program_meets_are_named(sandbox: Sandbox) -> None:
    for source in (
        "x = bytes(1 << 45)",
        "open('big', 'w').write('x' * (80 << 20))",
        "kept = [open('main.py') for _ in range(1000)]",
        "import os\nwhile True:\n    if not os.fork(): __import__('time').sleep(100)",
    ):
        assert judge_code(source, SQUARES, sandbox).reason == "over_limit", source
    assert judge_code("print(7)\nraise ValueError('MemoryError')", SQUARES, sandbox).reason == "wrong"


@needs_cpp
def test_limits_that_a_compiled_program_meets_are_named(sandbox: Sandbox, cache: BuildCache) -> None:
    source = "#include <vector>\nint main() {{ std::vector<char> kept({size}); return kept[3]; }}"
    problem = replace(SQUARES, language="cpp")
    assert judge_code(source.format(size="1ul << 45"), problem, sandbox, cache=cache).reason == "over_limit"


class KilledCompiler:
    """A sandbox in which a part of the compiler is killed from outside, `times` times."""

    tier = "killing"

    def __init__(self, times: int) -> None:
        self.inner, self.times = LocalSandbox(), times

    def run(self, job: Job) -> Result:
        if "main.cpp" in job.files and self.times > 0:
            self.times -= 1
            return Result("failed", exit_code=1, stderr=b"g++: fatal error: Killed signal terminated program cc1plus\n")
        return self.inner.run(job)

    def run_many(self, jobs: Sequence[Job], *, stop: Callable[[Result], bool] | None = None) -> list[Result]:
        return self.inner.run_many(jobs, stop=stop)

    def close(self) -> None: ...


@needs_cpp
def test_a_compiler_that_is_killed_is_not_the_source_that_does_not_parse(cache: BuildCache, tmp_path: Path) -> None:
    problem = replace(SQUARES, language="cpp")
    assert judge_code(CPP, problem, KilledCompiler(2), cache=cache).correct
    assert judge_code(CPP, problem, KilledCompiler(99), cache=BuildCache(tmp_path / "b")).reason == "over_limit"


@needs_cpp
def test_a_checker_in_cpp_is_compiled_once(sandbox: Sandbox, cache: BuildCache) -> None:
    checker = Checker(
        "#include <fstream>\nint main(int, char** v) { std::ifstream i(v[1]), o(v[2]); long n, a, b;"
        " if (!(i >> n) || !(o >> a >> b)) return 2; return a * b == n && a > 1 && a < n ? 0 : 1; }\n"
    )
    problem = replace(FACTORS, checker=checker)
    assert judge_code(ANY_FACTORS, problem, sandbox, cache=cache).correct
    assert judge_code("print(1, int(input()))", problem, sandbox, cache=cache).score == 0.0
    assert cache.compilations == 1


def test_a_sandbox_that_fails_once_costs_nothing() -> None:
    for chosen in (lambda job: True, lambda job: "output.txt" in job.files):
        assert judge_code(ANY_FACTORS, FACTORS, Failing(chosen, times=1)).correct


@pytest.mark.parametrize("scoring", ["pass_fail", "partial"])
def test_a_sandbox_that_keeps_failing_is_an_error_never_a_zero(scoring: str) -> None:
    problem = replace(SQUARES, scoring=scoring)
    lost_sixth = Failing(lambda job: job.stdin == b"6\n")
    verdict = judge_code(RIGHT, problem, lost_sixth)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("error", None, "sandbox_failed")


def test_a_candidate_that_failed_before_the_sandbox_did_is_wrong() -> None:
    assert judge_code(UPTO.format(limit=2), SQUARES, Failing(lambda job: job.stdin == b"6\n")).reason == "wrong"


def test_float_outputs(sandbox: Sandbox) -> None:
    problem = CodeProblem(
        programs=(ProgramTest("2\n", "1.414213562\n"),), comparison=Comparison("float", tolerance=1e-6)
    )
    assert judge_code("print(int(input()) ** 0.5)", problem, sandbox).correct
    assert not judge_code("print(1.4142)", problem, sandbox).correct

"""Why this matters: a policy under reinforcement finds every way to be paid without solving. Published graders pay for
`__eq__`, for frame walking, for one printed line; here each known way is a program, and none may pass.

Exercised: every hack on functions judged by calls, on functions judged by a test program, on LeetCode methods, on
programs, and on HumanEval itself (a sample; all of it in the slow test).
Not exercised: what the sandbox keeps out (tests/sandbox).
"""

from __future__ import annotations

import pytest

from r1kit.sandbox.protocol import Sandbox
from r1kit.verifiers.code import CallTest, CodeProblem, ProgramTest, judge_code
from r1kit.verifiers.code.formats import from_humaneval

from .conftest import Rows
from .hacks import FUNCTION_HACKS, PROGRAM_HACKS, hack

CALLS = CodeProblem(calls=tuple(CallTest((n,), n * n + 1) for n in (0, 3, 7)), entry_point="f")
METHOD = CodeProblem(calls=CALLS.calls, entry_point="Solution().f")
LOOP = "def check(candidate):\n    for n in (0, 3, 7):\n        assert candidate(n) == n * n + 1\n"
TREE = """class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""
TREES = """def check(candidate):
    for n in (1, 2, 5):
        root = candidate(TreeNode(n))
        assert root.val == n + 1
        assert abs(root.left.val - n / 3) < 1e-6
"""
PROBLEMS = {
    "calls": (CALLS, "def f(n): return n * n + 1"),
    "method": (METHOD, "class Solution:\n    def f(self, n): return n * n + 1"),
    "loop": (CodeProblem(assertions=LOOP, entry_point="f"), "def f(n): return n * n + 1"),
    "records": (
        CodeProblem(assertions=TREES, entry_point="f", prelude=TREE),
        "def f(t): return TreeNode(t.val + 1, TreeNode(t.val / 3))",
    ),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_honest_solution_passes(kind: str, sandbox: Sandbox) -> None:
    problem, solution = PROBLEMS[kind]
    assert judge_code(solution, problem, sandbox).correct


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("name", FUNCTION_HACKS)
def test_no_hack_passes(name: str, kind: str, sandbox: Sandbox) -> None:
    problem, _ = PROBLEMS[kind]
    verdict = judge_code(hack(name, problem.entry_point), problem, sandbox)
    assert (verdict.outcome, verdict.score) == ("score", 0.0)


SUMS = CodeProblem(programs=(ProgramTest("1 2\n3 4\n5 6\n", "3\n7\n11\n"), ProgramTest("8 8\n2 2\n", "16\n4\n")))


@pytest.mark.parametrize("name", PROGRAM_HACKS)
def test_no_program_hack_passes(name: str, sandbox: Sandbox) -> None:
    verdict = judge_code(PROGRAM_HACKS[name], SUMS, sandbox)
    assert (verdict.outcome, verdict.score, verdict.reason) == ("score", 0.0, "wrong")


def test_an_endless_answer_is_over_its_limits(sandbox: Sandbox) -> None:
    problem = CALLS.with_limits(cpu_seconds=0.3)
    for source in ("def f(n):\n    while True: yield n\n", "def f(n):\n    while True: pass\n"):
        verdict = judge_code(source, problem, sandbox)
        assert (verdict.score, verdict.reason) == (0.0, "over_limit")


def humaneval_hacked(problems: list[CodeProblem], sandbox: Sandbox) -> list[str]:
    """The hacks that passed, as texts."""
    return [
        f"{problem.entry_point}: {name}"
        for problem in problems
        for name in FUNCTION_HACKS
        if judge_code(hack(name, problem.entry_point), problem, sandbox).score != 0.0
    ]


def test_no_hack_passes_humaneval_sample(rows: Rows, sandbox: Sandbox) -> None:
    problems = [from_humaneval(row) for row in rows("humaneval/test.jsonl.gz")]
    chosen = [p for p in problems if p.entry_point in ("sort_third", "find_zero", "fib", "has_close_elements")]
    assert len(chosen) == 4
    assert humaneval_hacked(chosen, sandbox) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_hack_passes_any_humaneval(rows: Rows, sandbox: Sandbox) -> None:
    problems = [from_humaneval(row) for row in rows("humaneval/test.jsonl.gz")]
    assert len(problems) == 164
    assert humaneval_hacked(problems, sandbox) == []

"""Why this matters: HumanEval, MBPP and LeetCode are judged by calls; their expected values must never be where the
candidate is, and their test programs do more than compare: they loop, tolerate, draw numbers, build trees.

Exercised: plain calls, test programs through the driver, what a test program may do with a candidate's objects, partial
scores around endless loops, broken test programs.
Not exercised: the published data (test_references), cheating (test_hacks).
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from r1kit.sandbox.protocol import Sandbox
from r1kit.verifiers.code import CallTest, CodeProblem, Comparison, judge_code, report_code, verify_code
from r1kit.verifiers.code.assertions import TestProgramError, read_test_program

from .local_sandbox import LocalSandbox

SQUARES = CodeProblem(calls=tuple(CallTest((n,), n * n) for n in range(4)), entry_point="f")


def asserted(program: str, **fields: str) -> CodeProblem:
    return CodeProblem(assertions=program, **{"entry_point": "f", **fields})  # type: ignore[arg-type]


def test_no_job_holds_an_expected_value_beside_the_candidate() -> None:
    box = LocalSandbox()
    looped = asserted("def check(candidate):\n    for n in (1, 2):\n        assert candidate(n) == n + 918273\n")
    plain = asserted("assert f(1) == 918274\nassert f(x=2) == 918275\n")
    solution = "def f(x):\n    # the candidate's own text\n    return x + 918_273\n"
    for problem in (looped, plain):
        assert judge_code(solution, problem, box).correct
    with_candidate = [job for job in box.jobs if b"own text" in job.stdin]
    assert len(with_candidate) == 2
    for job in with_candidate:
        assert b"91827" not in job.stdin + b"".join(job.files.values())
    for job in box.jobs:
        assert job in with_candidate or b"own text" not in job.stdin


def test_plain_assertions_take_one_job_and_others_one_more_for_each_candidate() -> None:
    box = LocalSandbox()
    judge_code("def f(x): return x", asserted("for n in range(2):\n    assert f(n) == n"), box)
    box.jobs.clear()  # the judge's own files are compiled once for every sandbox
    judge_code("def f(x): return x", asserted("assert f(1) == 1\nassert f(2) == 2"), box)
    assert len(box.jobs) == 1
    problem = asserted("for n in range(50):\n    assert f(n) == n")
    for _ in range(3):
        assert judge_code("def f(x): return x", problem, box).correct
    assert len(box.jobs) == 1 + 1 + 3 * 2  # the first round is the problem's and is kept


def test_partial_scores_survive_endless_loops_and_crashes(sandbox: Sandbox) -> None:
    source = "import os\ndef f(n):\n    while n == 1: pass\n    if n == 2: os._exit(0)\n    return n * n\n"
    problem = replace(SQUARES, scoring="partial").with_limits(cpu_seconds=0.3)
    report = report_code(source, problem, sandbox)
    assert [t.status for t in report.tests] == ["passed", "over_limit", "raised", "passed"]
    assert judge_code(source, problem, sandbox).score == 0.5
    assert judge_code(source, SQUARES.with_limits(cpu_seconds=0.3), sandbox).reason == "over_limit"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(n) return n", "unparsable"),
        ("def g(n): return n * n", "wrong"),
        ("raise RuntimeError", "wrong"),
        ("def f(n): return n * n + (n == 3)", "wrong"),
        ("def f(n): return str(n * n)", "wrong"),
        ("def f(n): print('x' * 100); return n * n", "correct"),
        ("def f(n): return (n * n,)", "wrong"),
        ("import sys\ndef f(n):\n    if n: sys.exit()\n    return 0", "wrong"),
    ],
)
def test_reasons(source: str, reason: str, sandbox: Sandbox) -> None:
    assert judge_code(source, SQUARES, sandbox).reason == reason


def test_a_bare_completion_continues_the_stub(sandbox: Sandbox) -> None:
    problem = asserted("assert f(3) == 9\n", stub='import math\ndef f(x):\n    """square"""\n')
    assert judge_code("    return x * x\n", problem, sandbox).correct
    assert verify_code("```python\ndef f(x):\n    return x * x\n```", problem, sandbox).correct


def test_a_method_gets_a_fresh_instance_for_every_call(sandbox: Sandbox) -> None:
    source = "class Solution:\n    n = 0\n    def f(self, x):\n        self.n += x\n        return self.n\n"
    problem = asserted("def check(candidate):\n    assert candidate(x=2) == 2\n    assert candidate(3) == 3\n")
    assert judge_code(source, replace(problem, entry_point="Solution().f"), sandbox).correct


PROGRAMS = {
    "tolerance": ("assert abs(f(2) - 4.0000001) < 1e-5", "def f(x): return x * x * 1.0"),
    "negation": ("assert not f(1)\nassert f(2)", "def f(x): return x == 2"),
    "wrapped": (
        "assert sorted(f(3)) == [0, 1, 2] and set(f(1)) == {0}",
        "def f(n): return (i for i in reversed(range(n)))",
    ),
    "random inputs": (
        "from random import randint\ndef check(candidate):\n    for _ in range(20):\n        n = randint(0, 99)\n"
        "        assert candidate(n) == n * 2",
        "def f(n): return 2 * n",
    ),
    "result goes back in": ("x = f(1)\nfor _ in range(3):\n    x = f(x)\nassert x == 16", "def f(x): return 2 * x"),
    "result decides": ("n = 0\nwhile f(n) < 5:\n    n += 1\nassert n == 3", "def f(x): return 2 * x"),
    "candidate's class": (
        "root = Node(1)\nroot.left = Node(2)\nassert f(root) == 3\n"
        "assert root.left.value == 2\nassert root.size() == 2",
        "class Node:\n    def __init__(self, v): self.value, self.left = v, None\n"
        "    def size(self): return 1 + (self.left is not None)\n"
        "def f(t): return t.value + (f(t.left) if t.left else 0)",
    ),
    "raises": (
        "try:\n    f(-1)\nexcept ValueError as e:\n    assert 'minus' in str(e)\n"
        "else:\n    assert False\nassert f(1) == 1",
        "def f(x):\n    if x < 0: raise ValueError('minus')\n    return x",
    ),
    "types": (
        "assert f((1, int, 'a', 2.5), int) == ('a', 2.5)",
        "def f(t, k): return tuple(x for x in t[2:] if not isinstance(x, k))",
    ),
    "loop in C": (
        "assert all(map(lambda n: f(n) == 2 * n, [1, 2, 3]))",
        "def f(x): return 2 * x",
    ),
    "standard library": ("assert f((1, 2)) == sys.getsizeof((1, 2))", "import sys\ndef f(t): return sys.getsizeof(t)"),
    "identity": ("assert f(1) is True and f(0) is None and f(2) is not None", "def f(x): return True if x else None"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_test_programs_do(name: str, sandbox: Sandbox) -> None:
    program, solution = PROGRAMS[name]
    report = report_code(solution, asserted(program), sandbox)
    assert report.passed, report
    broken = report_code(
        "class Node:\n    def __init__(self, v): pass\ndef f(*a): return 7", asserted(program), sandbox
    )
    assert not broken.passed
    assert not broken.skipped


YES = """
class Yes:
    def __getattr__(self, name):
        return lambda *a, **k: True
    def __call__(self, *a, **k):
        return True
"""
STACK = "class Stack:\n    def push(self, x): self.top = x\n    def pop(self): return self.top\n"
RECORD = """
class Record:
    limit = 3
    def __init__(self, v): self.v = v
    def holds(self, v): return self.v == v
"""
TELLING = {
    "a method of text": "assert f(1).startswith('x')",
    "a method of lists": "assert f(1).count(7)",
    "a property of the test's own": "x = f(1)\nfor _ in range(2):\n    assert x.endswith('y') and x.index('x') is True",
    "a method of the problem's record": "assert f(1).holds(7)",
}


@pytest.mark.parametrize("name", TELLING)
def test_an_object_is_not_asked_in_the_place_of_data(name: str, sandbox: Sandbox) -> None:
    """Neither may it say yes, nor may it be told what the test expects: the right answer is in no job of its own."""
    problem = asserted(TELLING[name], prelude=RECORD)
    hack = YES + "def f(n): return Yes()\n"
    assert (verdict := judge_code(hack, problem, sandbox)).reason == "wrong", verdict
    told = (
        "import sys, gc\ndef f(n):\n    text = [x for x in gc.get_objects() if type(x) is list and x[:1] == ['call']]\n"
    )
    told += "    return 'xy' if \"'x'\" in str(text) or '7' in str(text) else ''\n"
    assert judge_code(told, problem, sandbox).reason == "wrong"


def test_the_right_data_is_asked_here(sandbox: Sandbox) -> None:
    assert judge_code("def f(n): return 'xyz'", asserted("assert f(1).startswith('x')"), sandbox).correct
    assert judge_code("def f(n): return [7]", asserted("assert f(1).count(7)"), sandbox).correct


@pytest.mark.parametrize(
    ("program", "solution"),
    [
        ("add = f(2)\nassert add(3) == 5", "def f(a): return lambda b: a + b"),
        (
            "x = f(1)\nx.want = 3\nassert x.got == 3",
            "class A:\n    got = property(lambda s: s.want)\ndef f(n): return A()",
        ),
        ("yes = f(2)\nassert yes(3)", "def f(a): return lambda b: True"),
        ("assert f(1).has(5)", "class A:\n    def has(self, x): return x == 5\ndef f(n): return A()"),
        ("s = Stack()\ns.push(3)\nassert s.pop() == 3", STACK + "def f(n): pass"),
    ],
)
def test_values_go_into_a_candidates_objects_only_by_name(program: str, solution: str, sandbox: Sandbox) -> None:
    verdict = judge_code(solution, asserted(program), sandbox)
    assert (verdict.outcome, verdict.reason) == ("skip", "gold_invalid")
    report = report_code(solution, asserted(program), sandbox)
    assert "trust_objects" in report.detail
    assert judge_code(solution, replace(asserted(program), trust_objects=True), sandbox).correct


def test_a_class_that_is_the_entry_point_is_asked(sandbox: Sandbox) -> None:
    problem = asserted("s = Stack()\ns.push(3)\nassert s.pop() == 3\nassert Stack() is not s", entry_point="Stack()")
    assert judge_code(STACK, problem, sandbox).correct
    assert judge_code(STACK.replace("self.top = x", "self.top = 4"), problem, sandbox).reason == "wrong"
    method = asserted("assert Solution().f(2) == 4\ns = Solution()\nassert s.f(3) == 9", entry_point="Solution().f")
    assert judge_code("class Solution:\n    def f(self, n): return n * n", method, sandbox).correct
    yes = YES + "class Solution:\n    def f(self, n): return Yes()"
    assert judge_code(yes, replace(method, assertions="assert Solution().f(2).count(4)"), sandbox).reason == "wrong"


def test_a_type_is_no_answer_to_a_test_program(sandbox: Sandbox) -> None:
    assert judge_code("def f(a): return bool", asserted("yes = f(2)\nassert yes(3)"), sandbox).reason == "wrong"
    called = CodeProblem(calls=(CallTest((1,), int),), entry_point="f")
    assert judge_code("def f(a): return int", called, sandbox).correct  # compared, never called


def test_a_record_cannot_bring_methods_of_its_own(sandbox: Sandbox) -> None:
    """An attribute of a method's name would be called in its place: `type` as the value says yes to everything."""
    problem = asserted("assert f(1).holds(7)", prelude=RECORD)
    for shadow in ("holds", "__eq__", "__class__", "v.x"):
        source = f"def f(n):\n    r = Record(1)\n    vars(r)[{shadow!r}] = bool\n    return r\n"
        assert judge_code(source, problem, sandbox).reason == "wrong", shadow
    assert judge_code("def f(n):\n    r = Record(7)\n    r.limit = 5\n    return r\n", problem, sandbox).correct


def test_limits_that_a_call_meets_are_named(sandbox: Sandbox) -> None:
    for source in (
        "def f(n): return bytes(1 << 45)",
        "def f(n): raise MemoryError",
        "def f(n): return [open('main.py', 'a') for _ in range(1000)]",
        "x = bytes(1 << 45)",
    ):
        assert judge_code(source, SQUARES, sandbox).reason == "over_limit", source
    assert judge_code("def f(n): raise OSError('MemoryError')", SQUARES, sandbox).reason == "wrong"


def test_names_of_the_test_are_answered_by_the_reference_not_by_the_candidate(sandbox: Sandbox) -> None:
    # As in HumanEval/33, whose test compares the candidate with the function of its own name.
    problem = asserted(
        "def check(candidate):\n    assert tuple(candidate([2, 1])) == tuple(f([2, 1]))\n",
        reference="def f(x): return sorted(x)",
    )
    assert judge_code("def f(x): return sorted(x)", problem, sandbox).correct
    assert not judge_code("def f(x): return [0]", problem, sandbox).correct


@pytest.mark.parametrize(
    "program",
    [
        "assert f(1) ==",
        "x = f(1)",
        "",
        "def check(candidate):\n    pass",
        "assert 1 + 1 == 2",
        "import no_such_module_r1\nassert f(1)",
    ],
)
def test_a_test_program_that_tests_nothing_is_skipped_not_scored(program: str, sandbox: Sandbox) -> None:
    verdict = judge_code("def f(x): return x", asserted(program), sandbox)
    assert (verdict.outcome, verdict.score) == ("skip", None)


def test_stop_iteration_does_not_end_the_loops_of_a_test(sandbox: Sandbox) -> None:
    program, _ = PROGRAMS["loop in C"]
    assert judge_code("def f(x): raise StopIteration", asserted(program), sandbox).score == 0.0


def test_a_prelude_that_does_not_run_is_our_failure_and_cannot_be_feigned(sandbox: Sandbox) -> None:
    broken = replace(SQUARES, prelude="import no_such_module_r1")
    verdict = judge_code("def f(n): return n * n", broken, sandbox)
    assert (verdict.outcome, verdict.reason) == ("error", "voter_failed")
    feigned = 'import os\nos.write(3, b\'["not loaded", "x", "y"]\\n\')\nos._exit(0)\n'
    assert judge_code(feigned, SQUARES, sandbox).score == 0.0


def test_what_cannot_be_sent_is_our_failure(sandbox: Sandbox) -> None:
    verdict = judge_code("def f(g): return g(2)", asserted("assert f(lambda x: x + 1) == 3"), sandbox)
    assert (verdict.outcome, verdict.reason) == ("error", "voter_failed")


def test_plain_assertions_are_read_without_running_them() -> None:
    program = read_test_program("assert f(1, k={'a': (2.5, -1)}) == [None]\nassert True", "", "", "f")
    assert program.expectations is not None
    (expectation,) = program.expectations
    assert (expectation.args, expectation.kwargs, expectation.expected) == ((1,), {"k": {"a": (2.5, -1)}}, [None])
    for harder in (
        "assert f(x) == 1",
        "assert f(1) == 1 == 1",
        "assert f(*[1]) == 1",
        "assert f(1)",
    ):
        assert read_test_program(harder, "", "", "f").expectations is None
    with pytest.raises(TestProgramError, match="no assertion"):
        read_test_program("f(1)", "", "", "f")


def test_values_by_json_and_tolerance(sandbox: Sandbox) -> None:
    problem = CodeProblem(
        calls=(CallTest(([1, 2],), [[1, 2], 0.333333]),),
        entry_point="f",
        comparison=Comparison(sequences_alike=True, tolerance=1e-5),
    )
    assert judge_code("def f(x): return (tuple(x), 1 / 3)", problem, sandbox).correct
    assert not judge_code("def f(x): return (tuple(x), 1 / 4)", problem, sandbox).correct


def test_hostile_replies_are_wrong_not_fatal(sandbox: Sandbox) -> None:
    lines = [
        b"[" * 100_000,
        b"nonsense",
        b"\xff\xfe",
        b"1" * 5000,
        b'["value"]',
        b'["value", 3]',
        json.dumps({}).encode(),
        b'["unparsable", ' + b"[" * 900 + b"]" * 900 + b"]",
        b'["raised", 1, 2]',
        b'["value", {"root": [0], "heap": [["int", "0x' + b"f" * 9000 + b'"]]}]',
        b"[1]",
    ]
    for line in lines:
        source = f"import os\nos.write(3, b'[\"loaded\"]\\n' + {line!r} + b'\\n')\nos._exit(0)\n"
        assert judge_code(source, SQUARES, sandbox).score == 0.0


def test_a_helper_that_nobody_defines_is_not_the_candidates() -> None:
    """Else the candidate would be asked whether it is right, and told what is."""
    with pytest.raises(TestProgramError, match="'g' is defined nowhere"):
        read_test_program("assert g(1) == 1", "", "", "f")
    with pytest.raises(TestProgramError, match="'isclose' is defined nowhere"):
        read_test_program("assert isclose(f(1), 3.25, rel_tol=0.001)", "", "", "f")
    read_test_program("assert f([Pair(1, 2)]) == 3", "", "", "f")  # its classes may be named

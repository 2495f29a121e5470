"""Why this matters: each set states its tests in its own way; a row read wrongly judges thousands of answers wrongly.

Exercised: every row of the shared sets becomes a problem that survives JSON, and hand-made rows are judged.
Not exercised: the references of the sets (test_references).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from r1kit.sandbox.protocol import Sandbox
from r1kit.verifiers.code import CodeProblem, CodeProblemError, judge_code
from r1kit.verifiers.code.formats import (
    FORMATS,
    from_code_contests,
    from_codeforces,
    from_humaneval,
    from_livecodebench,
    from_mbpp,
    from_taco,
)

from .conftest import Rows

FILES = {
    "humaneval": ("humaneval/test.jsonl.gz", 164),
    "mbpp": ("mbpp/mbpp.jsonl.gz", 974),
    "leetcode": ("leetcode/train.jsonl.gz", 1890),
    "livecodebench": ("livecodebench/earlier_580.jsonl.gz", 580),
    "code_contests": ("code_contests/test.jsonl.gz", 165),
    "codeforces": ("codeforces/test.jsonl.gz", 408),
    "taco": ("taco_sample/train_easy.jsonl.gz", 10),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_becomes_a_problem(name: str, rows: Rows) -> None:
    file, count = FILES[name]
    problems = [FORMATS[name](row) for row in rows(file)]
    assert len(problems) == count
    assert all(p.has_tests for p in problems)
    assert [CodeProblem.from_json(json.loads(json.dumps(p.to_json()))) for p in problems] == problems


SQUARE = "def square(n):\n    return n * n\n"
HUMANEVAL = {
    "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef square(n):\n    """Square of n."""\n',
    "entry_point": "square",
    "canonical_solution": "    return n * n\n",
    "test": "def check(candidate):\n    assert candidate(3) == 9\n    assert half(candidate(2)) == 2\n",
}
MBPP = {
    "test_setup_code": "",
    "test_list": ["assert set(square(3)) == {9}"],
    "challenge_test_list": ["assert square(2) == [4]"],
}
LIVECODEBENCH = {
    "starter_code": "class Solution:\n    def total(self, nums: List[int], by: int) -> int:\n        ",
    "tests": [{"input": "[1, 2]\n3", "output": "9", "testtype": "functional"}],
}
TACO = {
    "input_output": json.dumps({"fn_name": "square", "inputs": [[3], [4]], "outputs": [[9], [16]]}),
    "starter_code": "",
}
TACO_STDIN = {"input_output": {"inputs": ["3\n", ["4"]], "outputs": ["9\n", ["16"]]}}
CONTESTS = {"tests": {"inputs": ["3\n"], "outputs": ["9\n"]}}
CODEFORCES = {"problem": "Time Limit: 1500 ms\nMemory Limit: 64 MB", "test_cases": [{"input": "3", "output": "9"}]}
PRINTS = "print(int(input()) ** 2)\n"


@pytest.mark.parametrize(
    ("problem", "solution"),
    [
        (from_humaneval(HUMANEVAL), SQUARE),
        (from_humaneval(HUMANEVAL), "    return int(half(2 * n)) * n\n"),
        (from_mbpp(MBPP), "def square(n): return [n * n]"),
        (from_mbpp(MBPP, challenge=True), "def square(n): return [n * n]"),
        (
            from_livecodebench(LIVECODEBENCH),
            "class Solution:\n    def total(self, nums: List[int], by: int) -> int: return sum(nums) * by",
        ),
        (from_taco(TACO), SQUARE),
        (from_taco(TACO_STDIN), PRINTS),
        (from_code_contests(CONTESTS), PRINTS),
        (from_codeforces(CODEFORCES), PRINTS),
    ],
)
def test_rows_are_judged(problem: CodeProblem, solution: str, sandbox: Sandbox) -> None:
    assert judge_code(solution, problem, sandbox).correct
    assert judge_code(solution.replace("n", "0 + n", 1).replace("*", "+"), problem, sandbox).score == 0.0


def test_limits_of_a_contest_stretch_with_the_language() -> None:
    python, cpp = from_codeforces(CODEFORCES), from_codeforces(CODEFORCES, language="cpp")
    assert (python.limits.cpu_seconds, cpp.limits.cpu_seconds) == (7.5, 1.5)
    assert cpp.limits.memory_bytes == 64 << 20


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("humaneval", {"prompt": ""}, "humaneval: no field entry_point, test, canonical_solution"),
        ("code_contests", {"tests": {"inputs": ["1"], "outputs": []}}, "1 inputs and 0 outputs"),
        ("livecodebench", {"tests": [{"testtype": "shell"}]}, r"testtype is \['shell'\]"),
    ],
)
def test_rows_of_another_shape_are_refused_by_name(name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(CodeProblemError, match=message):
        FORMATS[name](row)

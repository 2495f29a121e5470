"""Why this matters: a problem travels as JSON through data files and run directories, and one that is stated wrongly
must be refused by the name of its field before it costs a run.

Not exercised: judging.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from r1kit.sandbox.protocol import Limits
from r1kit.verifiers.code import CallTest, Checker, CodeProblem, CodeProblemError, Comparison, ProgramTest, Subtask

PROBLEMS = [
    CodeProblem(),
    CodeProblem(
        "cpp", programs=(ProgramTest("1", "2"),), limits=Limits(cpu_seconds=1.5), comparison=Comparison("exact")
    ),
    CodeProblem(
        calls=(CallTest(([1, {"a": None}],), 2.5, {"k": True}),), entry_point="Solution().f", scoring="partial"
    ),
    CodeProblem(
        assertions="assert f(1) == 2", entry_point="f", prelude="import math", stub="def f(x):", reference="x = 1"
    ),
    CodeProblem(
        programs=(ProgramTest("1", "2"), ProgramTest("3", "4")),
        checker=Checker("print(1)", "python", ("answer", "output", "input"), "stdout"),
        scoring="subtasks",
        subtasks=(Subtask("a", 40, (0,)), Subtask("b", 60, (0, 1))),
    ),
]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_json_and_back(problem: CodeProblem) -> None:
    assert CodeProblem.from_json(json.loads(json.dumps(problem.to_json()))) == problem


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"programs": [{"stdin": "1"}]}, r"programs\[0\].*expected"),
        ({"programs": "x"}, "programs is str: expected a list"),
        ({"programs": [{"stdin": "1", "expected": "2", "out": ""}]}, r"programs\[0\] has no field out"),
        ({"test": []}, "problem has no field test"),
        ({"language": "cobol"}, "language is 'cobol'"),
        ({"calls": [{"args": 3, "expected": 1}], "entry_point": "f"}, r"calls\[0\].args is 3"),
        ({"calls": [{"args": [3], "expected": 1}]}, "entry_point is ''"),
        ({"calls": [{"args": [3], "expected": 1}], "entry_point": "os.system('x')"}, "entry_point is"),
        ({"calls": [{"args": [3], "expected": 1}], "entry_point": "f", "language": "cpp"}, "in Python only"),
        (
            {"assertions": "assert f()", "programs": [{"stdin": "", "expected": ""}], "entry_point": "f"},
            "one kind of test",
        ),
        ({"comparison": {"how": "float"}}, "tolerance is 0"),
        ({"comparison": {"how": "fuzzy"}}, "comparison.how is 'fuzzy'"),
        ({"comparison": {"tolerance": float("nan")}}, "comparison.tolerance is nan"),
        ({"scoring": "best"}, "scoring is 'best'"),
        ({"scoring": "subtasks"}, "with 0 subtasks"),
        ({"checker": {"source": "x"}}, "checker is given without programs"),
        ({"checker": {"source": " "}, "programs": [{"stdin": "", "expected": ""}]}, "checker.source is empty"),
        ({"limits": {"seconds": 1}}, "limits has no field seconds"),
        (
            {
                "programs": [{"stdin": "", "expected": ""}],
                "scoring": "subtasks",
                "subtasks": [{"name": "a", "points": 1, "tests": [1]}],
            },
            "subtasks.a",
        ),
    ],
)
def test_what_is_stated_wrongly_is_refused_by_name(row: dict[str, Any], message: str) -> None:
    with pytest.raises(CodeProblemError, match=message):
        CodeProblem.from_json(row)


def test_values_beyond_json_do_not_become_json() -> None:
    with pytest.raises(CodeProblemError, match=r"calls\[0\]"):
        CodeProblem(calls=(CallTest(((1, 2),), 3),), entry_point="f").to_json()

"""Rows of published code data sets as problems: HumanEval, MBPP, LeetCodeDataset, LiveCodeBench, CodeContests,
Codeforces, TACO. One function per set, from a row as it is published to a `CodeProblem`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1kit.sandbox.protocol import MIB, Limits
from r1kit.verifiers.code.problem import (
    CallTest,
    CodeProblem,
    CodeProblemError,
    Comparison,
    ProgramTest,
    Scoring,
    contest_limits,
)

Row = Mapping[str, Any]
FUNCTION_LIMITS = Limits(cpu_seconds=10.0)
JSON_VALUES = Comparison(sequences_alike=True)
_TIME = re.compile(r"Time Limit:\s*([\d.]+)\s*(ms|s)", re.IGNORECASE)
_MEMORY = re.compile(r"Memory Limit:\s*([\d.]+)\s*MB", re.IGNORECASE)


def from_humaneval(row: Row) -> CodeProblem:
    """The prompt's imports and helpers stand before the candidate; where the test names the entry point itself
    (HumanEval/33), the canonical solution answers, not the candidate.
    """
    _need(row, "humaneval", "prompt", "entry_point", "test", "canonical_solution")
    return CodeProblem(
        assertions=row["test"],
        entry_point=row["entry_point"],
        prelude=_before_definition(row["prompt"], row["entry_point"]),
        stub=row["prompt"],
        reference=row["prompt"] + row["canonical_solution"],
        limits=FUNCTION_LIMITS,
    )


def from_mbpp(row: Row, *, challenge: bool = False) -> CodeProblem:
    """The assertions of `test_list` (and of `challenge_test_list` where asked), behind `test_setup_code`."""
    _need(row, "mbpp", "test_list", "test_setup_code")
    tests = [*row["test_list"], *(row.get("challenge_test_list", []) if challenge else [])]
    return CodeProblem(
        assertions="\n".join([row["test_setup_code"].replace("\r", ""), *tests]) if tests else "",
        entry_point=_first_function(tests) if tests else "f",
        limits=FUNCTION_LIMITS,
    )


def from_leetcode(row: Row) -> CodeProblem:
    """LeetCodeDataset: `check(candidate)` over `Solution().method`; the prompt holds imports and node classes."""
    _need(row, "leetcode", "prompt", "entry_point", "test")
    return CodeProblem(
        assertions=row["test"], entry_point=row["entry_point"], prelude=row["prompt"], limits=FUNCTION_LIMITS
    )


def from_livecodebench(row: Row, *, scoring: Scoring = "pass_fail") -> CodeProblem:
    """`tests` of type "stdin" or "functional" (JSON arguments, one a line, for a method of `Solution`)."""
    _need(row, "livecodebench", "tests")
    kinds = {t["testtype"] for t in row["tests"]}
    if kinds == {"stdin"}:
        programs = tuple(ProgramTest(t["input"], t["output"]) for t in row["tests"])
        limits = Limits(cpu_seconds=6.0)
        return CodeProblem(programs=programs, scoring=scoring, limits=limits, comparison=_FLOATS)
    if kinds != {"functional"}:
        raise CodeProblemError(f"livecodebench: tests[].testtype is {sorted(kinds)}: expected stdin or functional")
    method = re.search(r"def +(\w+)\(", row["starter_code"])
    if method is None:
        raise CodeProblemError("livecodebench: starter_code defines no method")
    calls = tuple(
        CallTest(tuple(json.loads(line) for line in t["input"].split("\n") if line.strip()), json.loads(t["output"]))
        for t in row["tests"]
    )
    return CodeProblem(
        calls=calls,
        entry_point=f"Solution().{method[1]}",
        prelude=PRELUDE,
        comparison=JSON_VALUES,
        scoring=scoring,
        limits=FUNCTION_LIMITS,
    )


def from_code_contests(row: Row, *, language: str = "python", scoring: Scoring = "pass_fail") -> CodeProblem:
    """`tests` as parallel lists of inputs and outputs; CodeContests names no checker, so outputs are compared."""
    _need(row, "code_contests", "tests")
    tests = row["tests"]
    programs = _programs("code_contests", tests["inputs"], tests["outputs"])
    limits = contest_limits(2.0, 256, language)
    return CodeProblem(language, programs=programs, scoring=scoring, limits=limits, comparison=_FLOATS)


def from_codeforces(row: Row, *, language: str = "python", scoring: Scoring = "pass_fail") -> CodeProblem:
    """`test_cases`; time and memory limits as the statement names them, the time stretched for `language`."""
    _need(row, "codeforces", "problem", "test_cases")
    time, memory = _TIME.search(row["problem"]), _MEMORY.search(row["problem"])
    seconds = float(time[1]) / (1000 if time[2].lower() == "ms" else 1) if time else 2.0
    cases = row["test_cases"]
    programs = _programs("codeforces", [c["input"] for c in cases], [c["output"] for c in cases])
    limits = contest_limits(seconds, float(memory[1]) if memory else 256, language)
    return CodeProblem(language, programs=programs, scoring=scoring, limits=limits, comparison=_FLOATS)


def from_taco(row: Row, *, scoring: Scoring = "pass_fail") -> CodeProblem:
    """`input_output`: programs, or calls of `fn_name`, whose outputs the set wraps in lists of one."""
    _need(row, "taco", "input_output")
    stated = row["input_output"]
    io = json.loads(stated) if isinstance(stated, str) else stated
    if not io.get("fn_name"):
        programs = _programs("taco", list(map(_text, io["inputs"])), list(map(_text, io["outputs"])))
        limits = Limits(cpu_seconds=10.0, memory_bytes=512 * MIB)
        return CodeProblem(programs=programs, scoring=scoring, limits=limits, comparison=_FLOATS)
    name = io["fn_name"]
    entry = f"Solution().{name}" if "class Solution" in (row.get("starter_code") or "") else name
    wrapped = all(isinstance(out, list) and len(out) == 1 for out in io["outputs"])
    calls = tuple(
        CallTest(tuple(args), out[0] if wrapped else out) for args, out in zip(io["inputs"], io["outputs"], strict=True)
    )
    return CodeProblem(
        calls=calls,
        entry_point=entry,
        prelude=PRELUDE,
        comparison=JSON_VALUES,
        scoring=scoring,
        limits=FUNCTION_LIMITS,
    )


FORMATS: dict[str, Callable[[Row], CodeProblem]] = {
    "humaneval": from_humaneval,
    "mbpp": from_mbpp,
    "leetcode": from_leetcode,
    "livecodebench": from_livecodebench,
    "code_contests": from_code_contests,
    "codeforces": from_codeforces,
    "taco": from_taco,
}

# What the sites put before a solution; responses rely on it.
PRELUDE = """import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
inf = float("inf")
"""
_FLOATS = Comparison("float", tolerance=1e-6)


def _need(row: Row, name: str, *fields: str) -> None:
    missing = [f for f in fields if f not in row]
    if missing:
        raise CodeProblemError(f"{name}: no field {', '.join(missing)} in the row; it has {sorted(row)}")


def _programs(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[ProgramTest, ...]:
    if len(inputs) != len(outputs):
        raise CodeProblemError(f"{name}: {len(inputs)} inputs and {len(outputs)} outputs: expected as many")
    return tuple(map(ProgramTest, inputs, outputs))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _before_definition(prompt: str, entry_point: str) -> str:
    head, found, _ = prompt.rpartition(f"def {entry_point}(")
    return head if found else ""


def _first_function(tests: Sequence[str]) -> str:
    """The function that the first assertion calls: the outermost call of a name that is no builtin wrapper."""
    wrappers = {"set", "list", "sorted", "tuple", "int", "float", "str", "len", "round", "abs", "math", "isclose"}
    calls = [n for n in ast.walk(ast.parse(tests[0])) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    names = [c.func.id for c in calls if isinstance(c.func, ast.Name)]
    return next((n for n in names if n not in wrappers), names[0] if names else "f")

"""Why this matters: a judge that refuses a right solution teaches the policy to avoid it. Every published reference of
HumanEval, MBPP and LeetCode has to pass, and small changes to them have to fail exactly where the published tests fail.

Exercised: a sample here, everything in the slow tests; the mutants' verdicts against a plain run of the same tests.
Not exercised: data sets without reference solutions (test_formats reads those).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest

from r1kit.sandbox import Job, Sandbox, SandboxError, open_sandbox
from r1kit.verifiers.code import CodeProblem, judge_code
from r1kit.verifiers.code.formats import from_humaneval, from_leetcode, from_mbpp, from_taco
from r1kit.verifiers.code.judge import completed
from r1kit.verifiers.code.libraries import library_files

from .conftest import Rows
from .mutants import mutants

Row = dict[str, Any]
SETS: dict[str, tuple[str, Callable[[Row], CodeProblem], Callable[[Row], str], int]] = {
    "humaneval": (
        "humaneval/test.jsonl.gz",
        from_humaneval,
        lambda row: row["prompt"] + row["canonical_solution"],
        164,
    ),
    "mbpp": ("mbpp/mbpp.jsonl.gz", from_mbpp, lambda row: row["code"], 974),
    "leetcode": ("leetcode/train.jsonl.gz", from_leetcode, lambda row: row["completion"], 1890),
}
# Its reference returns two paths in the order of a set, which the hash seed decides; the published test wants one.
BY_CHANCE = {"word-ladder-ii"}


def refused(name: str, rows: Iterable[Row], sandbox: Sandbox) -> list[str]:
    """The tasks whose reference does not pass."""
    _, problem_of, solution_of, _ = SETS[name]

    def judged(row: Row) -> str | None:
        verdict = judge_code(solution_of(row), problem_of(row), sandbox)
        return None if verdict.correct else str(row["task_id"])

    with ThreadPoolExecutor(2) as pool:
        return [task for task in pool.map(judged, rows) if task is not None]


def runnable(name: str, rows: list[Row], sandbox: Sandbox) -> list[Row]:
    """The rows whose reference imports nothing that the sandbox lacks and whose verdict is not left to chance."""
    probe = "print(*[n for n in ('numpy', 'sortedcontainers') if find_spec(n) is None])"
    job = Job(("python", "main.py"), {"main.py": f"from importlib.util import find_spec\n{probe}".encode()})
    lacking = set(sandbox.run(job).stdout.decode().split())
    if find_spec("sortedcontainers") is not None:
        lacking -= {"sortedcontainers"}  # the judge hands it in
    solution_of = SETS[name][2]
    imports = [f"import {library}" for library in lacking] + [f"from {library}" for library in lacking]
    return [
        row for row in rows if row["task_id"] not in BY_CHANCE and not any(text in solution_of(row) for text in imports)
    ]


@pytest.mark.parametrize("name", SETS)
def test_references_pass_sample(name: str, rows: Rows, sandbox: Sandbox) -> None:
    everything = rows(SETS[name][0])
    assert len(everything) == SETS[name][3]
    hard = {"HumanEval/32", "HumanEval/33", "HumanEval/38", "HumanEval/50", "HumanEval/53", 367, 533, 596, 601, 927}
    hard |= {"binary-tree-inorder-traversal", "remove-nth-node-from-end-of-list", "invert-binary-tree"}
    sample = [row for row in everything if row["task_id"] in hard] + random.Random(0).sample(everything, 20)
    assert refused(name, runnable(name, sample, sandbox), sandbox) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SETS)
def test_references_pass(name: str, rows: Rows, sandbox: Sandbox) -> None:
    everything = runnable(name, rows(SETS[name][0]), sandbox)
    assert len(everything) >= SETS[name][3] - 20
    assert refused(name, everything, sandbox) == []


def test_references_that_need_a_library_pass_where_it_is_offered(rows: Rows) -> None:
    needy = [row for row in rows(SETS["leetcode"][0]) if "numpy" in SETS["leetcode"][2](row)]
    assert needy
    try:
        box = open_sandbox(libraries=("numpy",))
    except SandboxError as error:
        pytest.skip(f"no sandbox with numpy here: {error}")
    with box:
        assert refused("leetcode", needy, box) == []


def test_taco_references_pass(rows: Rows, sandbox: Sandbox) -> None:
    everything = rows("taco_sample/train_easy.jsonl.gz")
    sound = [
        row for row in everything if row["url"]
    ]  # the one without has its outputs in another order than its inputs
    assert len(sound) == len(everything) - 1
    for row in sound:
        problem = from_taco(row)
        problem = replace(problem, programs=problem.programs[:6])
        assert judge_code(row["solutions"][0], problem, sandbox).correct, row["url"]


def plainly_passes(source: str, problem: CodeProblem, sandbox: Sandbox) -> bool:
    """Whether the published test passes as published, in one process with the candidate, which has to be honest."""
    call = f"check({problem.entry_point})" if "def check(" in problem.assertions else ""
    text = "\n".join(
        [problem.prelude, completed(source, problem), problem.assertions, call, "open(3, 'w').write('end')"]
    )
    files = {"main.py": text.encode(), **library_files(text)}
    result = sandbox.run(Job(("python", "main.py"), files, limits=problem.limits))
    return result.status == "ok" and result.reply == b"end"


def mutated(name: str, rows: list[Row], each: int, sandbox: Sandbox) -> dict[str, list[str]]:
    """`each` mutants of every row's reference: which our judge and the plain run agree to fail, which they agree to
    pass, and where they differ.
    """
    _, problem_of, solution_of, _ = SETS[name]
    outcomes: dict[str, list[str]] = {"fail": [], "pass": [], "differ": []}

    def judged(item: tuple[Row, str]) -> tuple[str, str]:
        row, mutant = item
        problem = problem_of(row).with_limits(cpu_seconds=2.0)
        ours, plain = judge_code(mutant, problem, sandbox).correct, plainly_passes(mutant, problem, sandbox)
        return str(row["task_id"]), ("pass" if ours else "fail") if ours == plain else "differ"

    items = []
    for row in rows:
        made = mutants(solution_of(row))
        items += [(row, mutant) for mutant in random.Random(0).sample(made, min(each, len(made)))]
    with ThreadPoolExecutor(2) as pool:
        for task, outcome in pool.map(judged, items):
            outcomes[outcome].append(task)
    return outcomes


@pytest.mark.parametrize("name", SETS)
def test_mutants_fail_where_the_published_tests_fail_sample(name: str, rows: Rows, sandbox: Sandbox) -> None:
    everything = runnable(name, rows(SETS[name][0]), sandbox)
    outcomes = mutated(name, random.Random(1).sample(everything, 12), 2, sandbox)
    assert outcomes["differ"] == []
    assert len(outcomes["fail"]) > len(outcomes["pass"])  # what passes is equivalent, or not covered by the tests


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SETS)
def test_mutants_fail_where_the_published_tests_fail(name: str, rows: Rows, sandbox: Sandbox) -> None:
    everything = runnable(name, rows(SETS[name][0]), sandbox)
    outcomes = mutated(name, random.Random(2).sample(everything, 160), 2, sandbox)
    # Their tests call functions of the prompt or the entry point: the candidate's as published, the problem's here.
    assert set(outcomes["differ"]) <= {"HumanEval/33", "HumanEval/38", "HumanEval/50"}
    assert len(outcomes["fail"]) > 2 * len(outcomes["pass"])

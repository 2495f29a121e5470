"""Why this matters: judges are called from trainers, data loaders, servers and notebooks. Where a verdict depended on
the process or thread that asks for it, stored responses would be graded otherwise than they were trained.

Not exercised: mathematics, whose workers have a test of their own (math/test_voter_pool.py).
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from r1kit.sandbox import SandboxError, shared_sandbox
from r1kit.verifiers.registry import make_judge

SUM = {"programs": [{"stdin": "1 2", "expected": "3"}], "limits": {"cpu_seconds": 0.2}}
NEXT = {"calls": [{"args": [1], "expected": 2}], "entry_point": "f"}
FENCED = "```python\n{}\n```".format
CASES: list[tuple[str, Any, str, str]] = [
    ("code", SUM, FENCED("print(sum(map(int, input().split())))"), "correct"),
    ("code", SUM, FENCED("print(4)"), "wrong"),
    ("code", SUM, FENCED("while True: pass"), "over_limit"),
    ("code", NEXT, FENCED("def f(x): return x + 1"), "correct"),
    ("code", NEXT, FENCED("import os\ndef f(x): os._exit(0)"), "wrong"),
    ("regex", "a+b", "aaab", "correct"),
    ("choice", "B", "Answer: B", "correct"),
    ("countdown", {"numbers": [2, 3, 5], "target": 7}, "3.5*2", "unparsable"),
]


def reasons(_: int = 0) -> list[str]:
    return [make_judge(kind, gold)(prediction).reason for kind, gold, prediction, _ in CASES]


def test_verdicts_are_the_same_from_every_context() -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    expected = [reason for *_, reason in CASES]
    assert reasons() == expected
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(reasons, range(2))) == [expected] * 2

    async def inside() -> list[list[str]]:
        return [reasons(), await asyncio.to_thread(reasons)]

    assert asyncio.run(inside()) == [expected] * 2
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as processes:
            assert processes.map(reasons, range(1)) == [expected], method

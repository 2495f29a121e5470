"""Why this matters: math-verify hangs, eats memory and dies on text that a policy writes, and its own guard (an alarm)
fails off the main thread, where trainers call it. A lost worker or a limit must never become a verdict. Exercised: the
limits of a worker, whose fault they are, kills at random, recycling, and equal verdicts from the main thread, threads,
asyncio, and spawn, fork and forkserver processes.

Not exercised: machines without forks; what math-verify gets right (benchmarks).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from r1kit.verifiers.math import VoterLimits, VoterPool, judge_math

from .contexts import verdicts

pytest.importorskip("math_verify")
JOBS = [
    ("1", r"\int_0^1 2x \, dx", "yes"),
    ("2", r"\int_0^1 2x \, dx", "no"),
    ("3", r"\frac{6}{2}", "yes"),
    (r"\frac{1}{2}", "0.6", "no"),
    ("x^2", r"x \cdot x", "yes"),
    (r"\{1,2\}", "{2,1}", "yes"),
]
QUICK = JOBS[2:]


@pytest.fixture(scope="module")
def pool() -> Iterator[VoterPool]:
    with VoterPool(2, VoterLimits(cpu_seconds=1.0)) as started:
        yield started


def test_answers_are_math_verifys(pool: VoterPool) -> None:
    for gold, prediction, expected in JOBS:
        assert pool.judge(gold, prediction) == expected
    assert pool.judge("3", "") == "unparsable"


def test_the_candidates_excess_is_told_from_the_golds(pool: VoterPool) -> None:
    bomb = r"\sum_{k=1}^{10000000} \sin(k)"
    assert pool.judge("42", bomb) == "over_limit"
    assert pool.judge(bomb, "42") == "failed"
    assert pool.judge(*JOBS[0][:2]) == "yes"  # the next job is unaffected


def test_memory_is_bounded_and_no_core_is_dumped(pool: VoterPool) -> None:
    assert pool.judge(*JOBS[0][:2]) == "yes"
    for pid in pool.pids():
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(rf"Max address space\s+{pool.limits.memory_bytes}\s", limits)
        assert re.search(r"Max core file size\s+0\s", limits)


def test_workers_are_recycled() -> None:
    with VoterPool(1, VoterLimits(jobs=3)) as pool:
        seen = set()
        for _ in range(7):
            assert pool.judge("3", r"\frac{6}{2}") == "yes"
            seen.update(pool.pids())
        assert len(seen) == 3
        assert pool.lost == 0


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_kills_at_random_lose_no_verdict_and_make_none_wrong(pool: VoterPool, count: int) -> None:
    lost_before = pool.lost
    rng, kills, judged, done = random.Random(3), 0, 0, threading.Event()

    def kill() -> None:
        """At random moments, but no faster than verdicts come: the machine may be busy."""
        nonlocal kills
        while not done.is_set() and kills < count:
            time.sleep(rng.uniform(0.0, 0.01))
            pids = pool.pids()
            if pids and kills <= judged:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    kills += 1

    def judge(job: tuple[str, str, str]) -> None:
        nonlocal judged
        assert pool.judge(job[0], job[1]) == job[2]
        judged += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(3) as threads:
            while killer.is_alive():
                list(threads.map(judge, [rng.choice(QUICK) for _ in range(60)]))
    finally:
        done.set()
        killer.join()
    assert kills == count
    assert judged >= count
    assert pool.lost > lost_before  # the kills did hit jobs


def test_the_helper_process_may_be_killed_too(pool: VoterPool) -> None:
    assert pool._helper is not None
    pool._helper.process.kill()
    for gold, prediction, expected in JOBS:
        assert pool.judge(gold, prediction) == expected


def test_a_worker_that_keeps_getting_lost_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = type("Lost", (), {"name": "lost", "judge": lambda self, gold, prediction: "lost"})()
    verdict = judge_math(r"\int_0^1 2x dx", "1", voters=[lost])
    assert (verdict.outcome, verdict.score, verdict.reason) == ("error", None, "worker_lost")
    failed = type("Failed", (), {"name": "failed", "judge": lambda self, gold, prediction: "failed"})()
    right = type("Right", (), {"name": "right", "judge": lambda self, gold, prediction: "yes"})()
    verdict = judge_math(r"\int_0^1 2x dx", "1", voters=[failed])
    assert (verdict.outcome, verdict.reason) == ("error", "voter_failed")
    assert judge_math(r"\int_0^1 2x dx", "1", voters=[failed, lost, right]).voter == "right"


def test_verdicts_are_the_same_from_every_context() -> None:
    expected = verdicts()
    assert [v[2] for v in expected] == ["correct", "wrong", "correct", "wrong", "over_limit", "gold_invalid"]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(verdicts, range(8))) == [expected] * 8

    async def gather() -> list[object]:
        return await asyncio.gather(*(asyncio.to_thread(verdicts) for _ in range(4)))

    assert asyncio.run(gather()) == [expected] * 4
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(1) as processes:  # daemonic: no multiprocessing inside
            assert processes.map(verdicts, range(2)) == [expected] * 2, method

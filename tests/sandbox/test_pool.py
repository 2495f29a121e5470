"""Many programs at once, workers that are killed, and machines that are busy: none of it may change or lose a verdict.

Killed are the supervisor, the zygote and what started them, at random moments. Not exercised: a kernel that runs out of
memory and chooses its own victims.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r1kit.sandbox import CellPool, Job, Limits, Result, SandboxError, open_sandbox
from r1kit.sandbox.inside import watch
from r1kit.sandbox.protocol import MIB

from .conftest import open_or_skip
from .programs import SMALL, assert_unharmed, python

ECHO = "print(int(input()) * 2)"


def numbers(count: int) -> list[Job]:
    return [python(ECHO, stdin=str(number).encode()) for number in range(count)]


def test_results_keep_the_order_of_the_jobs(bubblewrap: CellPool) -> None:
    results = bubblewrap.run_many(numbers(20))
    assert [result.stdout for result in results] == [b"%d\n" % (2 * number) for number in range(20)]
    assert bubblewrap.run_many([]) == []


def test_stop_ends_what_lies_behind(bubblewrap: CellPool) -> None:
    """Everything up to the first failure is there, and a program that would sleep for long behind it is ended."""
    sleeper = python("import time; time.sleep(100)", limits=Limits(wall_seconds=100.0))
    jobs = [*numbers(3), python("1 / 0"), sleeper, *numbers(50)]
    began = time.monotonic()
    results = bubblewrap.run_many(jobs, stop=lambda result: result.status != "ok")
    assert [result.status for result in results] == ["ok"] * 3 + ["failed"]
    assert time.monotonic() - began < 60
    assert_unharmed(bubblewrap)


def test_the_first_stop_wins_even_if_a_later_one_is_faster(bubblewrap: CellPool) -> None:
    slow = python("import time; time.sleep(1); raise SystemExit(5)")
    results = bubblewrap.run_many([slow, python("raise SystemExit(6)")], stop=lambda result: result.status != "ok")
    assert [result.exit_code for result in results] == [5]


def test_an_error_of_stop_reaches_the_caller(bubblewrap: CellPool) -> None:
    def stop(result: Result) -> bool:
        raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        bubblewrap.run_many(numbers(10), stop=stop)
    assert_unharmed(bubblewrap)


def test_threads_share_a_sandbox(bubblewrap: CellPool) -> None:
    def work(thread: int) -> list[bytes]:
        jobs = [python(ECHO, stdin=str(100 * thread + number).encode()) for number in range(5)]
        return [bubblewrap.run(job).stdout for job in jobs]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [[b"%d\n" % (2 * (100 * thread + number)) for number in range(5)] for thread in range(8)]


@pytest.mark.parametrize("tier", ["bubblewrap", "unshare", "landlock"])
def test_killed_workers_lose_no_verdict(tier: str) -> None:
    generator, killed, done = random.Random(0), 0, threading.Event()
    with open_or_skip(tier) as sandbox:
        known: list[int] = []

        def murder() -> None:
            nonlocal killed
            while not done.wait(generator.uniform(0.2, 1.2)):
                cells = [watch.descendants(os.getpid())]
                tree = [process for process in cells[0] if _is_ours(process)]
                if tree:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(generator.choice(tree), signal.SIGKILL)
                        killed += 1

        murderer = threading.Thread(target=murder)
        murderer.start()
        try:
            wrong = []
            end = time.monotonic() + 8.0
            number = 0
            while time.monotonic() < end:
                jobs = [python(ECHO, stdin=str(n).encode()) for n in range(number, number + 4)]
                for n, result in enumerate(sandbox.run_many(jobs), number):
                    # A kill that hits the program itself is the program's end by a signal, in the eyes of any judge.
                    if result.signal is None and result.stdout != b"%d\n" % (2 * n):
                        wrong.append((n, result))
                    known.append(n)
                number += 4
        finally:
            done.set()
            murderer.join()
        assert wrong == []
        assert known == list(range(number))
        assert killed > 5
        assert_unharmed(sandbox)


def _is_ours(process: int) -> bool:
    """Below pytest there may be other sandboxes of the session; any process of any sandbox may die."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return b"r1kit.sandbox" in command


def test_a_killed_idle_cell_is_replaced(bubblewrap: CellPool) -> None:
    assert_unharmed(bubblewrap)
    for cell in bubblewrap._idle:
        for process in watch.descendants(cell.process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    assert_unharmed(bubblewrap)


def test_trouble_of_ours_is_sandbox_failed(bubblewrap: CellPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that cannot start are tried again, then named; the program is not blamed."""
    with CellPool("bubblewrap", "private", 1) as sandbox:
        monkeypatch.setattr("r1kit.sandbox.launch.shutil.which", lambda *_, **__: "/bin/false")
        result = sandbox.run(python("print(1)"))
        assert result.status == "sandbox_failed"
        assert "tried 6 times" in result.detail
        monkeypatch.undo()
        assert sandbox.run(python("print(1)")).status == "ok"


def test_a_closed_sandbox_says_so(bubblewrap: CellPool) -> None:
    sandbox = CellPool("bubblewrap", "private", 1)
    assert sandbox.run(python("print(1)")).status == "ok"
    cell = sandbox._idle[0]
    sandbox.close()
    assert cell._process.poll() is not None
    with pytest.raises(RuntimeError, match="closed"):
        sandbox.run(python("print(1)"))


def test_a_forked_child_has_cells_of_its_own(bubblewrap: CellPool) -> None:
    assert_unharmed(bubblewrap)
    child = os.fork()
    if not child:
        fine = all(bubblewrap.run(job).stdout == b"%d\n" % (2 * n) for n, job in enumerate(numbers(3)))
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert_unharmed(bubblewrap)


MIXED = [
    ("print(sum(range(100_000)))", "ok"),
    ("while True: pass", "cpu_limit"),
    ("kept = []\nwhile True: kept.append(b'x' * 1_000_000)", "memory_limit"),
    ("while True: print('x' * 10_000)", "output_limit"),
    ("1 / 0", "failed"),
    ("end = __import__('time').process_time() + 0.1\nwhile __import__('time').process_time() < end: pass", "ok"),
    ("import time; time.sleep(0.3); print(1)", "ok"),
    ("import subprocess, sys; subprocess.run(['sh', '-c', 'echo 1'])", "ok"),
]


def test_the_same_verdicts_under_an_eightfold_overload() -> None:
    """As many programs at a time as eight times the cores, next to as many at a time as there are cores."""
    limits = Limits(cpu_seconds=0.5, memory_bytes=128 * MIB, output_bytes=MIB)
    jobs = [python(source, limits=limits) for source, _ in MIXED] * 2
    expected = [status for _, status in MIXED] * 2
    cores = len(os.sched_getaffinity(0))
    for workers in (cores, 8 * cores):
        with open_or_skip("bubblewrap", workers=workers) as sandbox:
            assert [result.status for result in sandbox.run_many(jobs)] == expected, f"{workers} at a time"


def test_the_ladder() -> None:
    """Without bubblewrap the next tier is taken; without any, the message says what to do."""
    for arguments, words in (
        ({"tier": "chroot"}, "none of bubblewrap"),
        ({"isolation": "none"}, "neither 'private' nor 'shared'"),
        ({"workers": 0}, "at least one worker"),
        ({"tier": "rlimits"}, "sandbox.allow_unsafe: true"),
    ):
        with pytest.raises(SandboxError, match=words):
            open_sandbox(**arguments)  # type: ignore[arg-type]


def test_a_tier_that_does_not_hold_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """bubblewrap absent; namespaces refused: Landlock, when the kernel has it, or a refusal with every reason."""
    monkeypatch.setattr(
        "r1kit.sandbox.launch.shutil.which", lambda name, **_: None if name == "bwrap" else f"/usr/bin/{name}"
    )
    with open_sandbox(workers=1) as sandbox:
        assert sandbox.tier in ("unshare", "landlock")
    monkeypatch.setattr("r1kit.sandbox.opening.TIERS", ("bubblewrap", "rlimits"))
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        open_sandbox(workers=1)
    with open_sandbox(workers=1, allow_unsafe=True) as sandbox:
        assert sandbox.tier == "rlimits"
        assert sandbox.run(python("print(1)", limits=SMALL)).stdout == b"1\n"


def test_the_probe_finds_what_a_tier_does_not_hold() -> None:
    """The last tier isolates nothing: the same probe has to say so."""
    from r1kit.sandbox import opening

    with open_or_skip("rlimits", workers=1) as sandbox:
        sandbox.tier = "rlimits"
        findings = opening.probe(_Renamed(sandbox))  # type: ignore[arg-type]
        assert "reads host files" in findings
        assert "has a network" in findings


class _Renamed:
    """A sandbox of the last tier under the name of a better one, so that the probe's findings are not waived."""

    tier = "bubblewrap"

    def __init__(self, sandbox: CellPool) -> None:
        self.run = sandbox.run

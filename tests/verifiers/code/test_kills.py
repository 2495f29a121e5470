"""Why this matters: on a busy machine an administrator or a kernel short of memory kills what it likes. A verdict that
is lost, or a right program that reads as wrong because its sandbox died under it, would teach the policy noise.

Exercised: any process of a sandbox (supervisor, zygote, first process of a namespace, guard, the program itself) killed
at random while right and wrong programs of every kind of problem are judged in two threads; in the slow test a thousand
kills. Not exercised: kills of the judging process itself (tests/sandbox/test_leftovers.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, ClassVar

import pytest

from r1kit.sandbox import SandboxError, open_sandbox
from r1kit.sandbox.cell import Cell
from r1kit.sandbox.inside import watch
from r1kit.verifiers.code import CallTest, Checker, CodeProblem, ProgramTest, judge_code

SQUARE = tuple(ProgramTest(f"{n}\n", f"{n * n}\n") for n in (2, 5, 9))
CHECKER = "import sys\ni, o, a = (open(name).read().split() for name in sys.argv[1:])\nsys.exit(0 if o == a else 1)\n"
LOOP = "def check(candidate):\n    for n in (0, 3, 7):\n        assert candidate(n) == n * n\n"
KINDS = {
    "calls": (CodeProblem(calls=tuple(CallTest((n,), n * n) for n in (0, 3, 7)), entry_point="f"), "def f(n): return"),
    "loop": (CodeProblem(assertions=LOOP, entry_point="f"), "def f(n): return"),
    "programs": (CodeProblem(programs=SQUARE), "n = int(input()); print"),
    "checker": (
        CodeProblem(programs=SQUARE[:1], checker=Checker(CHECKER, language="python")),
        "n = int(input()); print",
    ),
}
RIGHT, WRONG = "(n * n)  # {}\n", "(n * n + 1)  # {}\n"


def judged(number: int, sandbox: object) -> tuple[str, bool, str]:
    """The kind, whether the program is right, and the reason it got."""
    name = list(KINDS)[number % len(KINDS)]
    problem, start = KINDS[name]
    right = number // len(KINDS) % 2 == 0
    source = start + (RIGHT if right else WRONG).format(number)
    return name, right, judge_code(source, problem, sandbox).reason  # type: ignore[arg-type]


class KnownCell(Cell):
    """Remembers the processes it began with: when its first one is killed, the others are nobody's children of ours."""

    roots: ClassVar[list[int]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.roots += [self.process, *watch.descendants(self.process)]


class Killer:
    """Kills one process of the known cells after another, until told to stop; not more often than verdicts come, so
    that a busy machine gets anywhere.
    """

    def __init__(self, seed: int, wanted: int, pause: float) -> None:
        self.generator, self.wanted, self.pause = random.Random(seed), wanted, pause
        self.kills, self.verdicts, self.done = 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while self.kills < self.wanted and not self.done.wait(self.generator.uniform(0.2, 1.8) * self.pause):
            if self.kills > self.verdicts + 10:
                continue
            roots = [root for root in KnownCell.roots if not watch.is_dead(root)]
            tree = {process for root in roots for process in (root, *watch.descendants(root))}
            if tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.generator.choice(sorted(tree)), signal.SIGKILL)
                    self.kills += 1


def judge_under_kills(tier: str, kills: int, programs: int, pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.pool.Cell", KnownCell)
    try:
        sandbox = open_sandbox(tier=tier, workers=2)
    except SandboxError as error:
        pytest.skip(f"no {tier} sandbox on this machine: {error}")
    killer = Killer(seed=kills, wanted=kills, pause=pause)
    with sandbox, ThreadPoolExecutor(2) as pool:
        for number in range(len(KINDS)):
            judged(number, sandbox)
        numbers, verdicts = count(), Counter[tuple[str, bool, str]]()
        killer.thread.start()
        try:
            while killer.kills < kills or verdicts.total() < programs:
                batch = [next(numbers) for _ in range(20)]
                for verdict in pool.map(lambda number: judged(number, sandbox), batch):
                    verdicts[verdict] += 1
                    killer.verdicts += 1
        finally:
            killer.done.set()
            killer.thread.join()
    assert killer.kills >= kills
    assert verdicts.total() >= programs
    assert {(right, reason) for _, right, reason in verdicts} == {(True, "correct"), (False, "wrong")}, verdicts


@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_forty_kills_lose_no_verdict(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_under_kills(tier, kills=40, programs=40, pause=0.05, monkeypatch=monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tier", ["bubblewrap", "unshare", "landlock"])
def test_a_thousand_kills_lose_no_verdict(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_under_kills(tier, kills=1000, programs=1000, pause=0.08, monkeypatch=monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_while_every_program_starts_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_under_kills("bubblewrap-single", kills=100, programs=100, pause=0.1, monkeypatch=monkeypatch)

"""What judging code costs: solutions a second against one `bwrap python3` per solution, and what one compilation saves.

The plain way runs solution and assertions together in one interpreter per solution, as published graders do; it is
isolated as well as ours but pays for an object that claims to equal everything. Ours keeps expected values outside.
Both get the same solutions and the same number of threads, in turns of a fixed time, and every verdict is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

from harness.plain_bwrap import run_plainly
from harness.turns import turn
from r1kit.sandbox import Sandbox, open_sandbox
from r1kit.verifiers.code import BuildCache, CodeProblem, ProgramTest, judge_code

ASSERTIONS = "\n".join(
    f"assert primes({n}) == {[p for p in range(2, n) if all(p % d for d in range(2, p))]}" for n in range(20, 30)
)
SOLUTION = "def primes(n):\n    return [p for p in range(2, n) if all(p % d for d in range(2, p))]\n"
PROBLEM = CodeProblem(assertions=ASSERTIONS, entry_point="primes")
CPP = '#include <iostream>\nint main() {{ long n; std::cin >> n; std::cout << n * n << "\\n"; /* {mark} */ }}\n'


def _plain(source: str, directory: str) -> bool:
    """Whether the assertions hold, in one process with the solution."""
    try:
        return run_plainly(f"{source}\n{ASSERTIONS}\nprint('passed')\n".encode(), directory) == b"passed\n"
    except subprocess.CalledProcessError:
        return False


def _job(judge: Callable[[str], bool], number: int) -> None:
    """Every other solution is wrong; AssertionError where a verdict is not the one it has to be."""
    right = number % 2 == 0
    source = SOLUTION if right else SOLUTION.replace("range(2, n)", "range(3, n)")
    if judge(source) is not right:
        raise AssertionError(f"a verdict of {not right} for a solution that is {right}")


def judge_rates(*, threads: int = 2, rounds: int = 5, seconds: float = 2.0) -> dict[str, list[float]]:
    """Solutions judged a second of each way, one figure per round."""
    rates: dict[str, list[float]] = {}
    with open_sandbox(workers=threads) as sandbox, tempfile.TemporaryDirectory(prefix="r1kit-judges-") as directory:
        os.chmod(directory, 0o755)
        ways: dict[str, Callable[[str], bool]] = {}
        if shutil.which("bwrap"):
            ways["one bwrap python3 per solution"] = lambda source: _plain(source, directory)
        ways[f"judge_code ({sandbox.tier})"] = lambda source: judge_code(source, PROBLEM, sandbox).correct
        for judge in ways.values():
            turn(partial(_job, judge), threads, 0.2)  # the first ones start the pool
        for _ in range(rounds):
            for name, judge in ways.items():
                rates.setdefault(name, []).append(turn(partial(_job, judge), threads, seconds))
    return rates


def compilation_seconds(*, tests: int = 20, rounds: int = 3) -> dict[str, list[float]]:
    """Wall seconds for `tests` tests of one C++ program: compiled once, and compiled for every test."""
    problem = CodeProblem("cpp", programs=tuple(ProgramTest(f"{n}\n", f"{n * n}\n") for n in range(tests)))
    single = [replace(problem, programs=(test,)) for test in problem.programs]
    fresh = count()
    seconds: dict[str, list[float]] = {"one compilation": [], "one compilation per test": []}

    def timed(name: str, problems: list[CodeProblem], sandbox: Sandbox) -> None:
        cache, start = BuildCache(), time.monotonic()
        for part in problems:
            if not judge_code(CPP.format(mark=next(fresh)), part, sandbox, cache=cache).correct:
                raise AssertionError("a right program was refused")
        seconds[name].append(time.monotonic() - start)
        if cache.compilations != len(problems):
            raise AssertionError(f"{cache.compilations} compilations for {len(problems)} programs")

    with open_sandbox() as sandbox:
        for _ in range(rounds):
            timed("one compilation", [problem], sandbox)
            timed("one compilation per test", single, sandbox)
    return seconds


def main() -> None:
    rates = judge_rates()
    base = sorted(next(iter(rates.values())))
    for name, figures in rates.items():
        middle = sorted(figures)[len(figures) // 2]
        print(f"{name:34} {middle:7.1f} solutions/s  {middle / base[len(base) // 2]:5.2f}x")
    for name, figures in compilation_seconds(tests=10).items():
        print(f"10 C++ tests, {name:26} {sorted(figures)[len(figures) // 2]:7.2f} s")


if __name__ == "__main__":
    main()

"""Python programs a second: one `bwrap python3` per program against the sandbox's pool, in turns, in one run.

The programs are of the kind a code judge runs: read two numbers, print their sum. Each way gets the same number of
threads and takes turns of a fixed time, so that a machine that is busy for a while slows all of them; every output is
checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

from harness.plain_bwrap import run_plainly
from harness.turns import turn
from r1kit.sandbox import Job, Sandbox, SandboxError, open_sandbox

SOURCE = b"a, b = map(int, input().split())\nprint(a + b)\n"


def _job(run: Callable[[int], bytes], number: int) -> None:
    if run(number) != b"%d\n" % (number + 2):
        raise AssertionError(f"a wrong sum for {number} + 2")


@contextlib.contextmanager
def _ways(threads: int) -> Iterator[dict[str, Callable[[int], bytes]]]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="r1kit-rate-"))
        os.chmod(directory, 0o755)
        ways: dict[str, Callable[[int], bytes]] = {}
        if shutil.which("bwrap"):
            ways["one bwrap python3 per program"] = lambda first: run_plainly(SOURCE, directory, f"{first} 2".encode())
        for isolation in ("private", "shared"):
            with contextlib.suppress(SandboxError):
                sandbox = stack.enter_context(open_sandbox(workers=threads, isolation=isolation))

                def pooled(first: int, sandbox: Sandbox = sandbox) -> bytes:
                    job = Job(("python", "program.py"), files={"program.py": SOURCE}, stdin=f"{first} 2".encode())
                    return sandbox.run(job).stdout

                ways[f"pool, {isolation} ({sandbox.tier})"] = pooled
        yield ways


def sandbox_rates(*, threads: int = 2, rounds: int = 5, seconds: float = 2.0) -> dict[str, list[float]]:
    """Programs a second of each way, one figure per round."""
    rates: dict[str, list[float]] = {}
    with _ways(threads) as ways:
        for run in ways.values():
            turn(partial(_job, run), threads, 0.2)  # the first programs start the cells
        for _ in range(rounds):
            for name, run in ways.items():
                rates.setdefault(name, []).append(turn(partial(_job, run), threads, seconds))
    return rates


def main() -> None:
    rates = sandbox_rates()
    base = sorted(next(iter(rates.values())))
    for name, figures in rates.items():
        middle = sorted(figures)[len(figures) // 2]
        ratio = middle / base[len(base) // 2]
        print(f"{name:34} {middle:7.1f} programs/s  {ratio:5.2f}x  {[round(x, 1) for x in figures]}")


if __name__ == "__main__":
    main()

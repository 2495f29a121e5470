"""Regular expressions with a limit on CPU time: matched in a worker process that may die of it.

Python's matcher cannot be interrupted, and a pattern such as `(a+)+b` takes hours on thirty letters. The limit is
CPU time, not wall time, so a busy machine changes no verdict. Workers are kept and reused, one per thread at a time;
after a fork the child starts its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["match", "none", "bad_pattern", "over_limit", "lost"]
WALL_SECONDS = 60.0  # a worker that is silent for so long is lost, not slow: its own CPU timer would have ended it

_CHILD = str(Path(__file__).with_name("regex_child.py"))


@dataclass(frozen=True, slots=True)
class MatchResult:
    """What became of one match; `detail` is the complaint about the pattern."""

    status: Status
    detail: str = ""
    seconds: float = 0.0


class _Worker:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONUTF8": "1"},
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.buffer = b""

    def send(self, request: dict[str, object]) -> None:
        self.stdin.write(json.dumps(request).encode() + b"\n")
        self.stdin.flush()

    def line(self, deadline: float) -> str | None:
        """The next line; None where the worker ended. TimeoutError after the deadline."""
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            chunk = os.read(self.stdout.fileno(), 4096)
            if not chunk:
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def close(self) -> int:
        """End the process; its return code (negative: the signal that ended it)."""
        self.process.kill()
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return self.process.wait()


_idle: deque[_Worker] = deque()
# A forked child shares the pipes of its parent's workers and must not write to them.
os.register_at_fork(after_in_child=_idle.clear)


def match_in_worker(
    pattern: str, text: str, *, ignore_case: bool = False, anywhere: bool = False, cpu_seconds: float = 0.5
) -> MatchResult:
    """Match `pattern` against the whole of `text`, or search it anywhere, within `cpu_seconds`; from any thread.

    A worker that was lost for a reason of ours (killed from outside) is replaced by a new one and the match tried once
    more: other idle ones may be lost as well.
    """
    started = time.perf_counter()
    request: dict[str, object] = {
        "pattern": pattern,
        "text": text,
        "ignore_case": ignore_case,
        "anywhere": anywhere,
        "cpu_seconds": cpu_seconds,
    }
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    result = _attempt(worker, request)
    if result.status == "lost":
        for idle in [w for w in list(_idle) if w.process.poll() is not None]:
            with contextlib.suppress(ValueError):  # another thread has taken it
                _idle.remove(idle)
                idle.close()
        result = _attempt(_Worker(), request)
    return MatchResult(result.status, result.detail, time.perf_counter() - started)


def _attempt(worker: _Worker, request: dict[str, object]) -> MatchResult:
    compiled = False
    try:
        worker.send(request)
        deadline = time.monotonic() + WALL_SECONDS
        while line := worker.line(deadline):
            if line == "compiled":
                compiled = True
                continue
            if line == "limit":
                worker.close()
                return MatchResult("over_limit")
            _idle.append(worker)
            if line.startswith("error "):
                return MatchResult("bad_pattern", line[6:])
            return MatchResult("match" if line == "match" else "none")
    except (BrokenPipeError, TimeoutError):
        pass
    # SIGPROF is the worker's own timer. Which step it ended says whose doing that was.
    worker.process.poll()
    if worker.close() != -signal.SIGPROF:
        return MatchResult("lost")
    return MatchResult("over_limit") if compiled else MatchResult("bad_pattern", "takes too long to compile")

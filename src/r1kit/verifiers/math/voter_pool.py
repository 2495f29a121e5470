"""Killable workers for math-verify: CPU-time and memory limits, recycling, retries, the same from every context.

The pool talks to one helper process (`voter_process`) that forks workers on demand, so that a lost worker is replaced
in milliseconds. It is started as a plain subprocess: that works from the main thread, threads, asyncio, and spawn, fork
or forkserver workers, daemonic ones included. No signal is used in the calling process.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r1kit.verifiers.math.voter_process import LENGTH, receive, send

_PROGRAM = Path(__file__).with_name("voter_process.py")
Outcome = Literal["yes", "no", "gold_unread", "unparsable", "over_limit", "failed", "lost", "crashed", "late"]
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True, slots=True)
class VoterLimits:
    """cpu_seconds: of one job. memory_bytes: address space of a worker. jobs: after which a worker is replaced.
    wall_seconds: after which a job without an answer is given up. attempts: of a job whose workers get killed from
    outside; one whose workers crash by themselves has two.
    start_seconds: for the helper process to import sympy."""

    cpu_seconds: float = 2.0
    memory_bytes: int = 2 << 30
    jobs: int = 500
    wall_seconds: float = 60.0
    attempts: int = 200
    start_seconds: float = 120.0


class PoolError(RuntimeError):
    """The helper process does not start, or does not answer."""


class _Helper:
    """The running helper process and the socket to it."""

    def __init__(self, start_seconds: float) -> None:
        ours, theirs = socket.socketpair()
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        command = [sys.executable, "-P", str(_PROGRAM), str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self.control = ours
        self.control.settimeout(start_seconds)
        try:
            ready = self.control.recv(1)
        except TimeoutError:
            ready = b""
        if ready != b"R":
            self.close()
            raise PoolError(
                f"math-verify's helper process did not start within {start_seconds:g} s (exit status "
                f"{self.process.poll()}): is math-verify installed with its parsers?"
            )
        self.control.settimeout(30.0)

    def ask(self, command: str, descriptors: list[int]) -> int:
        socket.send_fds(self.control, [command.encode()], descriptors)
        answer = b""
        while len(answer) < LENGTH.size:
            chunk = self.control.recv(LENGTH.size - len(answer))
            if not chunk:
                raise OSError("the helper process ended")
            answer += chunk
        return int(LENGTH.unpack(answer)[0])

    def close(self) -> None:
        with suppress(OSError):
            self.control.close()
        with suppress(OSError):
            self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class _Worker:
    """One forked worker: our end of its socket, the helper that forked it."""

    helper: _Helper
    pid: int
    connection: socket.socket
    jobs: int = 0


class VoterPool:
    """`size` workers; `judge` may be called from any thread. Use as a context manager or call `close`."""

    def __init__(self, size: int = 2, limits: VoterLimits | None = None) -> None:
        self.limits = limits or VoterLimits()
        self.size = size
        self.lost = 0
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.size):
            self._slots.put(None)
        self._helper: _Helper | None = None
        self._lock = threading.Lock()  # of the helper: one question at a time
        self._live: dict[int, _Worker] = {}

    def __enter__(self) -> VoterPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pids(self) -> list[int]:
        """The worker processes now alive."""
        return list(self._live)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            for worker in list(self._live.values()):
                self._forget(worker)
            if self._helper is not None:
                self._helper.close()
                self._helper = None

    def judge(self, gold: str, prediction: str) -> Outcome:
        """math-verify's view of a bare answer. "over_limit" only where it was the candidate that was too much."""
        if os.getpid() != self._owner:
            self._adopt()
        stage, outcome = self._run(gold, prediction)
        if outcome != "over_limit":
            return outcome
        if stage == "gold" or (stage == "comparison" and self._run(gold, "1")[1] not in ("yes", "no")):
            return "failed"  # the gold alone is too much: not the candidate's doing
        return "over_limit"

    def _run(self, gold: str, prediction: str) -> tuple[str, Outcome]:
        """The last stage and the outcome; a lost worker is replaced and the job tried again."""
        deadline, crashes = time.monotonic() + self.limits.wall_seconds, 0
        for _ in range(self.limits.attempts):
            worker = self._slots.get()
            try:
                worker = worker or self._fork()
                stage, outcome = self._job(worker, gold, prediction)
                if worker.pid not in self._live:
                    worker = None
            except OSError:  # the helper process was lost
                worker, stage, outcome = None, "", "lost"
            finally:
                self._slots.put(worker)
            crashes += outcome == "crashed"
            if crashes > 1:
                return stage, "failed"
            if outcome not in ("lost", "crashed", "late"):
                return stage, outcome
            self.lost += 1
            if outcome == "late" or time.monotonic() > deadline:
                break
        return "", "lost"

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with self._lock:
            helper = self._helper
            if helper is None or helper.process.poll() is not None:
                if helper is not None:
                    helper.close()
                helper = self._helper = _Helper(self.limits.start_seconds)
            try:
                pid = helper.ask(f"fork {self.limits.memory_bytes}", [theirs.fileno()])
            except OSError:
                helper.close()
                self._helper = None
                ours.close()
                raise
            finally:
                theirs.close()
            worker = _Worker(helper, pid, ours)
            self._live[pid] = worker
        return worker

    def _job(self, worker: _Worker, gold: str, prediction: str) -> tuple[str, Outcome]:
        stage, deadline = "gold", time.monotonic() + self.limits.wall_seconds
        message: dict[str, str] | None = None
        late = False
        try:
            worker.connection.settimeout(self.limits.wall_seconds)
            job = {"gold": gold, "prediction": prediction, "cpu_seconds": self.limits.cpu_seconds}
            send(worker.connection, job)
            while (message := receive(worker.connection)) is not None and "stage" in message:
                stage = message["stage"]
                worker.connection.settimeout(max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            message, late = None, True
        except (OSError, ValueError):
            message = None
        if message is None:
            ended = self._bury(worker)
            if ended == signal.SIGPROF:
                return stage, "over_limit"
            return stage, "crashed" if ended in _CRASHES else "late" if late else "lost"
        worker.jobs += 1
        answer = message["answer"]
        if worker.jobs >= self.limits.jobs or answer == "memory":
            self._bury(worker)
        if answer == "memory":
            return stage, "over_limit"
        return stage, "failed" if answer.startswith("failed") else answer  # type: ignore[return-value]

    def _bury(self, worker: _Worker) -> int:
        """Kill a worker and learn which signal ended it; 0 where nobody can tell."""
        with self._lock:
            self._forget(worker)
            if worker.helper is not self._helper:
                return 0
            try:
                return worker.helper.ask(f"ended {worker.pid}", [])
            except OSError:
                return 0

    def _forget(self, worker: _Worker) -> None:
        """Close and kill. A worker of a helper that is gone ends by itself, and its pid may be another's by now."""
        self._live.pop(worker.pid, None)
        with suppress(OSError):
            worker.connection.close()
        if worker.helper is self._helper and worker.helper.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def _adopt(self) -> None:
        """In a forked child: the parent's processes are not ours, only copies of its sockets are."""
        for worker in self._live.values():
            worker.connection.close()
        if self._helper is not None:
            self._helper.control.close()
        self._reset()

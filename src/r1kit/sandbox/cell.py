"""Our end of one cell: a supervisor in its isolation, which runs one program at a time.

A cell that is lost (killed, hung, out of step) raises CellLost; the pool starts another and runs the program again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from r1kit.sandbox import frames
from r1kit.sandbox.inside import watch
from r1kit.sandbox.inside.supervisor import LONGEST
from r1kit.sandbox.launch import ENVIRONMENT, Libraries, dropped_user, first_message, plan, user_options
from r1kit.sandbox.protocol import Job, Limits, Result

_START_SECONDS = 120.0
_GRACE_SECONDS = 60.0  # beyond the longest time of a program, before a silent cell counts as hung


class CellLost(RuntimeError):
    """The cell, not the program, failed."""


class Cell:
    """Started on construction. Not to be shared between threads, except `cancel` and `kill`."""

    def __init__(self, tier: str, isolation: str, libraries: Libraries, limits: Limits, payload: int = 0) -> None:
        self.box = tempfile.mkdtemp(prefix="r1kit-box-") if tier in ("landlock", "rlimits") else ""
        if self.box and (user := dropped_user()) is not None:
            os.chown(self.box, user, user)
        size = limits.disk_bytes + payload
        launch = plan(tier, isolation=isolation, box=self.box, box_bytes=size, libraries=libraries)
        self.single, self._number, self._sending, self._ready = launch.single, 0, threading.Lock(), False
        self._wire, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the cell)
        try:
            owner = os.pidfd_open(os.getpid())
        except OSError as error:
            raise CellLost(f"no cell without pidfd_open, of Linux 5.3: {error.strerror}") from error
        with theirs:
            # No --die-with-parent: that signal follows the thread that started us. The cell ends when its wire does or,
            # should a forked child of ours hold that open, when this process does.
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                (*launch.command, str(owner)), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._errors,
                cwd="/", env=ENVIRONMENT, start_new_session=True, pass_fds=(owner,), **user_options(),
            )  # fmt: skip
        os.close(owner)
        try:
            self._wire.settimeout(_START_SECONDS)
            message = json.dumps(first_message(launch)).encode()
            self._wire.sendall(len(message).to_bytes(4, "big") + message)
            self._await_first_word()
            frames.receive(self._wire)
            self._ready = True
        except (OSError, EOFError, ValueError) as error:
            raise CellLost(f"no cell of tier {tier}: {self._last_words() or error}") from error

    def _await_first_word(self) -> None:
        """A starter that is killed half way may leave a child that waits for it, and holds the connection, for ever."""
        poll, end = select.poll(), os.pidfd_open(self._process.pid)
        for fd in (self._wire.fileno(), end):
            poll.register(fd, select.POLLIN)
        try:
            if self._wire.fileno() not in dict(poll.poll(_START_SECONDS * 1000)):
                raise EOFError("it ended, or was silent for too long, before its first word")
        finally:
            os.close(end)

    @property
    def process(self) -> int:
        return self._process.pid

    def _last_words(self) -> str:
        if self._errors.closed:
            return ""
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).decode(errors="replace").strip().splitlines()
        self.kill()
        return lines[-1] if lines else ""

    def run(self, job: Job) -> Result:
        """ValueError names a file of the job that cannot be opened; CellLost: run it again in another cell."""
        self._number += 1
        limits = {name: getattr(job.limits, name) for name in Limits.__dataclass_fields__}
        limits["wall_seconds"] = job.limits.wall()
        head = {"id": self._number, "command": job.command, "limits": limits, "files": list(job.files)}
        head |= {"mounts": list(job.mounts), "collect": job.collect, "extra_processes": self._own_processes()}
        with contextlib.ExitStack() as stack:
            fds = [_open(name, path, stack) for name, path in job.mounts.items()]
            try:
                self._wire.settimeout(LONGEST * job.limits.wall() + _GRACE_SECONDS)
                with self._sending:
                    frames.send(self._wire, head, [job.stdin, *job.files.values()], fds)
                report, blobs, _ = frames.receive(self._wire)
            except (OSError, EOFError, ValueError) as error:
                raise CellLost(f"the cell was lost: {self._last_words() or error}") from error
        return _result(report, blobs)

    def _own_processes(self) -> int:
        """Processes of ours that count against the program's own limit, because they are the same user's."""
        if not self.box:
            return 4
        user = dropped_user() or os.getuid()
        running = sum(1 for entry in os.scandir("/proc") if entry.name.isdigit() and _owner(entry) == user)
        return running + 64  # others of this user start and end meanwhile; the supervisor counts the tree itself

    def cancel(self, number: int) -> None:
        """Ends the program of that number early, if it still runs."""
        with contextlib.suppress(OSError), self._sending:
            frames.send(self._wire, {"cancel": number})

    @property
    def next_number(self) -> int:
        return self._number + 1

    def kill(self) -> None:
        """Ends the cell and everything in it; returns when it has ended."""
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)
        self._wire.close()
        if not self._ready:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            # A hung cell: its first process is in a session of its own, so the tree is followed, not the group.
            for process in (*watch.descendants(self._process.pid), self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.wait()
        self._errors.close()
        if self.box:
            try:
                shutil.rmtree(self.box, ignore_errors=True)
            except RecursionError:  # a nest deeper than a recursive function goes
                subprocess.run(["rm", "-rf", "--", self.box], check=False)


def _open(name: str, path: Path, stack: contextlib.ExitStack) -> int:
    try:
        return stack.enter_context(open(path, "rb")).fileno()
    except OSError as error:
        raise ValueError(f"mounts: {name!r} is to show {path}, which cannot be opened: {error.strerror}") from error


def _owner(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:
        return -1


def _result(report: dict[str, Any], blobs: list[bytes]) -> Result:
    return Result(
        status=report["status"],
        exit_code=report["exit_code"],
        signal=report["signal"],
        stdout=blobs[0],
        stderr=blobs[1],
        reply=blobs[2],
        collected=dict(zip(report["collected"], blobs[3:], strict=True)),
        cpu_seconds=report["cpu"],
        wall_seconds=report["wall"],
        peak_memory_bytes=report["peak"],
        detail=report["detail"],
    )

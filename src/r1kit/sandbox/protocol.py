"""What a sandbox is asked and what it answers. Nothing here runs anything; backends and judges both speak these words.

A job is one untrusted program: argument vector, files, standard input, limits. Its result is data: how it ended, what
it wrote (capped), what it used. Expected outputs never enter a job, so no program can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

MIB = 1 << 20

Status = Literal[
    "ok",  # exit code 0 within every limit
    "failed",  # another exit code, or a signal that is no limit of ours
    "cpu_limit",
    "wall_limit",
    "memory_limit",
    "output_limit",
    "sandbox_failed",  # our side: the program was not run as asked; never the program's fault, worth a retry
]


class SandboxError(RuntimeError):
    """No sandbox can be had here, or not the one asked for; the message says what to install or to set."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. Judged by CPU time, so that load on the machine changes no verdict; `wall_seconds` only
    catches programs that sleep (None: 10 x cpu_seconds + 10).
    """

    cpu_seconds: float = 4.0
    wall_seconds: float | None = None
    memory_bytes: int = 512 * MIB  # summed over the program's processes
    output_bytes: int = 4 * MIB  # standard output; standard error keeps its first 64 KiB
    reply_bytes: int = 4 * MIB  # file descriptor 3
    disk_bytes: int = 64 * MIB  # its own temporary file system
    processes: int = 32

    def wall(self) -> float:
        return 10.0 * self.cpu_seconds + 10.0 if self.wall_seconds is None else self.wall_seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One program to run. It starts in an empty writable directory of its own that holds `files`.

    command: argument vector; a first element "python" means the sandbox's Python (it may be served from a warm pool).
    files: name (relative, no "..") -> content, written into the working directory before the start.
    mounts: name -> host file, shown read-only and executable in the working directory (a compiled program).
    stdin: bytes of standard input. File descriptor 3 is a pipe back to us: what is written there comes back as `reply`.
    collect: names of files to bring back from the working directory afterwards (capped by output_bytes each).
    """

    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    collect: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended. `detail` says more in words (for `sandbox_failed`: what failed)."""

    status: Status
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    reply: bytes = b""
    collected: Mapping[str, bytes] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    detail: str = ""


class Sandbox(Protocol):
    """Runs jobs; safe to share between threads. `tier` names the backend in use, for the record of a run."""

    @property
    def tier(self) -> str: ...

    def run(self, job: Job) -> Result: ...

    def run_many(self, jobs: Sequence[Job], *, stop: Callable[[Result], bool] | None = None) -> list[Result]:
        """Results in the order of `jobs`.

        With `stop`, jobs behind the first result it is true of need not run: the list then ends with that result.
        """
        ...

    def close(self) -> None: ...

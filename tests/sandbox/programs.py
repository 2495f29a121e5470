"""Shorthand of the sandbox's tests: a Python source as a job."""

from __future__ import annotations

import textwrap
from pathlib import Path

from r1kit.sandbox import CellPool, Job, Limits, Result
from r1kit.sandbox.protocol import MIB

SMALL = Limits(cpu_seconds=5.0, memory_bytes=256 * MIB, disk_bytes=16 * MIB)


def python(
    source: str,
    *arguments: str,
    limits: Limits = SMALL,
    stdin: bytes = b"",
    files: dict[str, bytes] | None = None,
    collect: tuple[str, ...] = (),
    mounts: dict[str, Path] | None = None,
) -> Job:
    text = textwrap.dedent(source).encode()
    return Job(
        ("python", "program.py", *arguments),
        files={"program.py": text, **(files or {})},
        limits=limits,
        stdin=stdin,
        collect=collect,
        mounts=mounts or {},
    )


def output(sandbox: CellPool, source: str, *arguments: str, limits: Limits = SMALL, stdin: bytes = b"") -> str:
    """Standard output of a program that has to end well."""
    result = sandbox.run(python(source, *arguments, limits=limits, stdin=stdin))
    assert result.status == "ok", result
    return result.stdout.decode()


def assert_unharmed(sandbox: CellPool) -> None:
    """The next programs run as if nothing had been."""
    for number in range(3):
        result = sandbox.run(python("import os; print(int(input()) + 1, os.listdir())", stdin=str(number).encode()))
        assert_ok(result)
        assert result.stdout == f"{number + 1} ['program.py']\n".encode()


def assert_ok(result: Result) -> None:
    assert result.status == "ok", result

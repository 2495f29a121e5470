"""Which sandbox can be had here: found by running a probe program in each tier, never by looking at versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from r1kit.sandbox.inside.program import environment
from r1kit.sandbox.launch import TIERS, dropped_user, find_libraries, find_python, user_options
from r1kit.sandbox.pool import CellPool
from r1kit.sandbox.protocol import Job, Limits, SandboxError

Isolation = Literal["private", "shared"]

_PROBE_LIMITS = Limits(cpu_seconds=10.0)
UNSAFE = "rlimits"
_ADVICE = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap) and allow "
    "unprivileged user namespaces, or use a Linux kernel with Landlock (5.13 or newer). To run programs with resource "
    "limits only, able to read what this user reads and to use the network, set sandbox.allow_unsafe: true"
)


def open_sandbox(
    *,
    tier: str | None = None,
    allow_unsafe: bool = False,
    workers: int | None = None,
    isolation: Isolation = "private",
    libraries: Sequence[str] = (),
) -> CellPool:
    """The best sandbox that this machine holds, proved by a probe program that has to be refused everything.

    tier: one of TIERS, to have that one or nothing. allow_unsafe: accept the last tier, which only limits resources.
    workers: programs at a time (None: the cores this process may use). isolation: "private" gives every program a
    process namespace, a mount namespace and a file system of its own; "shared" runs the programs of one worker one
    after another in the worker's. libraries: names of installed Python libraries that programs may import beside the
    standard one. SandboxError says, tier by tier, why there is none and what to do.
    """
    if tier is not None and tier not in TIERS:
        raise SandboxError(f"sandbox tier {tier!r} is none of {', '.join(TIERS)}")
    if isolation not in ("private", "shared"):
        raise SandboxError(f"sandbox isolation {isolation!r} is neither 'private' nor 'shared'")
    if workers is not None and workers < 1:
        raise SandboxError(f"a sandbox needs at least one worker, not {workers}")
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"the sandbox needs Linux; this is {sys.platform}. Use a Linux machine or container")
    workers = workers or len(os.sched_getaffinity(0))
    refusals, offered = [], find_libraries(libraries)
    for name in TIERS if tier is None else (tier,):
        if name == UNSAFE and not allow_unsafe:
            refusals.append(f"{name}: no isolation, and allow_unsafe is not set")
            continue
        pool = CellPool(name, isolation, workers, offered)
        try:
            reason = probe(pool) or lacks(pool)
        except SandboxError as error:
            reason = str(error)
        if not reason:
            return pool
        pool.close()
        refusals.append(f"{name}: {reason}")
    raise SandboxError("no sandbox here:\n  " + "\n  ".join(refusals) + f"\n{_ADVICE}")


def probe(pool: CellPool) -> str:
    """What the probe program could do in this tier and should not have been able to; empty when it holds."""
    with (
        tempfile.TemporaryDirectory(prefix="r1kit-probe-") as directory,
        subprocess.Popen(
            [find_python(), "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, **user_options()
        ) as bystander,
    ):
        os.chmod(directory, 0o755)
        secret = Path(directory) / "secret"
        secret.write_text("of the host")
        user = dropped_user()
        if user is not None:
            os.chown(secret, user, user)
        known = ",".join(environment("", "libraries"))
        source = (Path(__file__).parent / "probe.py").read_bytes()
        command = ("python", "probe.py", str(secret), str(bystander.pid), known)
        result = pool.run(Job(command, files={"probe.py": source}, limits=_PROBE_LIMITS, collect=("probe",)))
    if result.status != "ok" or result.collected.get("probe") != b"own directory":
        last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return f"the probe did not run ({result.status}): {result.detail or ' '.join(last)}"
    findings = json.loads(result.reply)
    return "" if pool.tier == UNSAFE else ", ".join(findings)


def lacks(pool: CellPool) -> str:
    """Which of the libraries cannot be imported in there, and why; empty when all can."""
    for name in pool.libraries.names:
        result = pool.run(Job(("python", "p.py"), {"p.py": f"import {name}".encode()}, limits=_PROBE_LIMITS))
        if result.status != "ok":
            words = result.stderr.decode(errors="replace").strip().splitlines()[-1:] or [result.detail or result.status]
            return f"library {name} cannot be imported by {find_python()}: {words[0]}"
    return ""

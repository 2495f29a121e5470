"""A sandbox for tests only: plain subprocesses with rlimits, no isolation at all. It obeys the protocol's words."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from r1kit.sandbox.protocol import Job, Limits, Result


class LocalSandbox:
    tier = "none (tests only)"

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> Result:
        self.jobs.append(job)
        with tempfile.TemporaryDirectory() as home:
            for name, content in job.files.items():
                Path(home, name).parent.mkdir(parents=True, exist_ok=True)
                Path(home, name).write_bytes(content)
            for name, path in job.mounts.items():
                os.symlink(path, Path(home, name))
            return _run(job, Path(home))

    def run_many(self, jobs: Sequence[Job], *, stop: Callable[[Result], bool] | None = None) -> list[Result]:
        results: list[Result] = []
        for job in jobs:
            results.append(self.run(job))
            if stop and stop(results[-1]):
                break
        return results

    def close(self) -> None:
        pass


def _run(job: Job, home: Path) -> Result:
    command = [sys.executable, "-I", *job.command[1:]] if job.command[0] == "python" else list(job.command)
    if job.command[0] == "python":
        command = [sys.executable, "-c", _LAUNCH, *job.command[1:]]
    reply_read, reply_write = os.pipe()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()

    def prepare() -> None:
        os.dup2(reply_write, 3)
        cpu = int(job.limits.cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_AS, (4 * job.limits.memory_bytes,) * 2)

    process = subprocess.Popen(
        command, cwd=home, stdin=-1, stdout=-1, stderr=-1, preexec_fn=prepare, pass_fds=(3,), start_new_session=True
    )
    os.close(reply_write)
    reply: list[bytes] = []
    reader = threading.Thread(target=lambda: reply.append(_drain(reply_read)))
    reader.start()
    try:
        out, err = process.communicate(job.stdin, timeout=job.limits.wall())
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    reader.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    code = process.returncode
    return Result(
        _status(code, cpu, time.monotonic() - start, len(out), job.limits),
        code if code >= 0 else None,
        -code if code < 0 else None,
        out,
        err[: 64 << 10],
        reply[0],
        {n: Path(home, n).read_bytes() for n in job.collect if Path(home, n).exists()},
        cpu,
        time.monotonic() - start,
    )


def _status(code: int, cpu: float, wall: float, written: int, limits: Limits) -> str:
    if cpu >= limits.cpu_seconds:
        return "cpu_limit"
    if wall >= limits.wall():
        return "wall_limit"
    if written > limits.output_bytes:
        return "output_limit"
    return "ok" if code == 0 else "failed"


def _drain(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


_LAUNCH = (
    "import sys,runpy;sys.argv=sys.argv[1:];sys.path.insert(0,'.');runpy.run_path(sys.argv[0],run_name='__main__')"
)

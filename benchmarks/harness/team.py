"""A few processes that are measured together: started once, told what to do, timed from the first start to
the last end.

Every layout of the benchmarks (one process with two threads, two processes with one thread) is a `Team`.
Teams stay alive between measurements, so ours and the peers can take turns within one run and see the same
state of the machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent


class BenchmarkError(RuntimeError):
    """A measuring process failed; the message holds its last lines."""


@dataclass(frozen=True)
class Layout:
    """How the cores are used: `processes`, each with `threads` OpenMP threads."""

    processes: int
    threads: int

    @property
    def cores(self) -> int:
        return self.processes * self.threads

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Measurement:
    """One timed order. `figures` are the answers of the processes, in rank order."""

    seconds: float
    cpu_seconds: float
    load_before: float
    load_after: float
    figures: list[dict[str, Any]] = field(default_factory=list)

    def total(self, name: str) -> float:
        """Sum of one figure over the processes; a process without it counts 0."""
        return float(sum(f.get(name, 0.0) for f in self.figures))

    def peak_gib(self) -> float:
        """Most resident memory while it ran, libraries included, summed over the processes."""
        return self.total("peak_bytes") / 2**30

    def phases(self) -> dict[str, float]:
        """Seconds by phase, summed over the processes."""
        sums: dict[str, float] = {}
        for figures in self.figures:
            for name, seconds in figures.get("phases", {}).items():
                sums[name] = sums.get(name, 0.0) + seconds
        return sums


class Team:
    """Processes of one target in one layout; a context manager that ends them."""

    def __init__(self, target: str, layout: Layout, options: dict[str, Any]) -> None:
        self.target, self.layout = target, layout
        self.folder = tempfile.TemporaryDirectory(prefix="r1kit-bench-")
        root = Path(self.folder.name)
        options = {**options, "folder": str(root), "store": str(root / "store")}
        port = _free_port()
        self.logs = [root / f"rank-{rank}.log" for rank in range(layout.processes)]
        self.processes = [self._start(rank, options, port) for rank in range(layout.processes)]
        self._answers()

    def _start(self, rank: int, options: dict[str, Any], port: int) -> subprocess.Popen[str]:
        size = self.layout.processes
        spec = {"target": self.target, "options": options, "rank": rank, "size": size, "parent": os.getpid()}
        path = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": str(self.layout.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if size > 1:
            # What torch.distributed.run would set; targets that do not use torch.distributed never look. With one
            # process it would wrap the peer's model for nothing.
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        with open(self.logs[rank], "w", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "harness.worker", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def measure(self, order: dict[str, Any]) -> Measurement:
        """Give every process `order`, wait until all have prepared it, let them run together."""
        self._tell(json.dumps(order))
        self._answers()
        before = os.getloadavg()[0]
        self._tell("go")
        figures = self._answers()
        started, ended = min(f["started"] for f in figures), max(f["ended"] for f in figures)
        cpu = sum(f["cpu_seconds"] for f in figures)
        return Measurement(ended - started, cpu, before, os.getloadavg()[0], figures)

    def _tell(self, line: str) -> None:
        for rank, process in enumerate(self.processes):
            assert process.stdin is not None
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise self._lost(rank) from None

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        for rank, process in enumerate(self.processes):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise self._lost(rank)
            answers.append(json.loads(line))
        return answers

    def _lost(self, rank: int) -> BenchmarkError:
        code = self.processes[rank].wait()
        text = self.logs[rank].read_text(encoding="utf-8", errors="replace")
        last = "\n".join(f"    {line}" for line in text.splitlines()[-15:])
        return BenchmarkError(f"{self.target}, {self.layout}: process {rank} ended with code {code}\n{last}")

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self.folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

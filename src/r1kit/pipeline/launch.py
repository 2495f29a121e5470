"""The other processes of a run: started by rank 0, dead when it dies, named when one of them fails.

The command the user runs is rank 0. Ranks 1..N-1 are `python -m r1kit.pipeline.worker`; rank 0 tells them
each stage by broadcast, and all ranks run the same stage code. They meet through a file in the run directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from r1kit.pipeline.files import RunError
from r1kit.pipeline.process import tune_process

if TYPE_CHECKING:
    from r1kit.training.parallel import World

CONNECT_TIMEOUT = 600.0


class PeerLostError(RunError):
    """Another process of the run ended or went silent."""

    exit_code = 1


class Team:
    """Rank 0 and its workers, as a context: connected inside, all gone outside."""

    def __init__(self, root: Path, size: int, device: str = "cpu", timeout: float = CONNECT_TIMEOUT) -> None:
        self.root, self.size, self.device, self.timeout = root, size, device, timeout
        self.workers: list[subprocess.Popen[bytes]] = []
        self.world: World | None = None
        self.stage = "start"

    def __enter__(self) -> Team:
        from r1kit.training.parallel import World, device_of_rank

        tune_process(device_of_rank(self.device, 0))
        if self.size == 1:
            self.world = World.single(self.device)
            return self
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("store-*"):
            old.unlink()
        store = folder / f"store-{uuid.uuid4().hex}"
        self.workers = [self._start(rank, store) for rank in range(1, self.size)]
        try:
            self.world = World.connect(store, 0, self.size, self.timeout, self.device)
        except BaseException:
            self._end(graceful=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(graceful=error is None)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers]

    def announce(self, order: dict[str, Any] | None) -> None:
        """Tell the workers what comes next; None sends them home."""
        assert self.world is not None
        self.stage = order["stage"] if order else "end"
        self.world.broadcast(order, "order")

    def explain(self, error: BaseException) -> PeerLostError | None:
        """Why a collective failed: the worker that is gone, with its last words; None where the fault is our own."""
        from r1kit.training.parallel import PeerError

        if not isinstance(error, PeerError):
            return None
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for rank, worker in enumerate(self.workers, start=1):
                code = worker.poll()
                if code is not None:
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                    return PeerLostError(
                        f"stage {self.stage}: rank {rank} (process {worker.pid}) {how}. Its last lines:\n"
                        f"{self._last_words(rank)}\n"
                        "Results are kept: run the same command again to go on from the last checkpoint."
                    )
            time.sleep(0.1)
        return PeerLostError(
            f"stage {self.stage}: {error}. All processes are alive; the slowest did not answer within "
            f"{self.timeout:.0f} s. Run the same command again to go on from the last checkpoint."
        )

    def _start(self, rank: int, store: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "r1kit.pipeline.worker", "--store", str(store), "--rank", str(rank)]
        command += ["--size", str(self.size), "--timeout", str(self.timeout), "--parent", str(os.getpid())]
        command += ["--device", self.device]
        with open(self._worker_log(rank), "wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            )

    def _worker_log(self, rank: int) -> Path:
        return self.root / "tmp" / f"rank-{rank}.log"

    def _last_words(self, rank: int, lines: int = 12) -> str:
        path = self._worker_log(rank)
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing written)"

    def _end(self, *, graceful: bool) -> None:
        """Wait for workers that were sent home; kill those of a run that failed."""
        if graceful and self.world is not None:
            self.announce(None)
        for worker in self.workers:
            if not graceful:
                worker.kill()
            try:
                worker.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        if self.world is not None and graceful:
            self.world.close()

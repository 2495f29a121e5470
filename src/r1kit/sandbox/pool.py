"""The sandbox that callers hold: a few cells, shared by any number of threads."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from r1kit.sandbox.cell import Cell, CellLost
from r1kit.sandbox.launch import Libraries
from r1kit.sandbox.protocol import Job, Result

NONE = Libraries()
# A cell that was lost with a program in it says that somebody kills; one that cannot even start, that none will.
_ATTEMPTS, _STARTS = 24, 6
_BELIEVED = 4  # ends by SIGKILL in runs of one job before that is the program's own doing


class _Unstarted(CellLost):
    """A cell that did not come up."""


def check_job(job: Job) -> None:
    """ValueError for what no sandbox could run: the caller's mistake, not the program's."""
    if not job.command:
        raise ValueError("a job has an empty command")
    for kind, names in (("files", job.files), ("mounts", job.mounts), ("collect", job.collect)):
        for name in names:
            path = PurePosixPath(name)
            if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{kind}: {name!r} has to be a relative path without '..'")
    if twice := job.files.keys() & job.mounts.keys():
        raise ValueError(f"in files and in mounts: {', '.join(sorted(twice))}")
    if len(job.mounts) > 200:
        raise ValueError(f"{len(job.mounts)} mounts; 200 fit")


class CellPool:
    """Runs jobs in up to `workers` cells at a time. Implements the Sandbox protocol."""

    def __init__(self, tier: str, isolation: str, workers: int, libraries: Libraries = NONE) -> None:
        self.tier, self.isolation, self.workers, self.libraries = tier, isolation, workers, libraries
        self._slots = threading.BoundedSemaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[Cell] = []
        self._owner, self._closed = os.getpid(), False

    def __enter__(self) -> CellPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, job: Job) -> Result:
        """ValueError for a job that is malformed; everything else is a Result."""
        check_job(job)
        return self._run(job, _Turn())

    def _run(self, job: Job, turn: _Turn) -> Result:
        trouble, killed, attempts, unstarted = "", 0, 0, 0
        while attempts < _ATTEMPTS and unstarted < _STARTS:
            attempts += 1
            with self._slots:
                try:
                    result = self._attempt(job, turn)
                except CellLost as error:
                    trouble, unstarted = str(error), unstarted + 1 if isinstance(error, _Unstarted) else 0
                    continue
            if turn.cancelled:
                return result
            if result.status == "failed" and result.signal == signal.SIGKILL:
                # By itself, or by somebody outside (an administrator, a kernel short of memory)? Who does it to itself
                # does it again.
                killed, trouble = killed + 1, "the program was killed from outside"
                if killed == _BELIEVED:
                    return result
            elif result.status != "sandbox_failed":
                return result
            else:
                trouble = result.detail
        return Result("sandbox_failed", detail=f"{trouble} (tried {attempts} times)")

    def _attempt(self, job: Job, turn: _Turn) -> Result:
        cell = self._take(job)
        fine = False
        try:
            if not turn.begin(cell):
                fine = not cell.single
                return Result("sandbox_failed", detail="cancelled")
            result = cell.run(job)
            fine = not cell.single and result.status != "sandbox_failed"
            return result
        except ValueError:
            fine = not cell.single  # refused before anything was sent
            raise
        finally:
            turn.end()
            self._give_back(cell, fine)

    def _take(self, job: Job) -> Cell:
        with self._lock:
            if self._closed:
                raise RuntimeError("this sandbox is closed")
            if self._owner != os.getpid():
                # A forked child: the cells are the parent's, which is still talking to them.
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
        try:
            return Cell(self.tier, self.isolation, self.libraries, job.limits, payload_bytes(job))
        except CellLost as error:
            raise _Unstarted(str(error)) from error

    def _give_back(self, cell: Cell, fine: bool) -> None:
        with self._lock:
            if fine and not self._closed:
                self._idle.append(cell)
                return
        cell.kill()

    def run_many(self, jobs: Sequence[Job], *, stop: Callable[[Result], bool] | None = None) -> list[Result]:
        for job in jobs:
            check_job(job)
        batch = _Batch(self, jobs, stop)
        helpers = [threading.Thread(target=batch.work, daemon=True) for _ in range(min(self.workers, len(jobs)) - 1)]
        for helper in helpers:
            helper.start()
        batch.work()
        for helper in helpers:
            helper.join()
        return batch.results()

    def close(self) -> None:
        """Ends every cell; one that runs a program ends when that program does."""
        with self._lock:
            cells, self._idle, self._closed = self._idle, [], True
        if self._owner == os.getpid():
            for cell in cells:
                cell.kill()


def payload_bytes(job: Job) -> int:
    sizes = [len(content) for content in job.files.values()]
    for path in job.mounts.values():
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return sum(sizes) + 4096 * (len(sizes) + 1)


class _Turn:
    """One job's time in a cell, so that another thread can end it."""

    def __init__(self) -> None:
        self._lock, self.cancelled, self._number = threading.Lock(), False, 0
        self._cell: Cell | None = None

    def begin(self, cell: Cell) -> bool:
        with self._lock:
            self._cell, self._number = cell, cell.next_number
            return not self.cancelled

    def end(self) -> None:
        with self._lock:
            self._cell = None

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            if self._cell is not None:
                self._cell.cancel(self._number)


class _Batch:
    """Jobs taken in order by several threads; the first result that `stop` is true of ends what lies behind it."""

    def __init__(self, pool: CellPool, jobs: Sequence[Job], stop: Callable[[Result], bool] | None) -> None:
        self._pool, self._jobs, self._stop = pool, jobs, stop
        self._lock, self._next, self._end = threading.Lock(), 0, len(jobs)
        self._turns: dict[int, _Turn] = {}
        self._results: dict[int, Result] = {}
        self._error: BaseException | None = None

    def work(self) -> None:
        while (index := self._claim()) is not None:
            try:
                result = self._pool._run(self._jobs[index], self._turns[index])
                stops = self._stop is not None and not self._turns[index].cancelled and self._stop(result)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                self._finish_at(-1)
                return
            with self._lock:
                self._results[index] = result
            if stops:
                self._finish_at(index)

    def _claim(self) -> int | None:
        with self._lock:
            if self._next >= self._end:
                return None
            index, self._next = self._next, self._next + 1
            self._turns[index] = _Turn()
            return index

    def _finish_at(self, index: int) -> None:
        with self._lock:
            self._end = min(self._end, index + 1)
            behind = [turn for number, turn in self._turns.items() if number > index and number not in self._results]
        for turn in behind:
            turn.cancel()

    def results(self) -> list[Result]:
        if self._error is not None:
            raise self._error
        return [self._results[index] for index in range(self._end)]

"""What a tree of processes uses, read from /proc.

Memory is summed over the tree: resident set sizes first, which are cheap and count shared pages once per process, and
only when that sum passes the limit the proportional sizes, which count them once.
"""

from __future__ import annotations

import errno
import glob
import math
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_EXITING = 4  # PF_EXITING


def descendants(ancestor: int) -> list[int]:
    """Every process below `ancestor`, itself left out."""
    found, todo = [], [ancestor]
    children = _children if os.path.exists("/proc/thread-self/children") else _table_of_children().get
    while todo:
        below = children(todo.pop()) or []
        found += below
        todo += below
    return found


def _children(process: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
    except OSError:
        pass  # it ended meanwhile
    return children


def _table_of_children() -> dict[int, list[int]]:
    """For kernels built without lists of children: from every process's parent."""
    table: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it ended meanwhile
        table.setdefault(parent, []).append(int(name))
    return table


def kill_descendants(ancestor: int, *, spare: int | None = None, rounds: int = 1000) -> bool:
    """Kills the tree below `ancestor`, itself one's own process or above it. False when it grew faster than it died."""
    for _ in range(rounds):
        reap()
        tree = [process for process in descendants(ancestor) if process != spare and not is_dead(process)]
        if not tree:
            reap()
            return True
        for process in tree:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
        os.sched_yield()
    return False


def is_dead(process: int) -> bool:
    """Gone, or only waiting for somebody to ask how it ended."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def is_ending(process: int) -> bool:
    """Gone, or on its way: a first process only ends when all others of its namespace are gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return words[0] in (b"Z", b"X") or bool(int(words[6]) & _EXITING)


def reap() -> tuple[float, list[int]]:
    """Takes note of children that have ended: their CPU seconds, those of what they waited for included, and who."""
    seconds, ended = 0.0, []
    try:
        while True:
            process, _, used = os.wait4(-1, os.WNOHANG)
            if not process:
                break
            seconds += used.ru_utime + used.ru_stime
            ended.append(process)
    except ChildProcessError:
        pass
    return seconds, ended


def disk_use(directory: str) -> float:
    """Bytes allocated below a directory, for the tiers without a file system of a given size; infinite for a nest too
    deep to be looked into. An empty file takes an inode of the host's: none counts less than a page.
    """
    total, todo = 0, [directory]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    total += max(_PAGE, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return math.inf
    return total


@dataclass(frozen=True, slots=True)
class _Look:
    cpu: float  # seconds, own
    waited_for: float  # seconds, of children it has waited for
    resident: int
    runnable: bool  # runs, or would if there were a core


def _look_at(process: int) -> _Look | None:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # The name in brackets may hold anything, so count from the last bracket.
            words = file.read().rpartition(b")")[2].split()
        runnable = words[0] == b"R" or (int(words[17]) > 1 and _has_runnable_thread(process))
    except (OSError, IndexError):
        return None
    # The leader of a process may end and leave its threads: then it shows no memory, and they do.
    pages = int(words[21]) if words[0] != b"Z" or int(words[17]) < 2 else _pages_of_threads(process)
    own, waited_for = sum(map(int, words[11:13])) / _TICKS, sum(map(int, words[13:15])) / _TICKS
    return _Look(own, waited_for, pages * _PAGE, runnable)


def _pages_of_threads(process: int) -> int:
    most = 0
    for path in glob.glob(f"/proc/{process}/task/*/stat"):
        try:
            with open(path, "rb") as file:
                most = max(most, int(file.read().rpartition(b")")[2].split()[21]))
        except OSError:
            continue  # it ended meanwhile
    return most


def _has_runnable_thread(process: int) -> bool:
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] == b"R":
                return True
    return False


def _proportional(process: int) -> int | None:
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def cpu_seconds(processes: Iterable[int]) -> float:
    """What these have used, each with the children it has waited for. Parents stand before their children: a child
    that ends meanwhile is then missed for once, never counted twice.
    """
    return sum(look.cpu + look.waited_for for process in processes if (look := _look_at(process)))


@dataclass
class Usage:
    """The tree's use so far.

    No process of a program ends unseen: its parent waits for it, or it stays as a dead entry, or it is left to whoever
    adopts orphans, who waits. (The filter keeps programs from letting their children vanish, see syscalls.py.) So the
    living, with all they have waited for, and the adopter's account are the whole, however short a child's life was.
    """

    cpu_seconds: float = 0.0
    memory: int = 0
    peak_memory: int = 0
    processes: int = 0
    runnable: bool = False

    def look(self, tree: Iterable[int], orphans_cpu: float, memory_limit: int) -> None:
        """`tree`: parents before children. `orphans_cpu`: CPU seconds of those the adopter has waited for."""
        looks = {process: look for process in tree if (look := _look_at(process))}
        living = sum(look.cpu + look.waited_for for look in looks.values())
        self.cpu_seconds = max(self.cpu_seconds, orphans_cpu + living)
        self.memory, self.processes = sum(look.resident for look in looks.values()), len(looks)
        self.runnable = any(look.runnable for look in looks.values())
        if self.memory > memory_limit and len(looks) > 1:
            self.memory = sum(_proportional(process) or look.resident for process, look in looks.items())
        self.peak_memory = max(self.peak_memory, self.memory)

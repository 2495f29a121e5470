"""The zygote: an interpreter that has done its imports and does nothing but fork guards.

No byte of any program ever enters it, so a program, which starts as a copy of its memory, finds nothing of others.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import struct
from typing import Any

from r1kit.sandbox.inside import guard, kernel, program, watch
from r1kit.sandbox.syscalls import program_filter

# What programs import most; each costs a fork nothing and a fresh interpreter milliseconds.
PRELOADED = (  # noqa: SIM905 (a list of names reads better as a sentence)
    "array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools heapq io "
    "itertools json math operator queue random re statistics string struct threading time typing"
).split()

ENDED = struct.Struct("!idq")  # wait status, CPU seconds, largest resident set in bytes
STARTED = struct.Struct("!ii")  # the first process of the program's namespace (0: it has none), the guard
START, STATUS = b"s", b"w"


def serve(wire: socket.socket, settings: dict[str, Any]) -> None:
    """One guard per message; the message carries the guard's end of its own connection. Ends with the supervisor."""
    for name in PRELOADED:
        importlib.import_module(name)
    program_filter(kernel.MACHINE, protected=settings["protected"], only_itself=None)  # made once: it is kept
    kernel.hide_memory()
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if settings["private"] else -1
    box = settings["box"]
    program.prepare_python(program.environment(f"{box}/tmp", f"{box}/libraries" if settings["libraries"] else ""))
    program.load(settings["libraries"], settings["library_paths"])
    gc.collect()
    gc.freeze()
    guard_process = 0
    while True:
        message, fds, _, _ = socket.recv_fds(wire, 1, 1)
        if not message:
            os._exit(0)
        if message == STATUS:
            _, status, used = os.wait4(guard_process, 0)
            wire.sendall(ENDED.pack(status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024))
            continue
        watch.reap()  # earlier first processes
        first = _make_namespace() if settings["private"] else 0
        guard_process = kernel.fork()
        if not guard_process:
            wire.close()
            guard.serve(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fds[0]), settings)
        if settings["private"]:
            kernel.setns(home, kernel.NEWPID)
        os.close(fds[0])
        wire.sendall(STARTED.pack(first, guard_process))


def _make_namespace() -> int:
    """A process namespace for the next child, held by a first process that only waits for orphans: what it has waited
    for is in its own account, where the supervisor reads it.

    Being the first is nothing for a program: signals that end any other process do not end that one, and its end is the
    end of all. This one costs a sixth of what a supervising interpreter there would.
    """
    kernel.unshare(kernel.NEWPID)
    first = kernel.fork()
    if first:
        return first
    os.closerange(3, 1 << 16)  # connections end when those who speak over them do
    children = {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, children)
    while True:
        watch.reap()
        signal.sigwait(children)

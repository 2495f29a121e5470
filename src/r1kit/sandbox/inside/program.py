"""The program's own process: gives up every right, then becomes the program.

Either a file is executed, or, for Python, the interpreter that is already here runs the program as `__main__`, which
saves its start.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import random
import resource
import signal
import sys
import threading
from types import ModuleType, TracebackType
from typing import Any

from r1kit.sandbox.inside import kernel
from r1kit.sandbox.syscalls import program_filter

MIB = 1 << 20


def environment(home: str, libraries: str = "") -> dict[str, str]:
    """The variables of a program; `libraries`: where it finds those that it may import, if there are any."""
    # A fixed hash seed: the order of a set, and with it a verdict, is the same in every run.
    fixed = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    # One thread: a program's threads count as processes, and its CPU time is limited.
    offered = {"PYTHONPATH": libraries, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} if libraries else {}
    return fixed | offered | {"PYTHONDONTWRITEBYTECODE": "1", "HOME": home, "TMPDIR": home}


def set_limits(limits: dict[str, Any], extra_processes: int) -> None:
    """Per process, as a second net under the watchdog's sums over the tree."""
    cpu = int(limits["cpu_seconds"]) + 2
    address_space = 2 * limits["memory_bytes"] + 512 * MIB
    for name, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"] + extra_processes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 64 * 1024),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def confine(order: dict[str, Any], box: str) -> None:
    """Rights that only shrink, in the order in which each step still has the right to take the next one."""
    set_limits(order["limits"], order["extra_processes"])
    kernel.drop_capabilities()
    kernel.show_memory()
    kernel.no_new_privileges()
    if order["tier"] == "rlimits":
        return
    itself = None
    if order["tier"] == "landlock":
        # Other processes of this user are visible, and Landlock's scope covers signals only, not their limits.
        kernel.landlock(order["readable"], [box], order["devices"])
        itself = os.getpid()
    kernel.install_filter(program_filter(kernel.MACHINE, protected=order["protected"], only_itself=itself))


def take_descriptors(fds: list[int]) -> None:
    """`fds` become 0, 1, 2, ...: standard input, output, error, the reply, the guard's pipe. No other stays open."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in fds]  # out of the way of the targets
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=target < 4)
    os.closerange(len(fds), 1 << 16)


def execute(command: list[str], variables: dict[str, str]) -> None:
    """Replaces this process. 127 where the file cannot be executed, as a shell says."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        if "/" in command[0]:
            os.execve(command[0], command, variables)
        os.execvpe(command[0], command, variables)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def prepare_python(variables: dict[str, str]) -> None:
    """What every program needs of the interpreter, done once in the zygote instead of in each of its copies."""
    os.environ.clear()
    os.environ.update(variables)
    sys.dont_write_bytecode = True
    # The streams are made on files of the right kind (a file to read, a pipe to write to) that later take the places.
    reading, writing = os.pipe()
    for target, fd in enumerate((os.memfd_create("stdin"), writing, writing)):
        os.dup2(fd, target, inheritable=True)
        os.close(fd) if fd != writing else None
    os.close(writing)
    os.close(reading)
    text = {"encoding": "utf-8", "closefd": False}
    sys.stdin = sys.__stdin__ = open(0, errors="surrogateescape", **text)  # type: ignore[misc, call-overload] # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", errors="surrogateescape", **text)  # type: ignore[misc, call-overload] # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, errors="backslashreplace", **text)  # type: ignore[misc, call-overload] # noqa: SIM115
    for name in [name for name in sys.modules if name == "r1kit" or name.startswith("r1kit.")]:
        del sys.modules[name]
    random.seed(0)  # as with the hash seed
    # Code that has run is specialised in place: then running it writes to fewer shared pages.
    for _ in range(20):
        exec(compile("a, b = map(int, '1 2'.split())\n", "warm", "exec"), {"__name__": "warm"})
        json.loads(json.dumps({"warm": [1, 2.5, "three", None, True]}))
        _flush()


def load(libraries: list[str], places: list[str]) -> None:
    """Imports what programs may import beside the standard library, once for all of them. One that cannot be imported
    fails in the program that asks for it, which can say why.
    """
    known = sys.path[:]
    sys.path += dict.fromkeys(os.path.dirname(place) for place in places)  # with neighbours no program is to see
    for name in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    sys.path[:] = known + list(filter(None, [os.environ.get("PYTHONPATH")]))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)  # as with random


def run_python(arguments: list[str]) -> None:
    """Runs the file `arguments[0]` as `python FILE ...` would; does not return."""
    sys.argv[:] = arguments
    sys.path.insert(0, os.getcwd())
    os._exit(_run_main(arguments[0]))


def _run_main(path: str) -> int:
    module = ModuleType("__main__")
    module.__file__, module.__dict__["__builtins__"] = path, __builtins__
    sys.modules["__main__"] = module
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        os.write(2, f"python: can't open file {path!r}: {error.strerror}\n".encode())
        return 2
    status = 0
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        status = _report(error, error.__traceback__.tb_next if error.__traceback__ else None)
    return _finish(module, status)


def _report(error: BaseException, traceback: TracebackType | None) -> int:
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        _flush()
        sys.stderr.write(f"{error.code}\n")
        return 1
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)
    return 1


def _finish(module: ModuleType, status: int) -> int:
    """What the interpreter does at its end, as far as a program can tell: threads, exit handlers, buffers."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        # Files that were never closed are flushed when their last reference goes.
        for name in [name for name in module.__dict__ if name != "__builtins__"]:
            module.__dict__.pop(name, None)
    except BaseException as error:
        status = _report(error, error.__traceback__)
    return status if _flush() else 120


def _flush() -> bool:
    fine = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            fine = False
    return fine

"""The process that runs math-verify: started by path, imports nothing of r1kit, forks one worker per slot.

    python -P voter_process.py FD

FD is a Unix socket to the pool. The process imports sympy and the parsers once and warms them; for every socket it is
sent it forks a worker, in milliseconds, and answers with its pid; asked about a pid, it answers how that child ended.
Forking happens here, where there is one thread and nothing of the caller's: not in the caller's process, which may
have threads, an event loop or CUDA.

A worker takes jobs as JSON lines and limits itself: address space for its life, CPU time for each job, by a timer whose
signal has no handler and so ends the process. Before each stage it writes the stage's name, so that the pool knows
whether the gold or the candidate was too much. math-verify runs without its own timeouts: they answer False.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
LENGTH = struct.Struct("!I")


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """One message: four bytes of length, then JSON. None at the end of the stream."""
    head = _exactly(connection, LENGTH.size)
    body = _exactly(connection, LENGTH.unpack(head)[0]) if head else None
    return json.loads(body) if body else None


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    connection.sendall(LENGTH.pack(len(body)) + body)


def parse(text: str) -> Any:
    """A bare answer as math-verify reads it, or None. The answer is wrapped, so that nothing of it is cut away."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig
    from math_verify import parse as read

    body = text if "$" in text or "\\boxed" in text else f"${text}$"
    for config in (LatexExtractionConfig(), ExprExtractionConfig()):
        found = read(body, extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None)
        if found:
            return found
    return None


def judge(gold: str, prediction: str, report: Any) -> str:
    """ "yes", "no", "gold_unread" or "unparsable"."""
    from math_verify import verify

    report("gold")
    wanted = parse(gold)
    if not wanted:
        return "gold_unread"
    report("candidate")
    given = parse(prediction)
    if not given:
        return "unparsable"
    report("comparison")
    return "yes" if verify(wanted, given, timeout_seconds=None) else "no"


def work(connection: socket.socket, memory: int) -> None:
    """Answer jobs until the other side closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives the process that forked it
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    sys.setrecursionlimit(3000)
    while (job := receive(connection)) is not None:
        signal.setitimer(signal.ITIMER_PROF, job["cpu_seconds"])
        try:
            answer = judge(job["gold"], job["prediction"], lambda stage: send(connection, {"stage": stage}))
        except MemoryError:
            answer = "memory"
        except Exception as error:
            answer = f"failed: {type(error).__name__}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(connection, {"answer": answer})


def warm() -> None:
    """Import everything and touch the grammar, so that no job pays for it."""
    for gold, prediction in (
        (r"\frac{1}{2}", "0.5"),
        (r"\{1,2\}", "1, 2"),
        (r"x^2+\sqrt{2}", "x^2"),
        (r"(1,2]", r"1<x\le 2"),
        (r"\sin(x)", r"\int_0^1 x dx"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "5"),
    ):
        judge(gold, prediction, lambda stage: None)


def serve(control: socket.socket) -> None:
    """Fork a worker for each socket that arrives; say how children ended. Ends when the pool does."""
    parent = os.getppid()
    control.settimeout(2.0)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        except TimeoutError:
            if os.getppid() != parent:
                return
            continue
        if not data:
            return
        command, _, argument = data.decode().partition(" ")
        if command == "fork":
            control.sendall(LENGTH.pack(_fork(control, descriptors[0], int(argument))))
        else:
            control.sendall(LENGTH.pack(_ended(int(argument))))


def _fork(control: socket.socket, descriptor: int, memory: int) -> int:
    pid = os.fork()
    if pid == 0:
        control.close()
        try:
            work(socket.socket(fileno=descriptor), memory)
        except OSError:
            pass  # the pool went away
        finally:
            os._exit(0)
    os.close(descriptor)
    return pid


def _ended(pid: int) -> int:
    """The signal that ended a child, 255 if it left without one or is unknown."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 255
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 255


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's business; we end with the socket
    control_socket = socket.socket(fileno=int(sys.argv[1]))
    warm()
    gc.freeze()  # a worker's first collection would copy every page that this process holds
    control_socket.sendall(b"R")
    serve(control_socket)

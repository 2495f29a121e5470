"""The supervisor of one cell: takes orders from us, has the zygote fork a guard for each, watches, and reports.

It is the first process of the cell where the cell has a process namespace, so the cell ends with it. It ends when our
end of the connection closes, or when the process that opened it is gone: a child that this one forked may hold the
connection open for long after. It drains what the program writes (capped, so nothing blocks and nothing floods) and
looks at the tree's CPU time and memory every few milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import time
from typing import Any

from r1kit.sandbox import frames
from r1kit.sandbox.inside import guard, kernel, watch, zygote

STDERR_BYTES = 64 * 1024
_LOOK_SECONDS = 0.02
LONGEST = 20  # times the wall limit: an end for everything
_STREAMS = ("stdout", "stderr", "reply")
_ALL_SEALS = 1 | 2 | 4 | 8  # no more seals, no shrinking, growing, writing


def serve(wire: socket.socket, owner: int, settings: dict[str, Any]) -> None:
    """`owner`: a descriptor that is readable when the process that holds the other end has ended. Does not return."""
    kernel.hide_memory()
    if settings["drop_bounding_set"]:
        kernel.drop_bounding_set()
    if settings["mounts_box"] and not settings["private"]:
        guard.mount_box(settings["box"], 1 << 20)
    ours, theirs = socket.socketpair()
    process = os.fork()
    if not process:
        ours.close()
        wire.close()
        os.close(owner)
        ours_processes = () if settings["private"] else (os.getppid(), os.getpid())
        zygote.serve(theirs, settings | {"protected": ours_processes})
    theirs.close()
    try:
        frames.send(wire, {"ready": True})
        while True:
            _wait_for_orders(wire, owner)
            head, blobs, fds = frames.receive(wire)
            if "cancel" in head:
                continue  # its job had ended before
            report, contents = Attendance(wire, owner, ours, process, settings, head).attend(blobs, fds)
            frames.send(wire, report, contents)
    except (frames.Closed, ConnectionError, OwnerGone):
        pass
    except BaseException as error:
        # This cell is of no more use. The other side reads the last line.
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    watch.kill_descendants(os.getpid())
    os._exit(0)


class OwnerGone(Exception):
    """The process that this cell works for has ended."""


def _wait_for_orders(wire: socket.socket, owner: int) -> None:
    poll = select.poll()
    for fd in (wire.fileno(), owner):
        poll.register(fd, select.POLLIN)
    if owner in dict(poll.poll()):
        raise OwnerGone


class Attendance:
    """One program, from its order to its report."""

    def __init__(
        self,
        wire: socket.socket,
        owner: int,
        to_zygote: socket.socket,
        zygote_process: int,
        settings: dict[str, Any],
        head: Any,
    ) -> None:
        self.wire, self.owner, self.to_zygote, self.zygote_process = wire, owner, to_zygote, zygote_process
        self.settings, self.head, self.limits = settings, head, head["limits"]
        self.caps = {"stdout": self.limits["output_bytes"], "stderr": STDERR_BYTES, "reply": self.limits["reply_bytes"]}
        self.data = {name: bytearray() for name in _STREAMS}
        self.pipes: dict[int, str] = {}
        self.usage = watch.Usage()
        self.orphans_cpu = 0.0  # of those that we adopted and that have ended
        self.asleep = 0.0
        self.stopped = self.detail = ""  # the limit that we ended the program for
        self.end = -1  # readable when the guard has ended
        self.first = self.process = 0  # of the program's namespace; the guard
        self.running = False
        self.ended = (0, 0.0, 0)  # wait status, CPU seconds, largest resident set
        self.trouble = ""
        self.collected: dict[str, bytes] = {}
        self.poll = select.poll()

    def attend(self, blobs: list[bytes], mounts: list[int]) -> tuple[dict[str, Any], list[bytes]]:
        self.began = time.monotonic()
        self.guard, theirs = socket.socketpair()
        socket.send_fds(self.to_zygote, [zygote.START], [theirs.fileno()])
        theirs.close()
        try:
            self._order(blobs, mounts)
            self.first, self.process = self._ask_zygote(zygote.STARTED)
            self.end, self.running = os.pidfd_open(self.process), True
            self._watch()
            self._clear_away()
            self._hear_guard()
            self._drain_the_rest()
        finally:
            for fd in (*self.pipes, *([self.end] if self.end >= 0 else ())):
                os.close(fd)
            self.guard.close()
        if not self.settings["private"]:
            guard.clean(self.settings["box"], self.settings["mounts_box"])
        return self._report()

    def _ask_zygote(self, answer: struct.Struct) -> tuple[Any, ...]:
        return answer.unpack(frames.receive_exactly(self.to_zygote, answer.size))

    def _clear_away(self) -> None:
        """The guard has ended. Ends what the program left behind, and learns how it ended."""
        self.running = False
        self.to_zygote.sendall(zygote.STATUS)
        how, cpu, peak = self._ask_zygote(zygote.ENDED)
        if self.first:
            if not self.stopped and watch.is_ending(self.first):
                # Not by the program, which cannot reach it: the program was killed along with it.
                raise RuntimeError("the first process of the program's namespace was lost")
            cpu += watch.cpu_seconds([self.first, *watch.descendants(self.first)])
            os.kill(self.first, signal.SIGKILL)  # and with it everybody in its namespace
        else:
            cpu += watch.cpu_seconds(self._adopted()) + self.orphans_cpu
            if not watch.kill_descendants(os.getpid(), spare=self.zygote_process):
                raise RuntimeError("the program starts processes faster than they can be ended")
        self.ended = (how, cpu, peak)

    def _adopted(self) -> list[int]:
        """Without a namespace of its own, what a program leaves behind is ours. Waits for those that have ended."""
        seconds, ended = watch.reap()
        self.orphans_cpu += seconds
        if self.zygote_process in ended:
            raise RuntimeError("the zygote was lost")
        return [process for process in watch.descendants(os.getpid()) if process != self.zygote_process]

    def _hear_guard(self) -> None:
        """Everything it has said, to the end of its connection: that it had confined itself, or why it could not."""
        words, work = b"", -1
        while True:
            part, fds, _, _ = socket.recv_fds(self.guard, 1 << 16, 1)
            if not part:
                break
            words, work = words + part, fds[0] if fds else work
        if work < 0:
            self.trouble = words.decode(errors="replace") or "the guard of the program was lost"
            return
        if not self.stopped:
            self.collected = guard.collect(work, self.head["collect"], self.limits["output_bytes"])
        os.close(work)

    def _order(self, blobs: list[bytes], mounts: list[int]) -> None:
        """Standard input is a sealed-off file rather than a pipe: nobody has to feed it."""
        stdin = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(os.dup(stdin), "wb") as file:
            file.write(blobs[0])
        os.lseek(stdin, 0, os.SEEK_SET)
        fcntl.fcntl(stdin, fcntl.F_ADD_SEALS, _ALL_SEALS)
        ends = [stdin]
        for name in _STREAMS:
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self.pipes[ours] = name
            ends.append(theirs)
        payload = sum(map(len, blobs[1:])) + sum(os.fstat(fd).st_size for fd in mounts) + 4096 * len(blobs + mounts)
        frames.send(self.guard, self.head | {"payload": payload}, blobs[1:], [*ends, *mounts])
        for fd in (*ends, *mounts):
            os.close(fd)

    def _watch(self) -> None:
        """Until the guard has ended. Output is read from the first look on: most programs have ended by then, what they
        wrote is in the pipes, and nobody has been woken for it.
        """
        for fd in (self.end, self.wire.fileno(), self.owner, self.to_zygote.fileno()):
            self.poll.register(fd, select.POLLIN)
        last_look, next_look = self.began, self.began + _LOOK_SECONDS
        while True:
            for fd, _ in self.poll.poll(max(0.0, next_look - time.monotonic()) * 1000):
                if fd == self.end:
                    return
                if fd == self.wire.fileno():
                    self._hear_us()
                elif fd == self.owner:
                    raise OwnerGone
                elif fd == self.to_zygote.fileno():
                    raise RuntimeError("the zygote was lost")  # it has nothing to say unasked
                else:
                    self._drain(fd)
            now = time.monotonic()
            if now >= next_look:
                if last_look == self.began:
                    self._listen()
                self._look(now - last_look)
                # A large tree takes long to look at: never more than a twentieth of the time.
                last_look, next_look = now, now + max(_LOOK_SECONDS, 20 * (time.monotonic() - now))

    def _listen(self) -> None:
        for fd in self.pipes:
            self.poll.register(fd, select.POLLIN)

    def _hear_us(self) -> None:
        head, _, _ = frames.receive(self.wire)
        if head["cancel"] == self.head["id"]:
            self._stop("cancelled")

    def _drain(self, fd: int) -> None:
        """Reads what is there. Output over its cap ends the program, except standard error, which is only cut."""
        name = self.pipes[fd]
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self.poll.unregister(fd)
            del self.pipes[fd]
            os.close(fd)
            return
        kept, cap = self.data[name], self.caps[name]
        if len(kept) + len(chunk) > cap and name != "stderr":
            self._stop("output_limit", f"{name} over {cap} bytes")
        kept += chunk[: cap - len(kept)]

    def _drain_the_rest(self) -> None:
        """Every writer is dead or dying, so each pipe comes to its end; if not, this cell is of no more use."""
        self._listen()
        deadline = time.monotonic() + 20
        while self.pipes:
            for fd, _ in self.poll.poll(1000):
                if fd in self.pipes:
                    self._drain(fd)
            if time.monotonic() > deadline:
                raise RuntimeError("the program's processes do not end")

    def _look(self, elapsed: float) -> None:
        """Time in which the program would run if it got a core is no sleep: the CPU limit is its measure, and a busy
        machine changes no verdict. Only a machine too busy to be of use comes to the longest time.
        """
        # What it left behind belongs to the first process of its namespace or, without one, to us. Parents stand first.
        if self.first:
            tree = [self.process, *watch.descendants(self.process), *watch.descendants(self.first)]
            self.orphans_cpu = watch.cpu_seconds([self.first])
        else:
            tree = self._adopted()
        self.usage.look(dict.fromkeys(tree), self.orphans_cpu, self.limits["memory_bytes"])
        self.asleep += 0.0 if self.usage.runnable else elapsed
        longest = time.monotonic() - self.began > LONGEST * self.limits["wall_seconds"]
        if self.usage.cpu_seconds > self.limits["cpu_seconds"]:
            self._stop("cpu_limit")
        elif longest or self.asleep > self.limits["wall_seconds"]:
            self._stop("wall_limit")
        elif self.usage.memory > self.limits["memory_bytes"]:
            self._stop("memory_limit")
        elif self.settings["host_box"]:
            if self.usage.processes > self.limits["processes"]:
                self._stop("failed", f"more than {self.limits['processes']} processes")
            elif watch.disk_use(self.settings["box"]) > self.limits["disk_bytes"]:
                self._stop("failed", f"more than {self.limits['disk_bytes']} bytes of disk")

    def _stop(self, why: str, detail: str = "") -> None:
        if self.stopped:
            return
        self.stopped, self.detail = why, detail
        if self.running:  # not waited for yet, so the number is still its own
            os.kill(self.first or self.process, signal.SIGKILL)

    def _report(self) -> tuple[dict[str, Any], list[bytes]]:
        how, cpu, peak = self.ended
        cpu, peak = max(self.usage.cpu_seconds, cpu), max(self.usage.peak_memory, peak)
        code = exit_signal = None
        if self.stopped or self.trouble:
            status = self.stopped or "sandbox_failed"
        elif cpu > self.limits["cpu_seconds"] or peak > self.limits["memory_bytes"]:
            status = "cpu_limit" if cpu > self.limits["cpu_seconds"] else "memory_limit"
        elif os.WIFSIGNALED(how):
            status, exit_signal = "failed", os.WTERMSIG(how)
        else:
            code = os.WEXITSTATUS(how)
            status = "failed" if code else "ok"
        report: dict[str, Any] = {"status": status, "exit_code": code, "signal": exit_signal, "cpu": cpu, "peak": peak}
        report |= {"detail": self.detail or ("" if self.stopped else self.trouble), "collected": list(self.collected)}
        report |= {"wall": time.monotonic() - self.began}
        return report, [*(bytes(self.data[name]) for name in _STREAMS), *self.collected.values()]

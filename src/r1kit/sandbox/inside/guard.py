"""From an order to a running program: makes its box, writes its files, gives up every right, becomes the program.

One process from beginning to end, forked from a zygote that never sees a program's data; the supervisor does what comes
after. In the private form it lives in a process namespace and a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
from pathlib import PurePosixPath
from typing import Any

from r1kit.sandbox import frames
from r1kit.sandbox.inside import kernel, program

_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
CONFINED = b"."  # the word, with the working directory's descriptor, that from here on it is the program that runs


def serve(wire: socket.socket, settings: dict[str, Any]) -> None:
    """One program. Does not return."""
    try:
        head, blobs, fds = frames.receive(wire)
        order = settings | head
        box = _make_box(order)
        _write_files(order, blobs, fds[4:], f"{box}/work")
        work = os.open(f"{box}/work", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _become_program(order, box, [*fds[:4], wire.fileno(), work])
    except BaseException as error:
        wire.sendall(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def mount_box(box: str, size: int) -> None:
    quiet = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("box", box, "tmpfs", quiet, f"size={size},nr_inodes=16384,mode=700")
    os.mkdir(f"{box}/shm", 0o700)
    kernel.mount(f"{box}/shm", "/dev/shm", None, kernel.MS_BIND)


def _make_box(order: dict[str, Any]) -> str:
    """The program's own file system (namespaces) or directory (without): working directory, /tmp and /dev/shm."""
    box, disk = order["box"], order["limits"]["disk_bytes"] + order["payload"]
    if order["private"]:
        kernel.unshare(kernel.NEWNS)
        mount_box(box, disk)
        # Over the cell's own, which shows the cell's processes: the kernel gives a new one only to who sees an old one.
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "subset=pid")
    elif order["mounts_box"]:
        kernel.mount("box", box, "tmpfs", kernel.MS_REMOUNT | kernel.MS_NOSUID | kernel.MS_NODEV, f"size={disk}")
    os.mkdir(f"{box}/work", 0o700)
    os.mkdir(f"{box}/tmp", 0o700)
    if order["libraries"]:
        os.mkdir(f"{box}/libraries", 0o700)
        for path in order["library_paths"]:
            os.symlink(path, f"{box}/libraries/{os.path.basename(path)}")
    return box


def _write_files(order: dict[str, Any], blobs: list[bytes], mounts: list[int], work: str) -> None:
    for name, content in zip(order["files"], blobs, strict=True):
        fd = _create(work, name, 0o600)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.close(fd)
    for name, source in zip(order["mounts"], mounts, strict=True):
        fd = _create(work, name, 0o555)
        while os.sendfile(fd, source, None, 1 << 30):
            pass
        os.close(fd)


def _create(work: str, name: str, mode: int) -> int:
    if "/" in name:
        os.makedirs(os.path.dirname(f"{work}/{name}"), mode=0o700, exist_ok=True)
    return os.open(f"{work}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _become_program(order: dict[str, Any], box: str, fds: list[int]) -> None:
    """`fds`: standard input, output, error, the reply, the wire, the working directory. Does not return."""
    try:
        os.setsid()
        os.chdir(f"{box}/work")
        program.take_descriptors(fds)
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 4)
        program.confine(order, box)
        socket.send_fds(wire, [CONFINED], [5])
    except BaseException as error:
        os.write(4, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    wire.close()
    os.close(5)
    try:
        command, variables = order["command"], dict(os.environ)
        if command[0] != "python":
            program.execute(command, variables)
        elif len(command) > 1 and not command[1].startswith("-"):
            program.run_python(command[1:])
        program.execute([sys.executable, "-s", "-S", *command[1:]], variables)
    finally:
        os._exit(1)


def collect(work: int, names: list[str], cap: int) -> dict[str, bytes]:
    """Regular files of the working directory, each up to `cap`; no link is followed, not even on the way."""
    found: dict[str, bytes] = {}
    for name in names:
        *way, last = PurePosixPath(name).parts
        opened = [os.dup(work)]
        try:
            for part in way:
                opened.append(os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=opened[-1]))
            opened.append(os.open(last, _NO_LINK | os.O_NONBLOCK, dir_fd=opened[-1]))
            if stat.S_ISREG(os.fstat(opened[-1]).st_mode):
                with open(opened[-1], "rb", closefd=False) as file:
                    found[name] = file.read(cap)
        except OSError:
            continue  # absent, or no file
        finally:
            for fd in opened:
                os.close(fd)
    return found


def clean(box: str, mounted: bool) -> None:
    """Empties a shared box; one that cannot be emptied, or that was taken apart, is mounted anew."""
    for name in os.listdir("/dev/shm") if mounted else ():
        _remove(f"/dev/shm/{name}")
    for name in os.listdir(box):
        if name != "shm" or not mounted:
            _remove(f"{box}/{name}")
    left = [f"{box}/{name}" for name in os.listdir(box)]
    if mounted:
        if left != [f"{box}/shm"] or not os.path.samefile(left[0], "/dev/shm") or os.listdir("/dev/shm"):
            kernel.unmount("/dev/shm")
            kernel.unmount(box)
            mount_box(box, 1 << 20)
    elif left:
        # Closed directories, or a nest deeper than a recursive function goes: no matter to these two.
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            os.spawnvpe(os.P_WAIT, command[0], [*command, "--", *left], {"PATH": "/usr/bin:/bin"})
        if os.listdir(box):
            raise RuntimeError(f"{', '.join(left)} cannot be removed")


def _remove(path: str) -> None:
    try:
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)
    except (OSError, RecursionError):
        return  # seen by what is left

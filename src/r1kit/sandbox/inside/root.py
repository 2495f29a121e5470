"""Namespaces and a file system of our own where bubblewrap is not installed: the same view, the same calls."""

from __future__ import annotations

import ctypes
import os
import struct

from r1kit.sandbox.inside import kernel

_NEW_ROOT = "/tmp"
_MOUNT_SETATTR, _AT_RECURSIVE = 442, 0x8000  # the same number on both machines
_RDONLY, _NOSUID = 1, 2


def enter(shown: dict[str, str], links: dict[str, str], devices: list[str]) -> None:
    """Every namespace, then a root with `links` and, read-only, `shown` (place: path on the host). OSError names a
    refused call.
    """
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(
        kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWCGROUP
    )
    for name, content in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)
    first = os.fork()
    if first:
        # Outside the new process namespace; nothing to do but to end when it ends.
        os.closerange(0, 2)
        os.closerange(3, 1 << 10)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    _build(shown, links, devices)


def _build(shown: dict[str, str], links: dict[str, str], devices: list[str]) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    new = _NEW_ROOT
    # What is shown may lie below /tmp itself (a Python of one's own): hold it by descriptor before it is covered.
    held = {place: os.open(path, os.O_PATH) for place, path in shown.items()}
    kernel.mount("root", new, "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    for name in ("box", "proc", "old"):
        os.mkdir(f"{new}/{name}", 0o755)
    for place, fd in held.items():
        target = new + place
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "x").close()
        kernel.mount(f"/proc/self/fd/{fd}", target, None, kernel.MS_BIND | kernel.MS_REC)
        _read_only(target, recursive=True)
        os.close(fd)
    os.makedirs(f"{new}/dev/shm")
    for link, target in links.items():
        os.symlink(target, new + link)
    for device in devices:
        open(new + device, "x").close()
        kernel.mount(device, new + device, None, kernel.MS_BIND)
    kernel.mount("proc", f"{new}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.pivot_root(new, f"{new}/old")
    os.chdir("/")
    kernel.unmount("/old")
    os.rmdir("/old")
    _read_only("/", recursive=False)


def _read_only(path: str, *, recursive: bool) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("=QQQQ", _RDONLY | _NOSUID, 0, 0, 0))
    kernel.system_call(
        f"mount_setattr {path}",
        _MOUNT_SETATTR,
        -100,
        path.encode(),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        attributes,
        ctypes.c_size_t(32),
    )

"""The few calls of the Linux kernel that Python 3.11 does not offer, through ctypes.

Each raises OSError with the call's name, so that a refused mount or namespace says which one it was.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 4, 22, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

MACHINE = platform.machine()
_NUMBERS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on both

_libc = ctypes.CDLL(None, use_errno=True)
_process = ctypes.PyDLL(None)  # keeps the interpreter's lock, so that a copy of the process holds it too
_libc.syscall.restype = ctypes.c_long


def _check(name: str, answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return answer


def _call(name: str, *arguments: object) -> int:
    return _check(name, getattr(_libc, name)(*arguments))


def system_call(name: str, number: int, *arguments: object) -> int:
    return _check(name, _libc.syscall(ctypes.c_long(number), *arguments))


def unshare(flags: int) -> None:
    _call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    _call("setns", fd, kind)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    name = kind.encode() if kind else None
    answer = _libc.mount(source.encode(), target.encode(), name, ctypes.c_ulong(flags), data.encode() or None)
    _check(f"mount {kind or 'bind'} on {target}", answer)


def unmount(target: str) -> None:
    _call("umount2", target.encode(), MNT_DETACH)


def pivot_root(new: str, old: str) -> None:
    system_call("pivot_root", _NUMBERS[MACHINE]["pivot_root"], new.encode(), old.encode())


def prctl(option: int, *arguments: int) -> None:
    _call("prctl", option, *(ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]))


def fork() -> int:
    """os.fork() without the interpreter's own work in the child, which touches 180 more pages (1.0 ms against 0.16).

    For a process with one thread and nothing to re-seed or re-lock: the zygote and the guards.
    """
    process: int = _check("fork", _process.fork())
    return process


def hide_memory() -> None:
    """No process of the same user may read or trace this one."""
    prctl(_PR_SET_DUMPABLE, 0)


def show_memory() -> None:
    """As after any execve: the supervisor may read how much memory this process really uses."""
    prctl(_PR_SET_DUMPABLE, 1)


def adopt_orphans() -> None:
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_bounding_set() -> None:
    """Nothing that is executed later gains a capability. Without the right to drop there is nothing to lose."""
    for capability in range(64):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return


def drop_capabilities() -> None:
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    system_call("capset", _NUMBERS[MACHINE]["capset"], header, bytes(24))


def no_new_privileges() -> None:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def install_filter(instructions: bytes) -> None:
    """A seccomp filter over this process and all it starts. Needs no_new_privileges before."""
    lines = ctypes.create_string_buffer(instructions, len(instructions))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(instructions) // 8, ctypes.addressof(lines)))
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def landlock_version() -> int:
    """The kernel's Landlock interface; 0: none."""
    return max(0, _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


_READ = 1 | 4 | 8  # execute, read files, read directories
_SCOPES = 1 | 2  # abstract sockets, signals (interface 6)
_FILE_RIGHTS = 1 | 2 | 4 | 1 << 14 | 1 << 15  # what makes sense on something that is no directory


def landlock(readable: list[str], writable: list[str], devices: list[str]) -> bool:
    """Confines this process and all it starts to what is named. True when it also may not signal outsiders."""
    version = landlock_version()
    if version < 1:
        raise OSError("this kernel has no Landlock")
    everything = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    everything |= 1 << 15 if version >= 5 else 0
    network, scopes = (3 if version >= 4 else 0), (_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("=QQQ", everything, network, scopes)[:size]
    ruleset = system_call(
        "landlock_create_ruleset", _LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    for paths, rights in ((readable, _READ), (writable, everything), (devices, 2 | 4)):
        for path in paths:
            if not os.path.exists(path):
                continue
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights & everything & (-1 if os.path.isdir(path) else _FILE_RIGHTS)
            rule = struct.pack("=Qi", allowed, fd)
            system_call("landlock_add_rule", _LANDLOCK_ADD, ruleset, 1, rule, ctypes.c_uint32(0))
            os.close(fd)
    system_call("landlock_restrict_self", _LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0))
    os.close(ruleset)
    return version >= 6

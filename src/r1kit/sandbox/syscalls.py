"""Which system calls a program may not make, and the seccomp filter that says so.

The numbers are those of the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h, which aarch64 uses). Calls newer than the tables are answered "no such call", so a
kernel that gains one opens no door. Everything else that a compiler, an interpreter or a thread library needs stays.
"""

from __future__ import annotations

import errno
import functools

from r1kit.sandbox.bpf import Program

ALLOW = 0x7FFF0000
KILL = 0x80000000  # the whole process
ERRNO = 0x00050000

# Offsets into struct seccomp_data; arguments are 64 bits wide, low word first on both machines.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Refused with EPERM: name -> (x86_64, aarch64); None where the machine has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # network, and local sockets with a name (socketpair stays: asyncio needs it)
    "socket": (41, 198),
    # other processes' memory and registers
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # namespaces, mounts and roots
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that no summed count of processes sees, or that outlives them
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # priorities: a program that steps back runs for ever where others run, below every limit of CPU time
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    # wide doors into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "personality": (135, 92),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
}
# Raising a limit is refused by the kernel already (hard limits, no capability).
NEWEST = 462  # mseal; anything above is newer than these tables
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435  # its flags lie in memory, where a filter cannot look: "no such call" makes libraries use clone
IOCTL = {"x86_64": 16, "aarch64": 29}
FCNTL = {"x86_64": 72, "aarch64": 25}
# TIOCSTI types into the terminal it came from; FIOSETOWN and SIOCSPGRP name a process that a socket then signals.
REFUSED_IOCTLS = (0x5412, 0x8901, 0x8902)
REFUSED_FCNTLS = (8, 15, 10)  # F_SETOWN, F_SETOWN_EX, F_SETSIG: the same for pipes
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME (0x80) is a signal number in clone's low byte.
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
# CLONE_PARENT: a brother instead of a child, out of the tree that is watched.
REFUSED_CLONES = NEW_NAMESPACES | 0x00008000
# Answered "done" and not done: a program that ignored SIGCHLD would have children that vanish with their CPU time.
SIGACTION = {"x86_64": 13, "aarch64": 134}
SIGCHLD = 17
# Calls that signal a process: name -> (numbers, which argument is the process)
SIGNALS = {
    "kill": ((62, 129), 0),
    "tkill": ((200, 130), 0),
    "tgkill": ((234, 131), 0),
    "rt_sigqueueinfo": ((129, 138), 0),
    "rt_tgsigqueueinfo": ((297, 240), 0),
    "pidfd_open": ((434, 434), 0),
    "process_mrelease": ((448, 448), 0),
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
}


def _column(machine: str) -> int:
    return list(AUDIT).index(machine)


@functools.cache
def program_filter(machine: str, *, protected: tuple[int, ...] = (), only_itself: int | None = None) -> bytes:
    """The filter of one program, as `struct sock_filter[]`.

    protected: processes (and their groups) that the program may not signal, nor everybody at once: for the tiers in
    which our own processes share its process namespace. only_itself: its process id where it may signal nobody else,
    because nothing else keeps it from the user's other processes. ValueError for a machine without a table.
    """
    if machine not in AUDIT:
        raise ValueError(f"no table of system calls for {machine!r}; there is one for {', '.join(AUDIT)}")
    column, program = _column(machine), Program()
    program.load(ARCHITECTURE)
    program.jump_if_equal(AUDIT[machine], otherwise="kill")
    program.load(NUMBER)
    program.jump_if_at_least(NEWEST + 1, then="absent")
    program.jump_if_equal(CLONE3, then="absent")
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            program.jump_if_equal(number, then="refuse")
    program.jump_if_equal(CLONE[machine], then="clone")
    program.jump_if_equal(IOCTL[machine], then="ioctl")
    program.jump_if_equal(FCNTL[machine], then="fcntl")
    program.jump_if_equal(SIGACTION[machine], then="sigaction")
    if protected or only_itself is not None:
        for name, (numbers_of, argument) in SIGNALS.items():
            program.jump_if_equal(numbers_of[column], then=f"argument{argument}" if name != "kill" else "kill_call")
    program.answer(ALLOW)
    program.label("kill")
    program.answer(KILL)
    program.label("absent")
    program.answer(ERRNO | errno.ENOSYS)
    program.label("refuse")
    program.answer(ERRNO | errno.EPERM)
    program.label("clone")
    program.load(ARGUMENTS)
    program.mask(REFUSED_CLONES)
    program.jump_if_equal(0, otherwise="refuse_late")
    program.answer(ALLOW)
    program.label("sigaction")
    program.load(ARGUMENTS)
    program.jump_if_equal(SIGCHLD, otherwise="allow")
    for half in (0, 4):  # without a new action it is a question
        program.load(ARGUMENTS + 8 + half)
        program.jump_if_equal(0, otherwise="as if done")
    program.label("allow")
    program.answer(ALLOW)
    program.label("as if done")
    program.answer(ERRNO | 0)
    program.label("ioctl")
    program.load(ARGUMENTS + 8)
    for request in REFUSED_IOCTLS:
        program.jump_if_equal(request, then="refuse_late")
    program.answer(ALLOW)
    program.label("fcntl")
    program.load(ARGUMENTS + 8)
    for request in REFUSED_FCNTLS:
        program.jump_if_equal(request, then="refuse_late")
    program.answer(ALLOW)
    program.label("refuse_late")
    program.answer(ERRNO | errno.EPERM)
    if protected or only_itself is not None:
        _signal_rules(program, protected, only_itself)
    return program.assemble()


def _signal_rules(program: Program, protected: tuple[int, ...], only_itself: int | None) -> None:
    """Three entries (kill knows groups and "everybody"; the others name a process in argument 0 or 1), one verdict."""
    program.label("kill_call")
    program.load(ARGUMENTS)
    program.jump_if_equal(-1, then="refuse_signal")
    for process in protected:
        program.jump_if_equal(-process, then="refuse_signal")
    program.label("argument0")
    program.load(ARGUMENTS)
    program.jump_if_at_least(0, then="which")  # always
    program.label("argument1")
    program.load(ARGUMENTS + 8)
    program.label("which")
    for process in protected:
        program.jump_if_equal(process, then="refuse_signal")
    if only_itself is None:
        program.answer(ALLOW)
    else:
        program.jump_if_equal(0, then="signal_allowed")
        program.jump_if_equal(only_itself, then="signal_allowed")
        program.jump_if_equal(-only_itself, then="signal_allowed")
    program.label("refuse_signal")
    program.answer(ERRNO | errno.EPERM)
    program.label("signal_allowed")
    program.answer(ALLOW)

"""The seccomp filter is assembled by our own code: an off-by-one in a jump would open every door, silently.

Judged by a small interpreter of BPF and by the machine's own header files where they are installed. That the kernel
takes the filter and obeys it is shown by test_probes.py; that every dangerous call is on the list, no test can show.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from r1kit.sandbox.bpf import Program
from r1kit.sandbox.syscalls import (
    ALLOW,
    AUDIT,
    CLONE,
    CLONE3,
    ERRNO,
    FCNTL,
    IOCTL,
    KILL,
    NEWEST,
    REFUSED,
    REFUSED_CLONES,
    SIGACTION,
    SIGCHLD,
    SIGNALS,
    program_filter,
)

from .filter_machine import run_filter

MACHINES = list(AUDIT)
REFUSE, ABSENT, AS_IF_DONE = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO
HEADERS = {
    "x86_64": [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")],
    "aarch64": [Path("/usr/include/asm-generic/unistd.h")],
}


def test_labels_and_jumps() -> None:
    program = Program()
    program.load(0)
    program.jump_if_equal(7, then="seven")
    program.jump_if_at_least(100, otherwise="small")
    program.answer(100)
    program.label("small")
    program.answer(1)
    program.label("seven")
    program.answer(7)
    answers = [run_filter(program.assemble(), number=n, architecture=0) for n in (7, 99, 100, 2**32 - 1, 0)]
    assert answers == [7, 1, 100, 100, 1]


def test_jumps_that_cannot_be_are_refused() -> None:
    back, far, lost = Program(), Program(), Program()
    back.label("start")
    back.jump_if_equal(1, then="start")
    far.jump_if_equal(1, then="end")
    for _ in range(256):
        far.answer(0)
    far.label("end")
    lost.jump_if_equal(1, then="nowhere")
    for program, words in ((back, "spans -1"), (far, "spans 256"), (lost, "no label")):
        with pytest.raises(ValueError, match=words):
            program.assemble()
    with pytest.raises(ValueError, match="twice"):
        back.label("start")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_gets_its_answer(machine: str) -> None:
    column, program = MACHINES.index(machine), program_filter(machine)
    refused = {numbers[column] for numbers in REFUSED.values()}
    for number in [*range(NEWEST + 200), 2**30, 2**30 + 41, 2**32 - 1]:
        expected = ABSENT if number > NEWEST or number == CLONE3 else REFUSE if number in refused else ALLOW
        assert run_filter(program, number=number, architecture=AUDIT[machine]) == expected, number


def test_another_architecture_is_killed() -> None:
    i386 = 0x40000003
    for machine, other in zip(MACHINES, reversed(MACHINES), strict=True):
        for architecture in (AUDIT[other], i386, 0):
            assert run_filter(program_filter(machine), number=0, architecture=architecture) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str) -> None:
    def answer(number: int, *arguments: int) -> int:
        return run_filter(program_filter(machine), number=number, architecture=AUDIT[machine], arguments=arguments)

    thread_flags = 0x003D0F00
    assert answer(CLONE[machine], thread_flags) == ALLOW
    for bit in range(32):
        if REFUSED_CLONES >> bit & 1:
            assert answer(CLONE[machine], thread_flags | 1 << bit) == REFUSE
    assert answer(SIGACTION[machine], SIGCHLD, 0) == answer(SIGACTION[machine], SIGCHLD + 1, 7) == ALLOW
    assert answer(SIGACTION[machine], SIGCHLD, 7) == answer(SIGACTION[machine], SIGCHLD, 7 << 32) == AS_IF_DONE
    assert answer(IOCTL[machine], 0, 0x5401) == ALLOW
    assert answer(IOCTL[machine], 0, 0x5412) == REFUSE  # TIOCSTI
    assert answer(FCNTL[machine], 0, 2) == ALLOW
    assert answer(FCNTL[machine], 0, 8) == REFUSE  # F_SETOWN


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_to_protected_processes(machine: str) -> None:
    column = MACHINES.index(machine)
    program = program_filter(machine, protected=(1, 77))
    for name, (numbers, place) in SIGNALS.items():
        for target, expected in ((1, REFUSE), (77, REFUSE), (78, ALLOW), (0, ALLOW)):
            arguments = (*(5, 5)[:place], target)
            got = run_filter(program, number=numbers[column], architecture=AUDIT[machine], arguments=arguments)
            assert got == expected, (name, target)
    kill = SIGNALS["kill"][0][column]
    for target, expected in ((-1, REFUSE), (-77, REFUSE), (-78, ALLOW)):
        assert run_filter(program, number=kill, architecture=AUDIT[machine], arguments=(target, 9)) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_to_itself_only(machine: str) -> None:
    column = MACHINES.index(machine)
    program = program_filter(machine, only_itself=500)
    kill = SIGNALS["kill"][0][column]
    for target, expected in ((500, ALLOW), (0, ALLOW), (-500, ALLOW), (501, REFUSE), (-1, REFUSE), (1, REFUSE)):
        assert run_filter(program, number=kill, architecture=AUDIT[machine], arguments=(target, 9)) == expected


def test_a_machine_without_a_table_is_named() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        program_filter("riscv64")


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = next((path for path in HEADERS[machine] if path.exists()), None)
    if header is None:
        pytest.skip(f"no kernel header with the system calls of {machine} (Debian: apt-get install linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in found}
    column = MACHINES.index(machine)
    ours = {name: pair[column] for name, pair in REFUSED.items()} | {"clone3": CLONE3, "clone": CLONE[machine]}
    ours |= {name: pair[column] for name, (pair, _) in SIGNALS.items()}
    ours |= {"ioctl": IOCTL[machine], "fcntl": FCNTL[machine], "rt_sigaction": SIGACTION[machine]}
    compared = {name: number for name, number in ours.items() if name in numbers and number is not None}
    assert compared == {name: numbers[name] for name in compared}
    assert len(compared) > 0.9 * sum(number is not None for number in ours.values())

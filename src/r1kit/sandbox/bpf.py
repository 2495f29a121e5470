"""A small assembler of classic BPF, so that the seccomp filter is our own bytes and needs no library.

Classic BPF has an accumulator, loads of 32-bit words from the record of the system call, jumps that only go forward,
and returns. Labels stand for jump targets; offsets are worked out here and refused when they do not fit a byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# Opcodes of <linux/bpf_common.h>: class | size or operation | mode or source.
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, k


@dataclass(frozen=True, slots=True)
class _Line:
    code: int
    k: int
    then: str | None = None
    otherwise: str | None = None


class Program:
    """Lines and labels, in order. A jump without a label for one side falls through to the next line on that side."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"label {name!r} is set twice")
        self._labels[name] = len(self._lines)

    def load(self, offset: int) -> None:
        self._lines.append(_Line(LOAD_WORD, offset))

    def mask(self, bits: int) -> None:
        self._lines.append(_Line(AND, bits))

    def jump_if_equal(self, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        self._lines.append(_Line(JUMP_EQUAL, value & 0xFFFFFFFF, then, otherwise))

    def jump_if_at_least(self, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        self._lines.append(_Line(JUMP_GREATER_EQUAL, value, then, otherwise))

    def answer(self, value: int) -> None:
        self._lines.append(_Line(RETURN, value))

    def _offset(self, line: int, name: str | None) -> int:
        if name is None:
            return 0
        if name not in self._labels:
            raise ValueError(f"jump to {name!r}, which is no label")
        offset = self._labels[name] - line - 1
        if not 0 <= offset <= 255:
            raise ValueError(f"jump from line {line} to {name!r} spans {offset} lines; 0 to 255 fit")
        return offset

    def assemble(self) -> bytes:
        """The bytes of `struct sock_filter[]`, 8 a line."""
        return b"".join(
            INSTRUCTION.pack(line.code, self._offset(n, line.then), self._offset(n, line.otherwise), line.k)
            for n, line in enumerate(self._lines)
        )

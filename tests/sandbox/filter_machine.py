"""An interpreter of classic BPF, written from its definition and not from our assembler: the oracle of the filter."""

from __future__ import annotations

import struct


def run_filter(program: bytes, *, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would answer to a system call: the constant that the filter returns."""
    words = [argument & 0xFFFFFFFFFFFFFFFF for argument in arguments]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *words, *([0] * (6 - len(words))))
    lines = list(struct.iter_unpack("<HBBI", program))
    accumulator, line = 0, 0
    while True:
        code, then, otherwise, k = lines[line]
        line += 1
        kind = code & 0x07
        if kind == 0x00:  # load
            assert code == 0x20, f"only 32-bit absolute loads, not {code:#x}"
            assert k % 4 == 0, "the kernel refuses unaligned loads"
            assert k < 64, "the kernel refuses loads past the record"
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif kind == 0x04:  # arithmetic with a constant
            assert code == 0x54
            accumulator &= k
        elif kind == 0x05:  # jump
            test = {0x10: accumulator == k, 0x30: accumulator >= k}[code & 0xF0]
            line += then if test else otherwise
        elif kind == 0x06:  # return
            return k
        else:
            raise AssertionError(f"no such instruction: {code:#x}")

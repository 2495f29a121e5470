"""Memory as Linux gives it out: large pages under big buffers."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch
from torch import Tensor

_HUGE = 2 << 20
_MADV_HUGEPAGE = 14


def advise_huge_pages(array: Tensor) -> None:
    """Ask Linux for large pages under a big array in memory: what reads it all pays for the walk through small pages.

    A wish: where it is not granted nothing changes.
    """
    advise = getattr(_libc(), "madvise", None)
    if array.device.type != "cpu" or array.nbytes < 4 * _HUGE or advise is None:
        return
    start = -(-array.data_ptr() // _HUGE) * _HUGE
    advise(ctypes.c_void_p(start), ctypes.c_size_t(array.data_ptr() + array.nbytes - start), _MADV_HUGEPAGE)


def buffer(size: int) -> Tensor:
    """At least `size` bytes, uninitialised, from the start of a large page on."""
    room = torch.empty(size + _HUGE, dtype=torch.uint8)
    room = room[-room.data_ptr() % _HUGE :]
    advise_huge_pages(room)
    return room


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None

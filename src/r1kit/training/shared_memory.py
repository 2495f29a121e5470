"""Memory that all processes of a run on one machine see: what one writes the others read, without a copy.

It has no name in any file system, so that nothing is left behind by a process that is killed, and it is reserved when
it is made, so that later writes cannot fail for want of memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from r1kit.config.errors import UserError

if TYPE_CHECKING:
    from r1kit.training.parallel import World


def available(world: World) -> bool:
    """Whether the processes of `world` can share memory; every rank calls it."""
    if world.size == 1 or world.device != "cpu":
        return False
    try:
        allocate(world, 1, torch.float32)
    except UserError:
        return False
    return True


def allocate(world: World, elements: int, dtype: torch.dtype) -> Tensor:
    """A vector of zeros that every rank of `world` sees, for as long as one holds it; every rank calls it.

    UserError, on every rank, where one of them cannot have it.
    """
    descriptor, reason = -1, ""
    try:
        if world.is_main:
            descriptor, reason = _reserve(max(elements, 1) * dtype.itemsize)
        # Another process opens the descriptor through this one's entry in /proc, and looks whether it found the same.
        found = [f"/proc/{os.getpid()}/fd/{descriptor}", _identity(descriptor)]
        path, identity = world.broadcast(found, "shared memory")
        mapped = None
        if not reason:
            try:
                if _identity(path) != identity:
                    raise OSError(f"{path} is something else in this process: it sees other processes than rank 0")
                mapped = torch.from_file(path, shared=True, size=max(elements, 1), dtype=dtype)
            except (RuntimeError, OSError) as error:
                reason = str(error)
        reasons = [r for r in world.gather(reason, "shared memory") if r]
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if reasons or mapped is None:
        raise UserError(
            f"{elements * dtype.itemsize / 2**20:.0f} MiB of memory shared by {world.size} processes could not be had: "
            f"{'; '.join(reasons)}. Run with --processes 1, or free memory"
        )
    return mapped[:elements]


def _identity(file: int | str) -> list[int]:
    """What tells a file from all others of a machine; of none, nothing."""
    if file == -1:
        return []
    found = os.stat(file)
    return [found.st_dev, found.st_ino]


def _reserve(size: int) -> tuple[int, str]:
    """A descriptor of `size` zeroed bytes of memory, or (-1, why not)."""
    if not hasattr(os, "memfd_create"):
        return -1, "this system has no memory without a name"
    try:
        descriptor = os.memfd_create("r1kit")
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        return -1, str(error)
    return descriptor, ""

"""One process or a few, over gloo (and nccl between GPUs): the same calls, the same stage code on every rank.

With one process nothing is initialised and every collective is the identity. Every wait has a deadline, and a failure
names the stage that was waiting. Vectors made by `window` and `common` lie in memory that all processes see, where the
system has such (shared_memory.py): they are summed there, or are one and the same.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from r1kit.config.errors import UserError
from r1kit.training import shared_memory

# Numbers summed at a time in shared memory: they stay in a core's cache.
SUMMED = 1 << 16


class PeerError(RuntimeError):
    """Another process of the run failed or did not answer in time."""


def device_of_rank(device: str, rank: int) -> str:
    """Where a process computes: "cpu", or the GPU of its rank (all processes are on one machine)."""
    return device if device == "cpu" else f"{device}:{rank}"


def backends(device: str) -> str:
    """What carries collectives: gloo, and between GPUs nccl for the tensors that are on them."""
    return "gloo" if device == "cpu" else f"cpu:gloo,{device}:nccl"


@dataclass(frozen=True)
class World:
    """The processes of one run. rank 0 writes files; all ranks compute, each on its `device`."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    shares: bool = False  # whether the processes see memory together
    # By vector of `window`: those of all ranks, in rank order.
    _windows: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary, init=False, compare=False, repr=False)

    @classmethod
    def single(cls, device: str = "cpu") -> World:
        return cls(device=device_of_rank(device, 0))

    @classmethod
    def connect(
        cls, store_path: str | Path, rank: int, size: int, timeout: float = 600.0, device: str = "cpu"
    ) -> World:
        """Join `size` processes that share the file `store_path`; waits up to `timeout` seconds for the others.

        `device`: what computes, "cpu" or "cuda"; of the GPUs each process has its own.
        """
        if size == 1:
            return cls.single(device)
        # The processes are on one machine: gloo need not resolve the host's name, which closed networks cannot.
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        store = dist.FileStore(str(store_path), size)
        try:
            dist.init_process_group(
                backends(device), store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
            )
        except Exception as error:
            raise PeerError(
                f"rank {rank} of {size}: the other processes did not come up within {timeout:.0f} s ({error}); "
                f"look at their output, {Path(store_path).parent}/rank-N.log, or run with --processes 1"
            ) from error
        world = cls(rank, size, device_of_rank(device, rank))
        return replace(world, shares=shared_memory.available(world))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def all_reduce_(self, tensor: Tensor, stage: str = "all_reduce") -> Tensor:
        """Sum over ranks in place. Two ranks add one pair, so every rank holds the same bits."""
        if tensor in self._windows:
            self._sum_windows(self._windows[tensor], stage)
        elif self.size > 1:
            self._guard(stage, lambda: dist.all_reduce(tensor))
        return tensor

    def window(self, elements: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """A vector of zeros of this rank's own, which `all_reduce_` sums fast; every rank calls it."""
        room = self.common(self.size * elements, dtype) if self.shares else None
        if room is None:
            return torch.zeros(elements, dtype=dtype, device=device)
        windows = list(room.view(self.size, elements))
        mine = windows[self.rank][:]
        self._windows[mine] = windows
        return mine

    def common(self, elements: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """One vector of zeros for all ranks, which must not write different numbers to one place; every rank calls it.

        None on every rank where one of them cannot have it.
        """
        try:
            return shared_memory.allocate(self, elements, dtype) if self.shares else None
        except UserError:
            return None

    def part(self, elements: int) -> slice:
        """This rank's share of a vector."""
        return slice(elements * self.rank // self.size, elements * (self.rank + 1) // self.size)

    def _sum_windows(self, windows: list[Tensor], stage: str) -> None:
        """Each rank adds up its part of all vectors, in rank order, and writes it to every one of them."""
        self.barrier(stage)
        parts = [window[self.part(len(window))].split(SUMMED) for window in windows]
        for first, *rest in zip(*parts, strict=True):
            for other in rest:
                first.add_(other)
            for other in rest:
                other.copy_(first)
        self.barrier(stage)

    def sum(self, values: Sequence[float], stage: str = "sum") -> list[float]:
        """Element-wise float64 sum of a few numbers over ranks."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        return self.all_reduce_(tensor, stage).tolist()

    def gather_bytes(self, data: bytes, stage: str = "gather") -> list[bytes]:
        """Every rank's bytes, in rank order, on every rank."""
        if self.size == 1:
            return [data]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        mine = torch.tensor([len(data)])
        self._guard(stage, lambda: dist.all_gather(sizes, mine))
        longest = max(int(s) for s in sizes)
        buffer = torch.zeros(max(longest, 1), dtype=torch.uint8)
        buffer[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else buffer[:0]
        parts = [torch.empty_like(buffer) for _ in range(self.size)]
        self._guard(stage, lambda: dist.all_gather(parts, buffer))
        return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]

    def gather(self, value: Any, stage: str = "gather") -> list[Any]:
        """Every rank's plain (JSON) value, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        return [json.loads(part) for part in self.gather_bytes(json.dumps(value).encode(), stage)]

    def broadcast(self, value: Any, stage: str = "broadcast") -> Any:
        """Rank 0's plain (JSON) value on every rank."""
        return self.gather(value if self.is_main else None, stage)[0]

    def broadcast_(self, tensor: Tensor, stage: str = "broadcast") -> Tensor:
        """Rank 0's tensor on every rank, in place."""
        if self.size > 1:
            self._guard(stage, lambda: dist.broadcast(tensor, src=0))
        return tensor

    def barrier(self, stage: str = "barrier") -> None:
        if self.size > 1:
            self._guard(stage, dist.barrier)

    def shard(self, items: Sequence[Any]) -> list[Any]:
        """This rank's share of a list that is equal on every rank: every size-th item, starting at rank."""
        return list(items[self.rank :: self.size])

    def _guard(self, stage: str, call: Any) -> None:
        try:
            call()
        except RuntimeError as error:
            raise PeerError(
                f"rank {self.rank} of {self.size}: lost another process while waiting at {stage!r} ({error})"
            ) from error

"""Seconds, CPU seconds and peak memory of a stage over all its attempts and processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1kit.pipeline.usage import gpu_peak, measure, reset_peak


class StageClock:
    """Runs from its making. `previous`: attempts that were interrupted; `peers`: the other processes."""

    def __init__(self, previous: Sequence[Mapping[str, Any]], peers: Iterable[int]) -> None:
        self.previous = [dict(attempt) for attempt in previous]
        self.peers = tuple(peers)
        reset_peak(self.peers)
        self._began, self._cpu = time.monotonic(), measure(self.peers).cpu_seconds

    def attempts(self) -> list[dict[str, Any]]:
        """What each attempt cost, this one so far included."""
        usage = measure(self.peers)
        now = {
            "seconds": round(time.monotonic() - self._began, 3),
            "cpu_seconds": round(usage.cpu_seconds - self._cpu, 3),
            "peak_memory_bytes": usage.peak_memory_bytes,
        }
        if peak := gpu_peak():  # of this process's GPU; those of the others hold as much
            now["peak_gpu_memory_bytes"] = peak
        return [*self.previous, now]

    def totals(self) -> dict[str, Any]:
        """Sums over the attempts, and the highest peak."""
        return total_of(self.attempts())


def total_of(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    on_gpu = [a["peak_gpu_memory_bytes"] for a in attempts if "peak_gpu_memory_bytes" in a]
    return {
        "seconds": round(sum(a["seconds"] for a in attempts), 3),
        "cpu_seconds": round(sum(a["cpu_seconds"] for a in attempts), 3),
        "peak_memory_bytes": max((a["peak_memory_bytes"] for a in attempts), default=0),
        "attempts": len(attempts),
        **({"peak_gpu_memory_bytes": max(on_gpu)} if on_gpu else {}),
    }

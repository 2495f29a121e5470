"""CPU seconds and peak memory of this process and of the other processes of a run.

Where the system has no /proc (macOS) only this process is counted.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """`cpu_seconds` since the processes began; `peak_memory_bytes` summed over them since `reset_peak`.

    Memory that processes share (weights and gradients of a compiled run) counts once for each that has used it.
    """

    cpu_seconds: float
    peak_memory_bytes: int


def measure(peers: Iterable[int] = ()) -> Usage:
    """Usage of this process and of `peers` (process ids); a peer that is gone counts nothing."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak = own.ru_utime + own.ru_stime, resident_bytes("VmHWM") or _ru_maxrss(own.ru_maxrss)
    for pid in peers:
        cpu += _cpu_of(pid)
        peak += resident_bytes("VmHWM", str(pid))
    return Usage(cpu, peak)


def gpu_peak() -> int:
    """Most bytes of its GPU that this process held at a time since `reset_peak`; 0 where it computes on none."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_initialized()
    return int(torch.cuda.max_memory_allocated()) if torch is not None and used else 0


def reset_peak(peers: Iterable[int] = ()) -> None:
    """Start the peak anew, so that each stage has its own; a kernel that refuses leaves the process's."""
    if gpu_peak():
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    for pid in ("self", *peers):
        path = Path(f"/proc/{pid}/clear_refs")
        if os.access(path, os.W_OK):
            path.write_text("5")


def _ru_maxrss(value: int) -> int:
    return value if sys.platform == "darwin" else value * 1024


def resident_bytes(name: str, pid: str = "self") -> int:
    """Resident memory of a process: VmRSS now, VmHWM at most since `reset_peak`; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_of(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    # The command's name (field 2) may hold spaces; fields are counted from the bracket that ends it.
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""What "auto" means on this machine, found without torch and without a measurement that load could turn."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import get_args

from r1kit.config.errors import ConfigError
from r1kit.config.schema import DType, Recipe


def usable_cores() -> int:
    """Cores this process may use (affinity), at least 1."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of the first processor, empty where the system does not list them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def resolve_dtype(dtype: str) -> str:
    """`auto` is float32: pass@1 has not been measured to be as good in bfloat16, which stays a choice by name."""
    if dtype not in get_args(DType):
        raise ConfigError(f"dtype is {dtype!r}: expected one of {', '.join(get_args(DType))}")
    return "float32" if dtype == "auto" else dtype


def resolve_processes(processes: int | str) -> int:
    """`auto` is one process per core, two at most: beyond that the tiny models gain nothing."""
    return min(2, usable_cores()) if processes == "auto" else int(processes)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with "auto" replaced by what this machine uses."""
    return recipe.model_copy(
        update={"processes": resolve_processes(recipe.processes), "dtype": resolve_dtype(recipe.dtype)}
    )

"""What "auto" means on this machine, found without torch and without a measurement that load could turn."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, get_args

from r1kit.config.errors import ConfigError
from r1kit.config.generate import GenerateSettings
from r1kit.config.rl import RLSettings
from r1kit.config.schema import DType, EvaluateSettings, Recipe
from r1kit.config.stage import CompiledSettings


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


def resolve_native(native: str) -> str:
    """`auto` is bfloat16 where the processor multiplies it by itself (Intel AMX), else float32."""
    if native != "auto":
        return native
    return "bfloat16" if {"amx_bf16", "avx512_bf16"} <= cpu_flags() else "float32"


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with "auto" replaced by what this machine uses, and its `native` told to every stage."""
    native, dtype = resolve_native(recipe.native), resolve_dtype(recipe.dtype)
    stages = {name: _with_native(stage, native) for name, stage in recipe.stages.items()}
    for name, stage in stages.items():
        if isinstance(stage, CompiledSettings) and stage.native != "off":
            _check_native(name, stage, dtype)
    return recipe.model_copy(
        update={
            "processes": resolve_processes(recipe.processes),
            "dtype": dtype,
            "native": native,
            "stages": stages,
        }
    )


def _with_native(stage: Any, native: str) -> Any:
    """The stage with what it does not say of `native` itself taken from the recipe."""
    changes: dict[str, Any] = {}
    if isinstance(stage, CompiledSettings):
        changes["native"] = resolve_native(stage.native if "native" in stage.model_fields_set else native)
    if isinstance(stage, EvaluateSettings):
        # A stage that measures computes as the saved weights are, whatever the policy was trained with.
        measured = stage.native if "native" in stage.model_fields_set else "off" if native == "off" else "float32"
        changes["native"] = resolve_native(measured)
    if isinstance(stage, RLSettings | GenerateSettings):
        own = stage.engine.native if "native" in stage.engine.model_fields_set else native
        changes["engine"] = stage.engine.model_copy(update={"native": resolve_native(own)})
    return stage.model_copy(update=changes)


def _check_native(name: str, stage: CompiledSettings, dtype: str) -> None:
    if dtype != "float32":
        raise ConfigError(
            f"{name}.native is {stage.native} and dtype {dtype}: compiled passes keep weights in float32 and round "
            "the factors of products only; set dtype: float32 (or auto), and native: bfloat16 for such products"
        )
    if isinstance(stage, RLSettings) and (stage.lora or stage.recompute):
        raise ConfigError(
            f"{name}.native is {stage.native} with {'lora' if stage.lora else 'recompute'}: the compiled pass trains "
            f"all weights and keeps its activations; set {name}.native: off"
        )

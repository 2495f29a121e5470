"""What "auto" means on this machine, found without a measurement that load could turn; torch is asked for GPUs only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

from r1kit.config.errors import ConfigError
from r1kit.config.generate import GenerateSettings
from r1kit.config.merge import MergeSettings
from r1kit.config.rl import RLSettings
from r1kit.config.schema import DType, EvaluateSettings, PretrainSettings, Recipe
from r1kit.config.stage import CompiledSettings, Device

# Widths of one attention head that both compiled passes know; the narrowest divides all other widths.
COMPILED_HEADS = (32, 64, 128)


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


def gpus() -> int:
    """GPUs that torch can use. Nothing else here needs torch, so it is imported only when this is asked."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve_device(device: str) -> str:
    """`auto` is cuda where torch can use a GPU, else cpu. ConfigError for cuda where it can use none."""
    if device not in get_args(Device):
        raise ConfigError(f"device is {device!r}: expected one of {', '.join(get_args(Device))}")
    if device == "cuda":
        require_gpus(1)
    return device if device != "auto" else "cuda" if gpus() else "cpu"


def require_gpus(processes: int) -> None:
    """ConfigError where torch cannot use a GPU for each process."""
    found = gpus()
    if not found:
        raise ConfigError(
            "device is cuda, but torch can use no GPU here: set device: cpu, or mend the driver or the build of torch "
            "(`r1kit doctor` says what torch sees)"
        )
    if processes > found:
        raise ConfigError(
            f"processes is {processes} and device cuda, but torch can use {found} GPU{'s' if found > 1 else ''} here: "
            f"each process takes one; set processes: {found}"
        )


def resolve_processes(processes: int | str, device: str = "cpu") -> int:
    """`auto` is one process per GPU; without any one per core, two at most, beyond which tiny models gain nothing."""
    if processes != "auto":
        return int(processes)
    return max(1, gpus()) if device == "cuda" else min(2, usable_cores())


@cache
def can_compile() -> bool:
    """Whether the compiler of the passes in C++ is here: GCC, whose vector extensions they are written in."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return False
    try:  # `g++` of macOS is Clang
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "Free Software Foundation" in said


def resolve_native(native: str) -> str:
    """`on` is bfloat16 where the processor multiplies it by itself (Intel AMX), else float32; `auto` is that where
    this machine can compile, else off."""
    if native == "off" or (native == "auto" and not can_compile()):
        return "off"
    if native in ("on", "auto"):
        return "bfloat16" if {"amx_bf16", "avx512_bf16"} <= cpu_flags() else "float32"
    return native


def resolve(recipe: Recipe, *, elsewhere: bool = False) -> Recipe:
    """The recipe with "auto" replaced by what this machine uses, and its `native` told to every stage.

    `elsewhere`: it may have begun on another machine and only be reported here, whose GPUs need not be as many.
    """
    device = "cuda" if elsewhere and recipe.device == "cuda" else resolve_device(recipe.device)
    processes = resolve_processes(recipe.processes, device)
    dtype = resolve_dtype(recipe.dtype)
    if device == "cuda":
        _refuse_native(recipe)
        if not elsewhere:
            require_gpus(processes)
    compiled = device == "cpu" and dtype == "float32" and not _odd_shape(recipe)

    def pick(native: str, stage: Any = None) -> str:
        possible = compiled and not _needs_pytorch(stage)
        return "off" if native == "auto" and not possible else resolve_native(native)

    native = pick(recipe.native)
    stages = {name: _with_native(stage, recipe.native, pick) for name, stage in recipe.stages.items()}
    for name, stage in stages.items():
        if isinstance(stage, CompiledSettings) and stage.native != "off":
            _check_native(name, stage, dtype)
    return recipe.model_copy(
        update={
            "processes": processes,
            "device": device,
            "dtype": dtype,
            "native": native,
            "stages": stages,
        }
    )


def _odd_shape(recipe: Recipe) -> bool:
    """Whether a model that the recipe makes has widths that the compiled passes do not know."""
    shapes = [stage.model for stage in recipe.stages.values() if isinstance(stage, PretrainSettings)]
    return any(s.head_dim not in COMPILED_HEADS or s.intermediate % min(COMPILED_HEADS) for s in shapes)


def _needs_pytorch(stage: Any) -> str:
    """The setting of an RL stage that only PyTorch's own pass knows, or ""."""
    if isinstance(stage, RLSettings):
        return "lora" if stage.lora else "recompute" if stage.recompute else ""
    return ""


def _refuse_native(recipe: Recipe) -> None:
    """ConfigError where compiled passes are asked for by name, though a GPU is to compute."""
    for key, value in _natives(recipe):
        if value not in ("off", "auto"):
            raise ConfigError(
                f"{key} is {value} and device cuda: compiled passes run on the processor only; set {key}: off (or "
                "auto, which is off on a GPU), or device: cpu"
            )


def _natives(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every `native` that the recipe holds, by its dotted key."""
    yield "native", recipe.native
    for name, stage in recipe.stages.items():
        for key in ("", "engine.", "evaluate."):
            block = getattr(stage, key.rstrip("."), None) if key else stage
            if isinstance(value := getattr(block, "native", None), str):
                yield f"{name}.{key}native", value


def _with_native(stage: Any, native: str, pick: Callable[..., str]) -> Any:
    """The stage with what it does not say of `native` itself taken from the recipe; `pick` resolves on and auto."""
    changes: dict[str, Any] = {}

    def own(settings: Any, inherited: str) -> str:
        return pick(settings.native if "native" in settings.model_fields_set else inherited, stage)

    # What measures computes as the saved weights are, whatever the policy was trained with.
    measured = "off" if pick(native) == "off" else "float32"
    if isinstance(stage, CompiledSettings):
        changes["native"] = own(stage, native)
    if isinstance(stage, EvaluateSettings):
        changes["native"] = own(stage, measured)
    if isinstance(stage, MergeSettings):
        changes["evaluate"] = stage.evaluate.model_copy(update={"native": own(stage.evaluate, measured)})
    if isinstance(stage, RLSettings | GenerateSettings):
        changes["engine"] = stage.engine.model_copy(update={"native": own(stage.engine, native)})
    return stage.model_copy(update=changes)


def _check_native(name: str, stage: CompiledSettings, dtype: str) -> None:
    if dtype != "float32":
        raise ConfigError(
            f"{name}.native is {stage.native} and dtype {dtype}: compiled passes keep weights in float32 and round "
            "the factors of products only; set dtype: float32 (or auto), and native: bfloat16 for such products"
        )
    if reason := _needs_pytorch(stage):
        raise ConfigError(
            f"{name}.native is {stage.native} with {reason}: the compiled pass trains all weights and keeps its "
            f"activations; set {name}.native: off"
        )

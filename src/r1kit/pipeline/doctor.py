"""`r1kit doctor`: what this machine can run, and how fast. Measures; does not guess where it can measure."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass

from r1kit.config.load import load_recipe
from r1kit.config.machine import can_compile, resolve, resolve_native
from r1kit.config.schema import Recipe
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.lineage import library_versions, machine
from r1kit.pipeline.plan import plan_stages
from r1kit.pipeline.progress import duration, gib

# Shares of the measured matrix-product rate that training and decoding of tiny models reach, by what computes: what
# quick starts took, measured (docs/results.md). They turn work into the estimate of time below.
SHARES = {"off": (0.30, 0.13), "float32": (0.45, 0.35), "bfloat16": (0.20, 0.11)}
ROWS, WIDTH, SECONDS = 8192, 384, 0.4

TOOLS = {
    "bwrap": "isolation of untrusted programs",
    "g++": "compiles native: auto; programs in C++",
    "git": "lineage",
}
EXTRAS = {
    "tensorboardX": "track.tensorboard",
    "wandb": "track.wandb",
    "trl": "benchmarks/rl_step.py",
    "vllm": "the vLLM engine",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    found: str


def examine() -> list[Finding]:
    """Everything the report says, in order. Takes a few seconds: it measures matrix products."""
    host = machine()
    rates = {dtype: matmul_gflops(dtype) for dtype in ("float32", "bfloat16")}
    recipe = on_processor()
    versions = library_versions(("torch", "transformers", "numpy"))
    memory = gib(host["memory_bytes"]) if host["memory_bytes"] else "unknown"
    faster = max(rates, key=lambda dtype: rates[dtype])
    return [
        Finding("machine", f"{host['processor']}, {host['cores']} cores, {memory}"),
        Finding("python", f"{host['python']}, torch {versions['torch']}, transformers {versions['transformers']}"),
        Finding("gpu", gpu()),
        *(Finding(dtype, f"{rate:.0f} GFLOP/s per core in matrix products") for dtype, rate in rates.items()),
        Finding("dtype", f"auto is {recipe.dtype} here; measured faster now: {faster}"),
        Finding("native", native()),
        Finding("processes", f"auto is {recipe.processes}, one thread each"),
        Finding("quick start", f"about {duration(estimate(rates))} by estimate (installation apart)"),
        *(Finding(tool, f"{_found(shutil.which(tool))} ({use})") for tool, use in TOOLS.items()),
        *(Finding(module, f"{_found(importlib.util.find_spec(module))} ({use})") for module, use in EXTRAS.items()),
    ]


def on_processor() -> Recipe:
    """The quick start's recipe as it runs without a GPU: what is measured here are cores."""
    return resolve(load_recipe(find_recipe("tinyzero"), ["device=cpu"]))


def estimate(rates: Mapping[str, float]) -> float:
    """Seconds of the quick start on idle cores at these matrix-product rates (GFLOP/s per core, by type),
    installation apart."""
    recipe = on_processor()
    plans = plan_stages(recipe)
    train_share, decode_share = SHARES[recipe.native]
    rate = rates["bfloat16" if recipe.native == "bfloat16" else recipe.dtype] * 1e9 * int(recipe.processes)
    train = sum(plan.train_flops for plan in plans) / train_share
    decode = sum(plan.decode_flops for plan in plans) / decode_share
    return (train + decode) / rate


def matmul_gflops(dtype: str) -> float:
    """Best rate of F.linear on one thread over repeated calls, in GFLOP/s."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    x = torch.randn(ROWS, WIDTH).to(getattr(torch, dtype))
    weight = torch.randn(WIDTH, WIDTH).to(x.dtype)
    best, ends = float("inf"), time.perf_counter() + SECONDS
    with torch.no_grad():
        while time.perf_counter() < ends:
            began = time.perf_counter()
            F.linear(x, weight)
            best = min(best, time.perf_counter() - began)
    return 2 * ROWS * WIDTH * WIDTH / best / 1e9


def native() -> str:
    """What the recipe's `native: auto` does here."""
    if not can_compile():
        return f"auto is off here: {os.environ.get('CXX', 'g++')} is not there or not GCC; PyTorch trains and samples"
    return f"auto trains and samples in C++ with {resolve_native('on')} products"


def gpu() -> str:
    """The first GPU torch can use, or that there is none."""
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use; everything runs on the processor"
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{properties.name}, {gib(properties.total_memory)} ({torch.cuda.device_count()} in all); device: auto is "
        "cuda, one process for each"
    )


def _found(value: object) -> str:
    return "found" if value else "not found"

"""The machine in words, and the most it can do: matrix products on the cores a benchmark may use."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report import table
from harness.team import Layout, Team

# Rows of the product; many enough that only the processor limits it.
ROWS = 8192
DTYPES = ("float32", "bfloat16")


def describe() -> str:
    """Processor, cores and versions, in one line."""
    import torch

    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{_processor()}, {usable_cores()} cores, {versions}"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class LinearBound:
    """Target of the measuring processes: the best rate of one F.linear, in GFLOP/s."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.seconds = float(options["seconds"])

    def prepare(self, order: dict[str, Any]) -> None:
        import torch

        dtype = getattr(torch, order["dtype"])
        self.x = torch.randn(ROWS, order["inputs"]).to(dtype)
        self.weight = torch.randn(order["outputs"], order["inputs"]).to(dtype)
        self.flops = 2.0 * ROWS * order["inputs"] * order["outputs"]
        torch.nn.functional.linear(self.x, self.weight)

    def run(self) -> dict[str, Any]:
        import torch

        best, deadline = 0.0, time.perf_counter() + self.seconds
        with torch.inference_mode():
            while time.perf_counter() < deadline:
                started = time.perf_counter()
                torch.nn.functional.linear(self.x, self.weight)
                best = max(best, self.flops / (time.perf_counter() - started) / 1e9)
        return {"gflops": best}


def model_shapes(config: Any) -> list[tuple[int, int]]:
    """(inputs, outputs) of a decoder's matrix products, and a large square one that favours the bound."""
    hidden, qkv = config.hidden_size, config.query_width + 2 * config.kv_width
    shapes = [
        (hidden, qkv),
        (config.query_width, hidden),
        (hidden, 2 * config.intermediate_size),
        (config.intermediate_size, hidden),
        (hidden, config.vocab_size),
        (1024, 1024),
    ]
    return list(dict.fromkeys(shapes))


@dataclass(frozen=True)
class Bound:
    """The best F.linear of a layout: GFLOP/s, and the order of `LinearBound` that measures it again."""

    gflops: float
    order: dict[str, Any]


def linear_bounds(
    layouts: Sequence[Layout], shapes: Sequence[tuple[int, int]], seconds: float = 0.5
) -> dict[Layout, Bound]:
    """The best F.linear at M = 8192 for each layout: the best call of each process, summed.

    Every shape is measured in float32 and bfloat16 and printed; the larger of the two is the bound.
    """
    bounds: dict[Layout, Bound] = {}
    rows = []
    for layout in dict.fromkeys(layouts):
        with Team("harness.machine:LinearBound", layout, {"seconds": seconds}) as team:
            for inputs, outputs in shapes:
                rates = {}
                for dtype in DTYPES:
                    order = {"dtype": dtype, "inputs": inputs, "outputs": outputs}
                    found = Bound(team.measure(order).total("gflops"), order)
                    rates[dtype] = found.gflops
                    bounds[layout] = max(bounds.get(layout, found), found, key=lambda bound: bound.gflops)
                rows.append([f"{layout}, {inputs} -> {outputs}", *(f"{rates[d]:.0f}" for d in DTYPES)])
    print(f"\nF.linear at M = {ROWS}, GFLOP/s (best call; the bound is the best of a layout in either dtype)")
    print(table(["layout and shape", *DTYPES], rows))
    return bounds

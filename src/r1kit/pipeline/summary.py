"""summary.json: the machine-readable result of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.pipeline.progress import duration, gib

EVAL_KEYS = (
    "benchmark",
    "n",
    "k",
    "cap",
    "pass@1",
    "pass@k",
    "tokens_mean",
    "truncated",
    "format_finished",
    "attempts",
    "backtracking",
    "verdict_right",
)
STAGE_KEYS = ("name", "kind", "seconds", "cpu_seconds", "peak_memory_bytes", "tokens")


def make_summary(recipe: str, seed: int, expect_ok: bool, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The machine-readable result of a run, from its stage records in order."""
    stages = []
    for record in records:
        stage = {key: record[key] for key in STAGE_KEYS}
        if "peak_gpu_memory_bytes" in record:
            stage["peak_gpu_memory_bytes"] = record["peak_gpu_memory_bytes"]
        if record.get("eval"):
            stage["eval"] = {key: record["eval"][key] for key in EVAL_KEYS if key in record["eval"]}
        stages.append(stage)
    return {"recipe": recipe, "seed": seed, "expect_ok": expect_ok, "stages": stages}


def costs(summary: Mapping[str, Any]) -> str:
    """One line on time and memory: `base 2:31, rl 3:02; 5:33 in all, 1.2 GiB at most`."""
    stages = summary["stages"]
    each = ", ".join(f"{stage['name']} {duration(stage['seconds'])}" for stage in stages)
    total = duration(sum(stage["seconds"] for stage in stages))
    peak = max((stage["peak_memory_bytes"] for stage in stages), default=0)
    return f"{each}; {total} in all, {gib(peak)} at most"

"""What a run says and measures where a GPU computes: its memory before, during and after a stage.

Why it matters: on a GPU memory is what runs out, and an error that names a CUDA allocator and no setting helps nobody.

Not exercised: a GPU; what it computes is in tests/training/test_device.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1kit.config import machine
from r1kit.config.load import load_recipe
from r1kit.config.machine import resolve
from r1kit.config.schema import Recipe
from r1kit.pipeline import preflight, stage_clock
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.files import RunError
from r1kit.pipeline.kinds import StageContext, run_stage
from r1kit.pipeline.memory import PROCESS_BYTES
from r1kit.pipeline.plan import plan_stages
from r1kit.pipeline.stage_clock import StageClock
from r1kit.pipeline.summary import make_summary
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder

GIB = 1 << 30


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(machine, "gpus", lambda: 2)
    return resolve(load_recipe(find_recipe("tinyzero"), ["device=auto"]))


@pytest.mark.parametrize(
    ("stage", "lower"),
    [
        ("base", r"base\.token_budget "),
        ("rl", r"rl\.token_budget .*engine\.slots"),
        ("final", r"final\.slots"),
    ],
)
def test_a_full_gpu_names_what_to_lower(recipe: Recipe, tmp_path: Path, stage: str, lower: str) -> None:
    def fails(context: StageContext) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nfurther lines")

    context = StageContext(
        stage, recipe.stages[stage], recipe.task, 0, "float32", tmp_path, {}, World.single("cuda"), NullRecorder()
    )
    with pytest.raises(RunError, match=rf"^{stage}: the memory of cuda:0 is full \(.*2\.00 GiB\.\)\. Lower {lower}"):
        run_stage(fails, context)


def test_the_plan_is_held_against_the_memory_of_one_gpu(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    most = max(plan_stages(recipe), key=lambda plan: plan.memory_bytes)
    assert most.gpu_bytes == most.memory_bytes // 2 - PROCESS_BYTES
    monkeypatch.setattr(preflight, "memory_bytes", lambda: 1)  # the machine's own says nothing of it
    for memory, fits in ((80 * GIB, True), (most.gpu_bytes, False)):
        monkeypatch.setattr(preflight, "gpu_memory_bytes", lambda memory=memory: memory)
        check = preflight._memory(recipe)
        assert check.ok is fits
        assert " a GPU (stage " in check.found
        assert check.found.endswith("lower token_budget or slots") is not fits


def test_the_peak_of_a_gpu_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "peak_gpu_memory_bytes" not in StageClock([], ()).totals()
    monkeypatch.setattr(stage_clock, "gpu_peak", lambda: 5)
    clock = StageClock([{"seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_bytes": 1, "peak_gpu_memory_bytes": 7}], ())
    totals = clock.totals()
    assert totals["peak_gpu_memory_bytes"] == 7
    record = {"name": "rl", "kind": "rl", "tokens": {}, **totals}
    assert make_summary("r", 0, True, [record])["stages"][0]["peak_gpu_memory_bytes"] == 7

"""The distillation recipe, from nothing to four measurements, with every stage made as small as it can be.

Why this matters: it joins five kinds of stage; a path or an edge that breaks is found here in seconds.

Not exercised here: whether distillation beats RL on the student (docs/results.md); `full.yaml`, which needs a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from r1kit.config import load_recipe
from r1kit.config.data import DataSettings
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.run import Options, run_recipe
from r1kit.tasks.traces import read_traces

# Below `scale=smoke`, which still pre-trains for seconds.
SMALLER = [
    "scale=smoke",
    "processes=1",
    "base.tokens=6000",
    "base.warmup_steps=0",
    "small.tokens=6000",
    "small.warmup_steps=0",
    "teacher.problems_per_step=2",
    "direct.problems_per_step=2",
    "answers.problems=24",
]


@pytest.mark.parametrize("override", [None, "answers=every_right", "answers=unverified", "answers=longest"])
def test_every_variant_is_a_recipe(override: str | None) -> None:
    recipe = load_recipe(find_recipe("r1_distill"), [override] if override else [])
    assert recipe.stages["answers"].kind == "generate"


def test_the_whole_path(tmp_path: Path) -> None:
    recipe = load_recipe(find_recipe("r1_distill"), SMALLER)
    root = run_recipe(recipe, tmp_path / "run", Options(check=False, console=Console(quiet=True))).root
    traces = list(read_traces(DataSettings(path=str(root / "data" / "answers" / "traces"))))
    assert traces
    assert {t.provenance["stage"] for t in traces} == {"answers"}
    assert all((root / "evaluations" / f"{name}_eval" / "final.json").is_file() for name in ("distilled", "direct"))


def test_the_full_recipe_holds_the_papers_settings() -> None:
    stage = load_recipe(find_recipe("r1_distill/full")).stages["distilled"]
    assert isinstance(stage, SFTSettings)
    assert (stage.optimizer.lr, stage.lr_floor, stage.batch_size, stage.max_tokens) == (1e-4, 0.1, 64, 32768)

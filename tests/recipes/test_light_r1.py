"""The curriculum recipe, from nothing to seven measurements, with every stage made as small as it can be.

Why this matters: it joins six kinds of stage, and pairs that one stage writes are read by two others; a path or an edge
that breaks is found here in seconds.

Not exercised here: whether the merge beats its parts (docs/results.md); `full.yaml`, which needs GPUs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from r1kit.config import load_recipe
from r1kit.config.data import DataSettings
from r1kit.config.merge import MergeSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.run import Options, run_recipe
from r1kit.tasks.traces import read_pairs, read_traces

# Below `scale=smoke`, which still pre-trains for seconds.
SMALLER = [
    "scale=smoke",
    "processes=1",
    "base.tokens=6000",
    "base.warmup_steps=0",
    "student.tokens=6000",
    "student.warmup_steps=0",
    "teacher.problems_per_step=2",
    "all_answers.problems=24",
    "hard_answers.problems=24",
]


@pytest.mark.parametrize("override", [None, "merge=grid", "scale=smoke"])
def test_every_variant_is_a_recipe(override: str | None) -> None:
    recipe = load_recipe(find_recipe("light_r1"), [override] if override else [])
    merged = recipe.stages["merged"]
    assert isinstance(merged, MergeSettings)
    assert len(list(merged.candidates())) == (5 if override == "merge=grid" else 1)


def test_the_whole_path(tmp_path: Path) -> None:
    recipe = load_recipe(find_recipe("light_r1"), SMALLER)
    root = run_recipe(recipe, tmp_path / "run", Options(check=False, console=Console(quiet=True))).root
    pairs = list(read_pairs(DataSettings(path=str(root / "data" / "pairs" / "pairs"))))
    assert pairs
    # At this scale nothing is right: the pairs are of a shorter and a longer answer.
    assert all(p.provenance["tokens"]["chosen"] < p.provenance["tokens"]["rejected"] for p in pairs)
    for stage in ("all_answers", "hard_answers"):
        assert list(read_traces(DataSettings(path=str(root / "data" / stage / "traces"))))
    measured = ("student", "teacher", "stage1", "stage2", "nca", "dpo", "merged")
    assert all((root / "evaluations" / f"{name}_eval" / "final.json").is_file() for name in measured)


def test_the_full_recipe_holds_the_published_settings() -> None:
    stages = load_recipe(find_recipe("light_r1/full")).stages
    one, two, nca = stages["stage1"], stages["stage2"], stages["nca"]
    assert isinstance(one, SFTSettings)
    assert isinstance(two, SFTSettings)
    assert isinstance(nca, PreferenceSettings)
    assert (one.optimizer.lr, two.optimizer.lr, nca.optimizer.lr) == (5e-5, 1e-5, 5e-7)
    assert (one.max_tokens, two.max_tokens, nca.max_tokens) == (20_000, 20_000, 32_768)
    assert (nca.method, nca.beta, nca.epochs, nca.decay) == ("nca", 0.3, 3, "constant")
    assert (one.select, two.select) == ("pass@1", "pass@1")

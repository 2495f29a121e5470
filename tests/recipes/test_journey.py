"""The journey recipe, from nothing to three measurements, with every stage made as small as it can be.

Why this matters: its two arms may differ in one thing only, the text of the answers; another setting that differs
would be taken for an effect of journeys.

Not exercised here: which arm wins (docs/results.md); the texts themselves (tests/curation/test_journey.py).
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from r1kit.config import load_recipe
from r1kit.config.data import DataSettings
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.run import Options, run_recipe
from r1kit.tasks.traces import read_traces

SMALLER = ["scale=smoke", "processes=1", "base.tokens=6000", "base.warmup_steps=0"]


def arms(*overrides: str) -> tuple[SFTSettings, SFTSettings]:
    stages = load_recipe(find_recipe("journey"), list(overrides)).stages
    shortcut, journey = stages["from_shortcuts"], stages["from_journeys"]
    assert isinstance(shortcut, SFTSettings)
    assert isinstance(journey, SFTSettings)
    return shortcut, journey


def test_the_arms_differ_in_their_data_only() -> None:
    shortcut, journey = (arm.model_dump() for arm in arms())
    assert {key for key, value in shortcut.items() if value != journey[key]} == {"data"}


def test_matched_by_tokens_the_arms_differ_in_their_passes_too() -> None:
    shortcut, journey = arms("match=tokens")
    assert shortcut.epochs / journey.epochs == 10 / 3


def test_the_whole_path(tmp_path: Path) -> None:
    recipe = load_recipe(find_recipe("journey"), SMALLER)
    root = run_recipe(recipe, tmp_path / "run", Options(check=False, console=Console(quiet=True))).root
    folders = [root / "data" / stage / "traces" for stage in ("shortcuts", "journeys")]
    short, long = (list(read_traces(DataSettings(path=str(folder)))) for folder in folders)
    assert len(short) == len(long) == 64
    assert [t.problem_id for t in short] == [t.problem_id for t in long]
    assert all((root / "evaluations" / f"{n}_eval" / "final.json").is_file() for n in ("base", "shortcuts", "journeys"))

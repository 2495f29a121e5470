"""Why this matters: machines die in the middle of things. Killed inside sampling, verifying, backward or the writing of
a checkpoint, with pools, schedule, correction and alarms on, a stage has to end with the rows and weights of one that
was left alone, bit for bit, its rollback and its pause included.

Not exercised: power cuts (what the disk did not write), the pipeline around the stage (tests/pipeline).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from .sigkill import PHASES, SETTINGS, launched
from .stage import write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


MOMENTS = ["sampling:25", "verifying:20", "backward:5", "writing:5", "writing:16"]


def run(base: Path, *attempts: str) -> list[int]:
    """Kill at each moment of each directory in turn, then let the stage finish; how many of the moments came."""
    return launched("tests.training.sigkill", str(base), *attempts)


def everything(directory: Path) -> dict[str, Any]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    newest = directory / "checkpoints" / f"step-{SETTINGS['steps']:06d}"
    return {
        "rows": [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines],
        "state": json.loads((newest / "trainer.json").read_text()),
        **{name: (newest / name).read_bytes() for name in ("model.safetensors", "trainer.safetensors")},
    }


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is left of the stage left alone, and of the one killed at MOMENTS."""
    alone, killed = (tmp_path_factory.mktemp(name) for name in ("alone", "killed"))
    assert run(base, f"{alone}=", f"{killed}={','.join(MOMENTS)}") == [0, len(MOMENTS)]
    return [everything(alone), everything(killed)]


def test_the_stage_uses_what_it_is_to_bring_back(runs: list[dict[str, Any]]) -> None:
    rows, state = runs[0]["rows"], runs[0]["state"]
    assert [(r["step"], r["action"]) for r in rows if r["kind"] == "alarm"] == [(3, "rollback"), (5, "pause")]
    train = [r for r in rows if r["kind"] == "train"]
    assert [r["step"] for r in train] == list(range(1, 8))
    assert {r["phase"] for r in train} == {1, 2, 3}
    assert all(r["gap_ess"] > 0.9 for r in train if "gap_ess" in r)
    assert state["pass_rates"]
    assert state["rollbacks"] == 1
    assert any(r["carried"] for r in train)


def compare(alone: dict[str, Any], killed: dict[str, Any]) -> None:
    for part in alone:
        assert killed[part] == alone[part], part


def test_killed_in_each_phase(runs: list[dict[str, Any]]) -> None:
    compare(*runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_twenty_random_moments(base: Path, tmp_path: Path, runs: list[dict[str, Any]], seed: int) -> None:
    """Five in each phase, in random order, five in each of four runs; each within what an attempt still has to do."""
    draw = random.Random(seed)
    most = {"sampling": 20, "verifying": 20, "backward": 8, "writing": 18}
    moments = [f"{phase}:{draw.randint(1, most[phase])}" for phase in PHASES for _ in range(5)]
    draw.shuffle(moments)
    folders = [tmp_path / str(i) for i in range(4)]
    came = run(base, *(f"{folder}={','.join(moments[i::4])}" for i, folder in enumerate(folders)))
    assert came == [5, 5, 5, 5], "a moment never came: the stage was done before"
    for folder in folders:
        compare(runs[0], everything(folder))

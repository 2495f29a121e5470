"""Why this matters: the stages that learn from data are the long ones of a distillation, and the machine dies in them
too. Killed while it runs, writes a row, saves, or keeps what its reference said, each has to end with the rows, the
weights and the report of one that was left alone, bit for bit.

Not exercised: power cuts (what the disk did not write), rl (test_sigkill.py), the pipeline around stages.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from .sigkill import launched
from .sigkill_stages import JOBS, phases, prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("stages"))


def run(folder: Path, attempts: dict[str, list[str]]) -> list[int]:
    """Kill each `job:directory` at its moments in turn, then let it finish; how many of the moments came."""
    texts = [f"{place}={','.join(moments)}" for place, moments in attempts.items()]
    return launched("tests.training.sigkill_stages", str(folder), *texts)


def everything(directory: Path) -> dict[str, Any]:
    """Rows without their clock, what the stage handed on, and every byte of that and of the last checkpoint."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    outcome = json.loads((directory / "outcome.json").read_text())
    saved = sorted((directory / "checkpoints").glob("step-*"))[-1:]
    files = [f for made in {directory / outcome["made"], *saved} for f in made.rglob("*") if f.is_file()]
    counts = sorted((directory / "data" / "counts").glob("*.json"))
    return {
        "rows": [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines],
        "outcome": outcome,
        "files": {str(f.relative_to(directory)): f.read_bytes() for f in [*files, *counts]},
    }


def compare(alone: Path, killed: Path) -> None:
    wanted, found = everything(alone), everything(killed)
    assert found["rows"] == wanted["rows"]
    assert found["outcome"] == wanted["outcome"]
    assert found["files"].keys() == wanted["files"].keys()
    for name, content in wanted["files"].items():
        assert found["files"][name] == content, name
    assert wanted["rows"]
    assert wanted["files"]


@pytest.mark.timeout(900)
def test_killed_in_the_middle(folder: Path, tmp_path: Path) -> None:
    """Each stage once in learning (or sampling) and once in writing; the long form below goes through all phases."""
    killed = {
        "sft": ["backward:9", "writing:3"],
        "dpo": ["replacing:1", "writing:5"],
        "kto": ["backward:6"],
        "adapters": ["writing:14"],
        "pairwise": ["backward:6"],
        "pointwise": ["recording:5"],
        "process": ["writing:12"],
        "implicit": ["backward:5"],
        "generate": ["verifying:9", "replacing:4"],
    }
    assert killed.keys() == JOBS.keys()
    alone = {f"{job}:{tmp_path}/alone-{job}": list[str]() for job in JOBS}
    came = run(folder, {**alone, **{f"{job}:{tmp_path}/{job}": moments for job, moments in killed.items()}})
    assert came == [0] * len(alone) + [len(moments) for moments in killed.values()]
    for job in JOBS:
        compare(tmp_path / f"alone-{job}", tmp_path / job)


MOST = {"sampling": 6, "verifying": 12, "backward": 8, "recording": 3, "writing": 14, "replacing": 2}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_twenty_random_moments(folder: Path, tmp_path: Path) -> None:
    """Each stage: twelve in its phases, three at a time, and eight anywhere, by the clock of the processor."""
    attempts: dict[str, list[str]] = {}
    for job in JOBS:
        draw = random.Random(job)
        by_phase = [f"{phase}:{draw.randint(1, MOST[phase])}" for phase in (phases(job) * 12)[:12]]
        draw.shuffle(by_phase)
        anywhere = [f"anywhere:{draw.randint(5, 120)}" for _ in range(8)]
        lists = [[], *(by_phase[i::4] for i in range(4)), anywhere[::2], anywhere[1::2]]
        attempts |= {f"{job}:{tmp_path}/{job}-{i}": moments for i, moments in enumerate(lists)}
    came = dict(zip(attempts, run(folder, attempts), strict=True))
    for job in JOBS:
        counts = [came[f"{job}:{tmp_path}/{job}-{i}"] for i in range(7)]
        for i in range(1, 7):
            compare(tmp_path / f"{job}-0", tmp_path / f"{job}-{i}")
        print(job, counts)
        # A reference is kept once, and an attempt may be over before its moment.
        assert sum(counts[1:5]) >= 8, counts
        assert sum(counts[5:]) >= 3, counts

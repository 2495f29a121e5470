"""Why this matters: the stages that learn from data are the long ones of a distillation, and the machine dies in them
too. Killed while it runs, writes a row, saves, or keeps what its reference said, each has to end with the rows, the
weights and the report of one that was left alone, bit for bit: in PyTorch and compiled, with adapters, and on two
processes of which either is killed. A merge goes on behind the candidates it has measured, an evaluation starts anew.

Not exercised: power cuts (what the disk did not write), rl (test_sigkill.py), the pipeline around stages.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from .sigkill import launched
from .sigkill_stages import COMPILED, JOBS, phases, prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("stages"))


def run(folder: Path, attempts: dict[str, list[str]]) -> list[int]:
    """Kill each `job:directory` at its moments in turn, then let it finish; how many of the moments came."""
    texts = [f"{place}={','.join(moments)}" for place, moments in attempts.items()]
    return launched("tests.training.sigkill_stages", str(folder), *texts)


def everything(directory: Path) -> dict[str, Any]:
    """Rows without their clock, what the stage handed on, and every byte of every file that is left."""
    rows = directory / "metrics.jsonl"
    lines = rows.read_text().splitlines() if rows.is_file() else []
    files = [f for f in directory.rglob("*") if f.is_file() and f.name not in ("metrics.jsonl", "outcome.json")]
    return {
        "rows": [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines],
        "outcome": json.loads((directory / "outcome.json").read_text()),
        "files": {str(f.relative_to(directory)): f.read_bytes() for f in files},
    }


def compare(alone: Path, killed: Path) -> None:
    wanted, found = everything(alone), everything(killed)
    assert found["rows"] == wanted["rows"]
    assert found["outcome"] == wanted["outcome"]
    assert found["files"].keys() == wanted["files"].keys()
    for name, content in wanted["files"].items():
        assert found["files"][name] == content, name
    # An evaluation leaves its result alone.
    assert (wanted["rows"] and wanted["files"]) or "pass@1" in wanted["outcome"]["eval"]


KILLED = {
    "sft": ["backward:9", "writing:3"],
    "sft_adapters": ["backward:9", "writing:3"],
    "sft_compiled": ["backward:9", "writing:3"],
    "sft_two": ["backward@0:4", "backward@1:5", "writing:3"],
    "pretrain_two": ["backward@1:5", "recording:4", "writing:3"],
    "dpo": ["replacing:1", "writing:5"],
    "dpo_compiled": ["replacing:1", "backward:6", "writing:5"],
    "kto": ["backward:6"],
    "adapters": ["writing:14"],
    "pairwise": ["backward:6"],
    "pointwise": ["recording:5"],
    "process": ["writing:12"],
    "implicit": ["backward:5"],
    "generate": ["verifying:9", "replacing:4"],
    "merge": ["sampling:3", "recording:2", "replacing:2", "writing:2"],
    "evaluate": ["sampling:9", "verifying:4"],
}
PLAIN = [job for job in JOBS if job not in COMPILED]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
by_pass = pytest.mark.parametrize(
    "jobs", [pytest.param(PLAIN, id="plain"), pytest.param(COMPILED, id="compiled", marks=needs_compiler)]
)


@by_pass
@pytest.mark.timeout(900)
def test_killed_in_the_middle(folder: Path, tmp_path: Path, jobs: Sequence[str]) -> None:
    """Each stage once in learning (or sampling) and once in writing; the long form below goes through all phases."""
    alone = {f"{job}:{tmp_path}/alone-{job}": list[str]() for job in jobs}
    came = run(folder, {**alone, **{f"{job}:{tmp_path}/{job}": KILLED[job] for job in jobs}})
    assert came == [0] * len(alone) + [len(KILLED[job]) for job in jobs]
    for job in jobs:
        compare(tmp_path / f"alone-{job}", tmp_path / job)


MOST = {"sampling": 6, "verifying": 12, "backward": 8, "recording": 3, "writing": 14, "replacing": 2, "backward@1": 8}


@by_pass
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_twenty_random_moments(folder: Path, tmp_path: Path, jobs: Sequence[str]) -> None:
    """Each stage: twelve in its phases, three at a time, and eight anywhere, by the clock of the processor."""
    attempts: dict[str, list[str]] = {}
    for job in jobs:
        draw = random.Random(job)
        by_phase = [f"{phase}:{draw.randint(1, MOST[phase])}" for phase in (phases(job) * 12)[:12]]
        draw.shuffle(by_phase)
        anywhere = [f"anywhere:{draw.randint(5, 120)}" for _ in range(8)]
        lists = [[], *(by_phase[i::4] for i in range(4)), anywhere[::2], anywhere[1::2]]
        attempts |= {f"{job}:{tmp_path}/{job}-{i}": moments for i, moments in enumerate(lists)}
    came = dict(zip(attempts, run(folder, attempts), strict=True))
    for job in jobs:
        counts = [came[f"{job}:{tmp_path}/{job}-{i}"] for i in range(7)]
        for i in range(1, 7):
            compare(tmp_path / f"{job}-0", tmp_path / f"{job}-{i}")
        print(job, counts)
        # A reference is kept once, and an attempt may be over before its moment.
        assert sum(counts[1:5]) >= 8, counts
        assert sum(counts[5:]) >= 3, counts

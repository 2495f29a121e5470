"""Why this matters: machines die in the middle of things. Killed inside sampling, verifying, backward or the writing of
a checkpoint, with pools, schedule, correction and alarms on, a stage has to end with the rows and weights of one that
was left alone, bit for bit, its rollback and its pause included: in PyTorch and compiled.

Not exercised: power cuts (what the disk did not write), the pipeline around the stage (tests/pipeline).
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from r1kit.config.machine import resolve_native

from .sigkill import PHASES, SETTINGS, launched
from .stage import write_base


@dataclass(frozen=True)
class Form:
    """The stage in PyTorch or compiled: the shape of its base, and how often an attempt calls what kills it."""

    native: str
    shape: dict[str, int]
    sampling: int
    most_sampling: int

    @property
    def moments(self) -> list[str]:
        return [f"sampling:{self.sampling}", "verifying:20", "backward:5", "writing:5", "writing:16"]

    @property
    def most(self) -> dict[str, int]:
        return {"sampling": self.most_sampling, "verifying": 20, "backward": 8, "writing": 18}


PLAIN = Form("off", {}, 25, 20)
# Compiled passes want wider heads, and one call of sampling makes many tokens.
COMPILED = Form(resolve_native("on"), {"head_dim": 32, "intermediate_size": 32}, 9, 6)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
in_both_forms = pytest.mark.parametrize(
    "form",
    [pytest.param(PLAIN, id="plain"), pytest.param(COMPILED, id="compiled", marks=needs_compiler)],
    scope="module",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, form: Form) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), **form.shape)


def run(base: Path, form: Form, *attempts: str) -> list[int]:
    """Kill at each moment of each directory in turn, then let the stage finish; how many of the moments came."""
    return launched("tests.training.sigkill", str(base), form.native, *attempts)


def everything(directory: Path) -> dict[str, Any]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    newest = directory / "checkpoints" / f"step-{SETTINGS['steps']:06d}"
    return {
        "rows": [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines],
        "state": json.loads((newest / "trainer.json").read_text()),
        **{name: (newest / name).read_bytes() for name in ("model.safetensors", "trainer.safetensors")},
    }


@pytest.fixture(scope="module")
def runs(base: Path, form: Form, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is left of the stage left alone, and of the one killed at the form's moments."""
    alone, killed = (tmp_path_factory.mktemp(name) for name in ("alone", "killed"))
    assert run(base, form, f"{alone}=", f"{killed}={','.join(form.moments)}") == [0, len(form.moments)]
    return [everything(alone), everything(killed)]


@in_both_forms
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


@in_both_forms
def test_killed_in_each_phase(runs: list[dict[str, Any]]) -> None:
    compare(*runs)


@in_both_forms
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_twenty_random_moments(
    base: Path, form: Form, tmp_path: Path, runs: list[dict[str, Any]], seed: int
) -> None:
    """Five in each phase, in random order, five in each of four runs; each within what an attempt still has to do."""
    draw = random.Random(seed)
    moments = [f"{phase}:{draw.randint(1, form.most[phase])}" for phase in PHASES for _ in range(5)]
    draw.shuffle(moments)
    folders = [tmp_path / str(i) for i in range(4)]
    came = run(base, form, *(f"{folder}={','.join(moments[i::4])}" for i, folder in enumerate(folders)))
    assert came == [5, 5, 5, 5], "a moment never came: the stage was done before"
    for folder in folders:
        compare(runs[0], everything(folder))

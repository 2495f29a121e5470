"""A small recipe over fake stage kinds, and a way to run it here or in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from r1kit.config import parse_recipe
from r1kit.pipeline.run import Options, RunResult, run_recipe

HERE = Path(__file__).parent
RECIPE = """\
name: small
task: countdown
processes: 1
stages:
  base: {kind: pretrain, tokens: 4096, tokens_per_step: 1024, warmup_steps: 0, checkpoint_every: 2}
  rl: {kind: rl, model: "${base}", steps: 6, warmup_steps: 0, checkpoint_every: 2}
  final: {kind: evaluate, model: "${rl}", problems: 4, samples: 2}
expect: ["final.pass@1 >= 0.45"]
"""
DRIVER = """\
import sys
from pathlib import Path
import r1kit.pipeline.run as run
from r1kit.cli.app import explain
from r1kit.config import load_recipe
recipe, out, *overrides = sys.argv[1:]
try:
    result = run.run_recipe(load_recipe(recipe, overrides), out, run.Options(runners="fake_kinds", check=False))
except Exception as error:
    sys.exit(explain(error))
sys.exit(0 if result.expect_ok else 1)
"""

RunHere = Callable[..., RunResult]
RunApart = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def run_here(out: Path, monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """Run the small recipe in this process: `run_here("rl.steps=3", fresh=True)`."""
    monkeypatch.syspath_prepend(str(HERE))

    def run(*overrides: str, check: bool = False, **options: bool) -> RunResult:
        chosen = Options(runners="fake_kinds", check=check, console=Console(file=StringIO()), **options)
        return run_recipe(parse_recipe(RECIPE, "small.yaml", overrides), out, chosen)

    return run


@pytest.fixture
def run_apart(out: Path, tmp_path: Path) -> RunApart:
    """Start the small recipe in a process of its own: `run_apart("rl.steps=3", FAKE_FAIL="rl:2:kill")`."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)

    def run(*overrides: str, **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(HERE), *sys.path])
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(recipe), str(out), *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        )

    return run

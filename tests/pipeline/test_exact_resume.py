"""Why this matters: a run that was killed and resumed must be the run that was left alone, bit for bit.

The real stages at toy size, in processes of their own, compiled and in PyTorch. Not exercised: that anything is learned
(test_learning).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r1kit.pipeline.metrics import read_metrics
from r1kit.pipeline.run_directory import RunDirectory, read_rollouts

RECIPE = """\
name: toy
task: {{name: countdown, high: 6}}
processes: {processes}
dtype: {dtype}
native: {native}
stages:
  base:
    kind: pretrain
    model: {{hidden: 32, layers: 1, heads: 1, kv_heads: 1, head_dim: 32, intermediate: 64}}
    tokens: 15_360
    tokens_per_step: 512
    document_length: 64
    token_budget: 256
    warmup_steps: 2
    log_every: 1
    checkpoint_every: 7
    evaluate: {{every: 15, problems: 4, samples: 2, max_tokens: 16}}
  rl:
    kind: rl
    model: ${{base}}
    steps: 6
    problems_per_step: 4
    samples_per_problem: 4
    token_budget: 128
    warmup_steps: 1
    sampling: {{max_tokens: 24}}
    reward:
      kind: tinyzero
      overlong: {{buffer: 12}}
      parts: {{random: {{weight: 0.1}}, kimi_length: {{last_steps: 3}}}}
    algorithm: {{kl_coef: 0.01, reference_refresh: 2, minibatches: 2}}
    dynamic_sampling: {{rounds: 2, max_age: 2}}
    pools: {{enabled: true}}
    mismatch: {{correction: token_tis}}
    schedule:
      - {{until: {{truncated_above: 0.1, window: 2}}}}
      - {{set: {{sampling.max_tokens: 20, sampling.temperature: 1.1, reward.weights.format: 0.2}}}}
    alarms: {{no_useful_group: {{action: rollback}}, rollback: {{limit: 1, lr_factor: 0.9}}}}
    checkpoint_every: 2
    rollouts_every: 1
    evaluate: {{every: 2, problems: 4, samples: 2, max_tokens: 24}}
  final: {{kind: evaluate, model: "${{rl}}", problems: 8, samples: 2, max_tokens: 24}}
"""
ROWS = 30 + 2 + 6 + 4
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from r1kit.cli import main; main()", "run", str(recipe), "--out", str(out)]
    # Somebody may be editing the sources while the tests run; that refusal has its own test.
    command.append("--allow-new-code")
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
    )


def finish(recipe: Path, out: Path) -> None:
    process = start(recipe, out)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def kill_after(recipe: Path, out: Path, rows: int) -> None:
    """Start or resume, and kill without warning once metrics.jsonl has `rows` rows (or the run is over)."""
    process = start(recipe, out)
    while process.poll() is None and len(list(read_metrics(out / "metrics.jsonl"))) < rows:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def everything(out: Path) -> dict[str, Any]:
    """All that must be equal: rows without their clock, rollouts, evaluations and weights."""
    run = RunDirectory(out)
    rollouts = {path.name: [g.to_json() for g in read_rollouts(path)] for path in sorted(out.rglob("*.zst"))}
    for groups in rollouts.values():
        for group in groups:
            for rollout in group["rollouts"]:
                for verdict in rollout["verdicts"].values():
                    verdict["seconds"] = 0.0
    return {
        "rows": [{k: v for k, v in row.items() if k != "clock"} for row in read_metrics(run.metrics)],
        "rollouts": rollouts,
        "evaluations": sorted(p.relative_to(out).as_posix() for p in out.rglob("evaluations/**/*.json")),
        "weights": {
            stage: (out / run.require_finished(stage)["outputs"]["model"] / "model.safetensors").read_bytes()
            for stage in ("base", "rl")
        },
        "final": run.require_finished("final")["eval"],
    }


def compare(tmp_path: Path, processes: int, moments: list[int], dtype: str = "float32", native: str = "off") -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE.format(processes=processes, dtype=dtype, native=native))
    finish(recipe, tmp_path / "alone")
    for rows in moments:
        kill_after(recipe, tmp_path / "killed", rows)
    finish(recipe, tmp_path / "killed")
    alone, killed = everything(tmp_path / "alone"), everything(tmp_path / "killed")
    assert len([row for row in alone["rows"] if row["kind"] != "alarm"]) == ROWS
    for part in alone:
        assert killed[part] == alone[part], part


@pytest.mark.parametrize(
    ("dtype", "native"), [pytest.param("float32", "on", marks=needs_compiler), ("bfloat16", "off")]
)
def test_killed_in_pretraining_and_in_rl(tmp_path: Path, dtype: str, native: str) -> None:
    compare(tmp_path, 1, [18, 34], dtype, native)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_ten_random_moments(tmp_path: Path, processes: int) -> None:
    moments = sorted(random.Random(processes).sample(range(1, ROWS), 10))
    compare(tmp_path, processes, moments)

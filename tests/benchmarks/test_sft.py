"""The benchmark of supervised fine-tuning compares equal work: same sequences, same weights, same loss.

Why this matters: a ratio between two programs that do different things is worth nothing.

Not exercised here: any timing, processes (test_benchmarks.py), and whole runs, which take minutes.
"""

from __future__ import annotations

import itertools
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft
from workers.supervised import SHORTEST, OurSteps, TrlSteps, sequences

ORDER = {"steps": 3, "sequences": 4, "longest": 40, "budget": 100, "seed": 0}


def options(tmp_path: Path, dtype: str = "float32") -> dict[str, Any]:
    return {"recipe": "tinyzero", "folder": str(tmp_path), "store": "", "dtype": dtype}


def test_sequences_are_mixed_and_begin_with_context() -> None:
    made = sequences(400, 128, 200, seed=1)
    lengths = np.array([len(s.token_ids) for s in made])
    assert lengths.min() >= SHORTEST
    assert lengths.max() <= 128
    # Evenly over the logarithm: half of them below the geometric mean.
    assert np.mean(lengths < np.sqrt(SHORTEST * 128)) == pytest.approx(0.5, abs=0.1)
    assert all(s.weights[0] == 0 and s.weights[-1] == 1 for s in made)
    assert made[7].token_ids.tolist() == sequences(400, 128, 200, seed=1)[7].token_ids.tolist()


def test_trl_runs_in_the_grid_of_the_specification() -> None:
    ours, peers = sft.contenders(Namespace(longest=512))
    grid = {(str(p.layout), p.options["dtype"]) for p in peers}
    assert grid == set(itertools.product(["1 x 2 threads", "2 x 1 thread"], ["float32", "bfloat16"]))
    assert {p.order["strategy"] for p in peers} == {"bfd", "wrapped"}
    assert {(str(c.layout), c.order["native"]) for c in ours} == set(
        itertools.product(["1 x 2 threads", "2 x 1 thread"], sft.FORMS.values())
    )


def test_both_trainers_have_the_same_curve(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed (extra: bench)")
    ours = OurSteps(options(tmp_path), 0, 1)
    ours.prepare({**ORDER, "curve": True, "native": "off"})
    theirs = TrlSteps(options(tmp_path), 0, 1)
    theirs.prepare({**ORDER, "curve": True, "strategy": "none", "rows": 4, "row_length": 0})
    before = ours.session.flat.master.clone()
    mine, found = ours.run(), theirs.run()
    assert mine["tokens"] == found["tokens"]
    assert mine["losses"] == pytest.approx(found["losses"], rel=1e-5)
    assert float((ours.session.flat.master - before).abs().max()) > 1e-4  # both have learned in between


def test_packing_is_counted_without_padding(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed (extra: bench)")
    theirs = TrlSteps(options(tmp_path), 0, 1)
    theirs.prepare({**ORDER, "steps": 1, "strategy": "bfd", "rows": 1, "row_length": 40})
    found = theirs.run()
    assert 0 < found["tokens"] <= 40 * theirs.trainer.args.gradient_accumulation_steps
    assert found["ended"] > found["started"] > 0


def test_the_memory_of_a_loss_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All logits at once would be 256 MiB, and their gradient as much again."""
    small = ["--tokens", "4096", "--vocabulary", "16384", "--width", "16", "--measure-memory"]
    monkeypatch.setattr(sys, "argv", ["sft.py", *small])
    sft.main()
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["peak_gib"] < 128 / 1024
    assert found["seconds"] > 0

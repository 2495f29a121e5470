"""Why this matters: metrics.jsonl is the record two runs are compared by; a crash may cut it anywhere.

Not exercised: what the rows hold (tests/training) and how they are drawn (tests/dashboard).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from r1kit.pipeline.metrics import MetricsLog, read_metrics


def filled(path: Path) -> MetricsLog:
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.append("base", "train", step, {"loss": 1 / step}, {"seconds": 0.1})
    for step in (1, 2, 3):
        log.append("rl", "train", step, {"reward": step}, {})
    log.append("rl", "eval", 2, {"pass@1": 0.5}, {})
    return log


def test_truncate_drops_later_rows_of_one_stage_only(tmp_path: Path) -> None:
    log = filled(tmp_path / "metrics.jsonl")
    assert log.truncate("rl", 1) == 3
    rows = [(row["stage"], row["step"]) for row in read_metrics(log.path)]
    assert rows == [("base", 1), ("base", 2), ("base", 3), ("rl", 1)]


def test_truncate_past_the_end_changes_nothing(tmp_path: Path) -> None:
    log = filled(tmp_path / "metrics.jsonl")
    before = log.path.read_bytes()
    assert log.truncate("rl", 99) == 0
    assert log.path.read_bytes() == before


def test_half_written_line_is_ignored_and_cut_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    filled(path)
    with open(path, "a") as stream:
        stream.write('{"stage": "rl", "st')
    assert len(list(read_metrics(path))) == 7
    MetricsLog(path).append("rl", "train", 4, {}, {})
    assert [row["step"] for row in read_metrics(path)][-1] == 4


def test_numbers_of_any_library_and_no_nan(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append("rl", "train", 1, {"a": np.float32(0.5), "b": float("nan"), "c": np.int64(3)}, {})
    row = json.loads(log.path.read_text())
    assert (row["a"], row["b"], row["c"]) == (0.5, None, 3)


def test_a_metric_may_not_hide_the_rows_own_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rename the metric"):
        MetricsLog(tmp_path / "metrics.jsonl").append("rl", "train", 1, {"step": 3.0}, {})

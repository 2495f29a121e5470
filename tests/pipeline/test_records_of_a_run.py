"""Why this matters: what a run leaves is read by people and programs long after; it must be whole.

Covers files, rollouts, expectations, ledger, summary, usage, lineage and trackers one by one; tests of whole
runs are in test_run.py.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from r1kit.config import UserError
from r1kit.config.schema import RateSettings, TrackSettings
from r1kit.pipeline.expectations import check_expectations
from r1kit.pipeline.files import is_disk_full, read_json, write_atomic
from r1kit.pipeline.ledger import make_ledger
from r1kit.pipeline.lineage import changed_code, code_hashes, hash_directory
from r1kit.pipeline.run_directory import RunDirectory, read_rollouts, write_rollouts
from r1kit.pipeline.summary import make_summary
from r1kit.pipeline.trackers import open_trackers, scalars
from r1kit.pipeline.usage import measure, reset_peak
from r1kit.records import Group, Message, Problem, Rollout

RECORD = {
    "name": "final",
    "kind": "evaluate",
    "seconds": 2.0,
    "cpu_seconds": 3.0,
    "peak_memory_bytes": 5,
    "tokens": {"sampled": 7, "trained": 0, "discarded": 0},
    "eval": {
        "pass@1": {"value": 0.5, "low": 0.4, "high": 0.6},
        "pass@k": {"8": 0.9},
        "n": 4,
        "reasons": {"a": 1},
    },
    "metrics": {"loss": 0.25},
}


def test_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert is_disk_full(caught.value)


def test_disk_full_is_seen_through_other_libraries_errors() -> None:
    wrapped = RuntimeError("could not serialise")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(wrapped)
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(RuntimeError("another"))


def test_damaged_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"ledger\.json:1: damaged"):
        read_json(path)


def test_rollouts_come_back_as_they_were(tmp_path: Path) -> None:
    problem = Problem("p", (Message("text", "Q:1,2,3>6\n"),), "countdown", {"target": 6})
    zeros = [0.0, 0.0]
    rollout = Rollout("p", 0, 1, [1, 2], [False, True], zeros, [-1, 0], [0, 1], "stopped", text="größer")
    group = Group(problem, (rollout,))
    path = RunDirectory(tmp_path).rollouts("rl", 10)
    write_rollouts(path, [group, group])
    assert path.name == "step-000010.jsonl.zst"
    assert [g.to_json() for g in read_rollouts(path)] == [group.to_json()] * 2


def test_resume_forgets_later_files_of_the_stage(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for stage, step in (("rl", 5), ("rl", 10), ("other", 10)):
        write_atomic(run.evaluation(stage, step), "{}")
    run.forget_after("rl", 5)
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.json"))
    assert left == ["evaluations/other/step-000010.json", "evaluations/rl/step-000005.json"]


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("final.pass@1 >= 0.5", True),
        ("final.pass@1 > 0.5", False),
        ("final.pass@8 >= 9e-1", True),
        ("final.loss < 0.3", True),
        ("final.tokens.sampled <= 7", True),
        ("final.seconds < 2", False),
        ("final.unknown > 0", False),
    ],
)
def test_expectations(text: str, ok: bool) -> None:
    (found,) = check_expectations([text], {"final": RECORD})
    assert found.ok is ok
    assert ("no such metric" in found.sentence()) is ("unknown" in text)


def test_not_a_number_meets_no_expectation() -> None:
    record = {"metrics": {"loss": float("nan")}}
    found = check_expectations(["rl.loss < 1", "rl.loss >= 1"], {"rl": record})
    assert [f.ok for f in found] == [False, False]


def test_summary_has_the_published_keys_only() -> None:
    summary = make_summary("tinyzero", 0, True, [RECORD])
    assert list(summary) == ["recipe", "seed", "expect_ok", "stages"]
    assert set(summary["stages"][0]["eval"]) == {"pass@1", "pass@k", "n"}


def test_ledger_adds_up_and_prices() -> None:
    ledger = make_ledger({"a": RECORD, "b": RECORD}, RateSettings(watts=1800, price_per_hour=3.6))
    assert ledger["total"]["tokens"] == {"sampled": 14, "trained": 0, "masked": 0, "discarded": 0}
    assert ledger["total"]["seconds"] == 4.0
    assert ledger["total"]["energy_kwh"] == pytest.approx(0.002)
    assert ledger["total"]["cost"] == {"amount": 0.004, "currency": "USD"}


def test_peak_memory_counts_peers_and_starts_anew() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        alone, both = measure(), measure([sleeper.pid])
        assert both.cpu_seconds >= alone.cpu_seconds
        if Path("/proc/self/status").exists():
            assert both.peak_memory_bytes > alone.peak_memory_bytes
            block = bytearray(64 << 20)
            high = measure().peak_memory_bytes
            del block
            reset_peak()
            assert measure().peak_memory_bytes <= high
    finally:
        sleeper.communicate(b"\n")


def test_code_hashes_cover_what_changes_numbers() -> None:
    hashes = code_hashes()
    assert "records.py" in hashes
    assert not any(name.startswith(("cli/", "dashboard/", "pipeline/")) for name in hashes)
    assert changed_code({**hashes, "records.py": "x"}) == ["records.py"]


def test_directory_hash_sees_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = hash_directory(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_directory(tmp_path) != first


def test_tracker_rows_are_named_by_stage_and_kind() -> None:
    row = {"stage": "rl", "kind": "eval", "step": 3, "pass@1": 0.5, "clock": {"wall": 1.0}, "note": "x"}
    assert scalars(row) == {"rl/eval/pass@1": 0.5, "rl/eval/clock/wall": 1.0}


def test_missing_tracker_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'r1kit\[track\]'"):
        open_trackers(TrackSettings(wandb=True), tmp_path, "x", {})


def test_tensorboard_gets_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the track extra is not installed")
    (tracker,) = open_trackers(TrackSettings(tensorboard=True), tmp_path, "x", {})
    tracker.log({"stage": "rl", "kind": "train", "step": 1, "reward": 0.5, "clock": {}})
    tracker.close()
    assert any(p.stat().st_size > 0 for p in (tmp_path / "tensorboard").iterdir())


class FakeWandb(ModuleType):
    """Keeps what it is told, by run id."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.rows: dict[str, list[dict[str, float]]] = {}
        self.axes: list[tuple[str, str | None]] = []

    def init(self, *, id: str, resume: str, **_: Any) -> FakeWandb:
        assert resume == "allow"
        self.log = self.rows.setdefault(id, []).append
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes.append((name, step_metric))

    def finish(self) -> None: ...


def test_a_resumed_run_goes_on_in_its_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    rows: list[dict[str, Any]] = [
        {"stage": "rl", "kind": kind, "step": step, "reward": 0.5, "clock": {}}
        for kind, step in (("eval", 0), ("train", 1), ("train", 2), ("eval", 2), ("train", 3))
    ]
    # The first attempt is killed after step 2, the second does it again from step 1.
    for already, sent in (([], rows[:4]), (rows[:4], rows[1:])):
        (tracker,) = open_trackers(TrackSettings(wandb=True), tmp_path, "x", {}, already)
        for row in sent:
            tracker.log(row)
        tracker.close()
    (logged,) = wandb.rows.values()
    assert [row["rl/step"] for row in logged] == [0, 1, 2, 2, 3]
    assert ("rl/*", "rl/step") in wandb.axes


def json_of(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_summary_survives_json() -> None:
    summary = make_summary("tinyzero", 0, False, [RECORD])
    assert json_of(summary) == summary

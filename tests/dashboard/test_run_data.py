"""Why this matters: people look at a report most when something went wrong, so half a run must still be readable.

Does not exercise: what the page makes of the data (test_report).
"""

from __future__ import annotations

import json
import shutil

import pytest

from r1kit.dashboard.run_data import ReportError, load_run


def test_a_finished_run(finished_run):
    run = load_run(finished_run)
    assert (run.name, run.seed, run.finished, run.notes) == ("tinyzero", 0, True, [])
    assert [stage.name for stage in run.stages] == ["base", "base_eval", "rl", "final"]
    assert [stage.kind for stage in run.stages] == ["pretrain", "evaluate", "rl", "evaluate"]
    rl = run.stages[2]
    assert (len(rl.train), rl.last_step, rl.status) == (8, 8, "finished")
    assert [item.step for item in rl.rollouts] == [1, 2, 4, 6, 8]
    assert [item.step for item in rl.evaluations] == [0, 8]
    assert [item.step for item in run.stages[3].evaluations] == [None]


def test_a_stopped_run(stopped_run):
    run = load_run(stopped_run)
    assert not run.finished
    assert [s.status for s in run.stages] == ["finished", "finished", "unfinished", "not started"]
    assert run.stages[2].begun["seconds"] == 61.0
    assert run.stages[2].last_step == 3


def test_groups_are_read_back(finished_run):
    run = load_run(finished_run)
    groups = list(run.read_groups(run.stages[2].rollouts[0]))
    assert len(groups) == 4
    assert len(groups[0]["rollouts"]) == 4


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ReportError, match="is not a run directory: expected at least one of"):
        load_run(tmp_path)
    with pytest.raises(ReportError, match="Give the directory"):
        load_run(tmp_path / "missing")


def test_a_line_cut_off_by_a_kill_is_left_out_and_told(finished_run, tmp_path):
    run_directory = shutil.copytree(finished_run, tmp_path / "run")
    with (run_directory / "metrics.jsonl").open("a") as out:
        out.write('{"stage": "rl", "kind": "tra')
    run = load_run(run_directory)
    assert len(run.stages[2].train) == 8
    assert len(run.notes) == 1
    assert "is cut off or damaged" in run.notes[0]


def test_damaged_files_are_told_by_name(finished_run, tmp_path):
    run_directory = shutil.copytree(finished_run, tmp_path / "run")
    (run_directory / "ledger.json").write_text("{")
    (run_directory / "lineage.json").write_text("[1]")
    (run_directory / "recipe.resolved.yaml").write_text("a: [")
    rollouts = run_directory / "rollouts/rl/step-000001.jsonl.zst"
    rollouts.write_bytes(rollouts.read_bytes()[:-20])
    (run_directory / "rollouts/rl/step-000002.jsonl.zst").write_bytes(b"no zstd at all")
    run = load_run(run_directory)
    assert run.recipe == {}
    rl = next(stage for stage in run.stages if stage.name == "rl")
    for stored in rl.rollouts[:2]:
        list(run.read_groups(stored))
    for name in ("ledger.json", "lineage.json", "recipe.resolved.yaml", "000001.jsonl.zst", "000002.jsonl.zst"):
        assert any(name in note for note in run.notes), name


def test_a_stage_that_the_recipe_does_not_name_is_kept(finished_run, tmp_path):
    run_directory = shutil.copytree(finished_run, tmp_path / "run")
    (run_directory / "stages/extra.json").write_text(json.dumps({"name": "extra", "kind": "sft"}))
    assert [s.name for s in load_run(run_directory).stages][-1] == "extra"

"""Why this matters: a run is hours of work; it must go on where it stopped, never mix recipes, never lie.

Stage kinds are fakes (fake_kinds.py): training, its checkpoints and bitwise resume are tested in
tests/training.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit.models.checkpoint import CheckpointError
from r1kit.pipeline.files import RunError
from r1kit.pipeline.metrics import read_metrics
from r1kit.pipeline.run import RunPausedError, RunResult
from r1kit.pipeline.run_directory import RunDirectory

RunHere = Callable[..., RunResult]
RunApart = Callable[..., Any]


def rows(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in row.items() if k != "clock"} for row in read_metrics(out / "metrics.jsonl")]


def test_a_run_leaves_what_the_design_says(run_here: RunHere, out: Path) -> None:
    result = run_here()
    assert result.expect_ok
    summary = json.loads((out / "summary.json").read_text())
    assert [s["name"] for s in summary["stages"]] == ["base", "rl", "final"]
    assert summary["expect_ok"] is True
    assert summary["stages"][1]["tokens"] == {"sampled": 10, "trained": 7, "masked": 1, "discarded": 2}
    assert summary["stages"][2]["eval"]["pass@1"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert "examples" not in summary["stages"][2]["eval"]
    assert summary["stages"][1]["peak_memory_bytes"] > 1 << 20
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["stages"]["final"]["input"]["path"] == "checkpoints/rl/step-000006"
    assert lineage["seed"] == 0
    assert json.loads((out / "ledger.json").read_text())["total"]["tokens"]["sampled"] == 20
    for name in ("recipe.resolved.yaml", "report.html", "run.log", "evaluations/final/final.json"):
        assert (out / name).is_file(), name


def test_finished_stages_are_not_run_again(run_here: RunHere, out: Path) -> None:
    run_here()
    before = (out / "metrics.jsonl").read_bytes()
    (out / "stages" / "final.json").unlink()
    run_here()
    assert (out / "metrics.jsonl").read_bytes() == before
    assert RunDirectory(out).finished("final")
    assert "base: unchanged, not run again" in (out / "run.log").read_text()


def test_a_finished_run_is_only_reported(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_here()
    monkeypatch.setenv("FAKE_FAIL", "base:1:raise")
    assert run_here().summary == first.summary


def test_changed_settings_are_refused_by_name(run_here: RunHere) -> None:
    run_here()
    with pytest.raises(RunError) as caught:
        run_here("rl.steps=7", "final.samples=3")
    message = str(caught.value)
    assert "stages.rl.steps: 6 -> 7" in message
    for remedy in ("--redo-changed", "--fresh", "--out"):
        assert remedy in message
    assert run_here("rl.steps=7", fresh=True).summary["stages"][1]["name"] == "rl"


def test_an_edited_reward_function_is_another_run(run_here: RunHere, out: Path, tmp_path: Path) -> None:
    function = tmp_path / "mine.py"
    function.write_text("def f(problem, rollout): return 1\n")
    parts = f"rl.reward.parts={{mine: {{function: '{function}:f'}}}}"
    run_here(parts)
    assert f"{function}:f" in json.loads((out / "lineage.json").read_text())["inputs"]
    function.write_text("def f(problem, rollout): return 2\n")
    with pytest.raises(RunError, match="of a function of yours"):
        run_here(parts)


def test_of_the_sandbox_only_what_judges_is_a_change(run_here: RunHere) -> None:
    """A run goes on where another tier or number of workers is all a machine has; other limits are other verdicts."""
    from r1kit.sandbox import shared_limits

    run_here("sandbox.limits.cpu_seconds=3", "sandbox.workers=2")
    assert shared_limits() == {"cpu_seconds": 3.0}
    run_here("sandbox.limits.cpu_seconds=3", "sandbox.workers=1")
    with pytest.raises(RunError, match=r"sandbox\.limits\.cpu_seconds: 3\.0 -> None"):
        run_here()


def test_changed_stages_are_done_again_and_the_others_kept(run_here: RunHere, out: Path) -> None:
    run_here()
    base = (out / "stages" / "base.json").read_bytes()
    (out / "evaluations" / "rl").mkdir()
    (out / "evaluations" / "rl" / "step-000006.json").write_text("{}")
    result = run_here("rl.steps=4", redo_changed=True)
    assert (out / "stages" / "base.json").read_bytes() == base
    assert [r["step"] for r in rows(out) if r["stage"] == "base"] == [1, 2, 3, 4]
    assert [r["step"] for r in rows(out) if r["stage"] == "rl"] == [1, 2, 3, 4]
    assert [p.name for p in (out / "checkpoints" / "rl").iterdir() if p.is_dir()] == ["step-000004"]
    assert not (out / "evaluations" / "rl").exists()
    assert result.summary["stages"][1]["name"] == "rl"
    assert RunDirectory(out).require_finished("final")["fingerprint"] != json.loads(base)["fingerprint"]
    assert run_here("rl.steps=4").summary == result.summary


def test_redoing_what_has_not_changed_does_nothing(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_here()
    monkeypatch.setenv("FAKE_FAIL", "base:1:raise")
    assert run_here(redo_changed=True).summary == first.summary


def test_nothing_is_deleted_for_a_recipe_that_cannot_work(run_here: RunHere, out: Path) -> None:
    run_here()
    before = sorted(p.relative_to(out) for p in out.rglob("*"))
    for option in ("fresh", "redo_changed"):
        with pytest.raises(RunError, match="rl: lengths"):
            run_here("rl.sampling.max_tokens=8", check=True, **{option: True})
    assert sorted(p.relative_to(out) for p in out.rglob("*")) == before


def test_a_run_keeps_its_number_of_processes(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` means another number on another machine; a finished run is reported there all the same."""
    monkeypatch.setattr("r1kit.config.machine.usable_cores", lambda: 1)
    first = run_here("processes=auto")
    monkeypatch.setattr("r1kit.config.machine.usable_cores", lambda: 2)
    assert run_here("processes=auto").summary == first.summary
    with pytest.raises(RunError, match="processes: 1 -> 2"):
        run_here("processes=2")


def test_fresh_leaves_what_the_user_put_there(run_here: RunHere, out: Path) -> None:
    run_here()
    (out / "notes.txt").write_text("what I saw")
    (out / "plots").mkdir()
    (out / ".recipe.resolved.yaml.left").write_text("of a crash")
    run_here("rl.steps=4", fresh=True)
    assert (out / "notes.txt").read_text() == "what I saw"
    assert (out / "plots").is_dir()
    assert not (out / ".recipe.resolved.yaml.left").exists()
    assert [r["step"] for r in rows(out) if r["stage"] == "rl"] == [1, 2, 3, 4]


def test_a_missing_tracker_is_refused_before_anything_is_written(
    run_here: RunHere, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match="wandb is not installed"):
        run_here("track.wandb=true")
    assert [p.name for p in out.iterdir()] == ["run.lock"]


def test_a_stage_that_has_not_begun_may_change(run_here: RunHere, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setenv("FAKE_FAIL", "rl:1:raise")
    with pytest.raises(RuntimeError, match="a defect"):
        run_here()
    monkeypatch.delenv("FAKE_FAIL")
    run_here("final.samples=3")
    assert "samples: 3" in (out / "recipe.resolved.yaml").read_text()


def test_a_new_seed_or_task_changes_everything(run_here: RunHere) -> None:
    run_here()
    with pytest.raises(RunError, match="seed: 0 -> 1"):
        run_here("seed=1")
    with pytest.raises(RunError, match=r"task.high: 15 -> 10"):
        run_here("task.high=10")


def test_new_code_is_refused_unless_accepted(run_here: RunHere, out: Path) -> None:
    run_here()
    (out / "stages" / "final.json").unlink()
    lineage = json.loads((out / "lineage.json").read_text())
    lineage["code"][lineage["history"][-1]["code"]]["records.py"] = "another hash"
    (out / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(RunError, match=r"another version of r1kit \(records.py changed\)"):
        run_here()
    run_here(allow_new_code=True)
    assert "note: code changed since this run began: records.py" in (out / "run.log").read_text()


def test_unmet_expectation_keeps_the_results(run_here: RunHere, out: Path) -> None:
    result = run_here("expect=[final.pass@1 >= 0.9, final.pass@2 > 0.7, final.speed > 1]")
    assert [e.ok for e in result.expectations] == [False, True, False]
    assert "the stage has pass@1" in result.expectations[2].sentence().replace("n, k, cap, ", "")
    assert json.loads((out / "summary.json").read_text())["expect_ok"] is False
    assert run_here("expect=[]").expect_ok


def test_a_report_stage_writes_the_page_in_the_middle(run_here: RunHere, out: Path) -> None:
    result = run_here("stages.early={kind: report, after: ['${base}']}")
    assert [stage["name"] for stage in result.summary["stages"]] == ["base", "rl", "final", "early"]
    assert RunDirectory(out).finished("early")


def test_a_directory_of_something_else_is_left_alone(run_here: RunHere, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(RunError, match="holds no run"):
            run_here(fresh=fresh)
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_model_that_is_gone_is_named(run_here: RunHere, out: Path) -> None:
    run_here()
    (out / "stages" / "final.json").unlink()
    (out / "checkpoints" / "rl" / "step-000006").rename(out / "moved")
    with pytest.raises(RunError, match="needs the model of stage rl"):
        run_here()


def test_a_damaged_model_of_a_finished_stage_is_not_used(run_here: RunHere, out: Path) -> None:
    run_here()
    (out / "stages" / "final.json").unlink()
    model = out / "checkpoints" / "rl" / "step-000006"
    manifest = {"config.json": hashlib.sha256((model / "config.json").read_bytes()).hexdigest()}
    (model / "COMPLETE").write_text(json.dumps(manifest))
    run_here()
    (out / "stages" / "final.json").unlink()
    (model / "config.json").write_text("damaged")
    with pytest.raises(CheckpointError, match=r"config\.json: is damaged.*final needs it: restore it"):
        run_here()


def test_full_disk_is_said_and_the_run_goes_on_after(run_apart: RunApart, out: Path) -> None:
    process = run_apart(FAKE_FAIL="rl:4:disk")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert "no space left on the disk" in errors
    assert "Traceback" not in errors
    process = run_apart()
    process.communicate(timeout=200)
    assert process.returncode == 0
    assert [r["step"] for r in rows(out) if r["stage"] == "rl"] == [1, 2, 3, 4, 5, 6]


def test_killed_run_ends_as_if_left_alone(run_apart: RunApart, run_here: RunHere, out: Path) -> None:
    process = run_apart(FAKE_FAIL="rl:5:kill")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    with open(out / "metrics.jsonl", "a") as stream:
        stream.write('{"stage": "rl", "kind": "tr')
    run_here()
    resumed = rows(out)
    run_here(fresh=True)
    assert resumed == rows(out)


def test_a_run_that_an_alarm_paused_says_why_and_goes_on(
    run_here: RunHere, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAIL", "rl:2:pause")
    with pytest.raises(RunPausedError, match="rl: paused by some_alarm after step 2: why") as caught:
        run_here()
    assert caught.value.exit_code == 3
    assert "paused by some_alarm" in (out / "run.log").read_text()
    monkeypatch.delenv("FAKE_FAIL")
    assert run_here().expect_ok


def test_ctrl_c_saves_and_says_how_to_go_on(run_apart: RunApart, out: Path) -> None:
    process = run_apart("rl.steps=200", FAKE_STEP_SECONDS="0.05")
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not any(r["stage"] == "rl" for r in rows(out)):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "stopped in stage rl" in errors
    assert "The same command goes on" in errors
    done = json.loads((out / "checkpoints" / "rl" / "state.json").read_text())["step"]
    assert rows(out)[-1]["step"] == done
    assert json.loads((out / "ledger.json").read_text())["stages"]["rl"]["seconds"] > 0


def test_two_runs_do_not_share_a_directory(run_apart: RunApart, run_here: RunHere, out: Path) -> None:
    process = run_apart("rl.steps=200", FAKE_STEP_SECONDS="0.1")
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and not (out / "metrics.jsonl").is_file():
            time.sleep(0.05)
        with pytest.raises(RunError, match=f"in use by process {process.pid}"):
            run_here()
    finally:
        process.kill()
        process.communicate()


def test_two_processes_run_the_same_stages(run_apart: RunApart, out: Path) -> None:
    process = run_apart("processes=2")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    stage = RunDirectory(out).require_finished("rl")
    assert stage["metrics"]["total"] == 21
    assert [r["step"] for r in rows(out) if r["stage"] == "rl"] == [1, 2, 3, 4, 5, 6]


def test_a_dead_worker_is_named_with_its_last_words(run_apart: RunApart) -> None:
    process = run_apart("processes=2", FAKE_FAIL="rl:3:peer")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert "stage rl: rank 1" in errors
    assert "the worker's own words" in errors


def test_workers_die_with_the_first_process(run_apart: RunApart, out: Path) -> None:
    process = run_apart("processes=2", "rl.steps=500", FAKE_STEP_SECONDS="0.05")
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not any(r["stage"] == "rl" for r in rows(out)):
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list child processes under /proc")
    workers = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_runs(pid) for pid in workers):
        time.sleep(0.05)
    assert workers
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

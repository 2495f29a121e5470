"""Why this matters: an alarm that stands in a file and not in the report was not raised.

Not exercised: when alarms fire (tests/training).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1kit.dashboard import health
from r1kit.dashboard.chart_specs import groups_for
from r1kit.dashboard.comparison import Comparison
from r1kit.dashboard.run_data import RunData, load_run


def alarm(step: int, name: str, action: str = "warn") -> dict[str, Any]:
    message = f"{name} after step {step}: what was seen"
    return {"stage": "rl", "kind": "alarm", "step": step, "alarm": name, "action": action, "message": message}


def with_rows(tmp_path: Path, *rows: dict[str, Any]) -> RunData:
    trained = {"stage": "rl", "kind": "train", "step": 1, "reward": 0.1, "gap_mean": 1e-7, "phase": 1, "clock": {}}
    text = "".join(json.dumps(row) + "\n" for row in (trained, *({**row, "clock": {}} for row in rows)))
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "recipe.resolved.yaml").write_text("name: x\nstages: {rl: {kind: rl}}\n")
    return load_run(tmp_path)


def found(run: RunData) -> list[tuple[bool, str]]:
    return [(f.ok, f.text) for f in health.find(run, Comparison(None, None)) if "alarm" in f.text]


def test_each_alarm_is_a_finding_with_its_newest_message(tmp_path: Path) -> None:
    run = with_rows(
        tmp_path, alarm(3, "no_useful_group"), alarm(5, "entropy_collapse", "pause"), alarm(7, "no_useful_group")
    )
    assert found(run) == [
        (False, "alarm no_useful_group after step 7: what was seen: warn (2 times)"),
        (False, "alarm entropy_collapse after step 5: what was seen: pause"),
    ]
    findings = health.find(run, Comparison(None, None))
    assert {f.term.name for f in findings if f.term and not f.ok} == {"alarms"}


def test_a_run_without_alarms_says_so(tmp_path: Path) -> None:
    assert found(with_rows(tmp_path)) == [(True, "no alarm was raised")]


def test_alarm_rows_are_no_curve_and_new_metrics_are(tmp_path: Path) -> None:
    (stage,) = with_rows(tmp_path, alarm(3, "no_useful_group")).stages
    assert [row["step"] for row in stage.train] == [1]
    shown = {curve.key for group in groups_for(stage) for chart in group.charts for curve in chart.curves}
    assert {"gap_mean", "phase", "pool_band", "one_token", "pass@1_second"} <= shown
    assert "message" not in shown

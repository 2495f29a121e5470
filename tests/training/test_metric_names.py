"""Why this matters: a number that stands in metrics.jsonl and is explained nowhere is believed or feared without cause.

Not exercised: whether the words are true; the rows of other stages than rl; that the page has every entry
(tests/dashboard/test_metrics_page.py); the numbers of alarms (test_alarms.py, test_rollback.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit.dashboard.glossary import entry_of
from r1kit.training.parallel import World

from .stage import ListRecorder, open_stage, write_base

# Which row it is; and the words of an alarm.
NO_METRICS = {"stage", "kind", "step", "action", "message"}
# Stages with everything on that writes a number.
STAGES: dict[str, dict[str, Any]] = {
    "controls": {
        "algorithm": {"kl_coef": 0.1, "entropy": {"target": 9.0}, "group_filter": {"kind": "roc", "keep": 2}},
        "dynamic_sampling": {"truncated": "mask", "rounds": 2, "when_short": "wait", "max_age": 1},
        "pools": {"enabled": True},
        "mismatch": {"correction": "token_tis"},
        "schedule": [{"ramp": {"sampling.max_tokens": {"start": 7, "end": 8, "steps": 2}}}],
        "reward": {"parts": {"random": {}, "repetition": 0.0}},
        "evaluate": {"every": 1, "problems": 3, "samples": 2, "max_tokens": 6},
    },
    "shared critic": {
        "algorithm": {"preset": "ppo_orz", "critic": {"trunk": "shared", "minibatches": 1}},
        "reward": {"kind": "random"},
    },
    "critic": {"algorithm": {"preset": "ppo_orz"}, "reward": {"kind": "random"}},
    "process": {"algorithm": {"preset": "prime"}, "reward": {"kind": "random"}},
}


class Names(ListRecorder):
    """Keeps the names of what stands under `clock` as well."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks: set[str] = set()

    def metrics(
        self, stage: str, step: int, values: Mapping[str, Any], clock: Mapping[str, float], kind: str = "train"
    ) -> None:
        self.clocks |= set(clock)
        super().metrics(stage, step, values, clock, kind)


@pytest.mark.parametrize("name", STAGES)
def test_every_number_in_the_rows_of_an_rl_stage_is_in_the_glossary(name: str, tmp_path: Path) -> None:
    recorder = Names()
    run = open_stage(write_base(tmp_path / "base"), tmp_path / "rl", World.single(), recorder, steps=2, **STAGES[name])
    run.train()
    found = {key for row in recorder.rows for key in row} | recorder.clocks
    assert {"loss", "tokens_sampled", "train_s"} <= found
    assert sorted(key for key in found - NO_METRICS if entry_of(key) is None) == []

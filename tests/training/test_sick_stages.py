"""Every alarm, in a stage that is made to go wrong the way the alarm is about, and rolled back.

Why this matters: a condition that holds on made-up rows may never see the row that a real stage writes, and then the
night is lost after all.

Not exercised here: the limits of the conditions (test_alarms.py), what a rollback leaves on disk (test_rollback.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1kit.records import Problem, Rollout, Verdict
from r1kit.training import rl
from r1kit.training.exchange import SampledGroup
from r1kit.training.parallel import World

from .stage import TASK, ListRecorder, stage_settings, write_base

# Steps 1 and 2 are sound; from here on the stage is sick, until it is rolled back.
SICK_FROM = 3
CURED: dict[str, Any] = {"limit": 1, "lr_factor": 1.0}


@dataclass
class Illness:
    """What goes wrong, and whether it does now."""

    name: str
    step: int = 0
    over: bool = False

    @property
    def acts(self) -> bool:
        return self.step >= SICK_FROM and not self.over

    def of(self, *names: str) -> bool:
        return self.acts and self.name in names

    # -- the parts of a stage, as this illness leaves them -----------------------------------------------------

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        """Half of the responses are right, none is well-formed; under the illnesses about judging it is reversed."""
        right = sum(map(ord, response)) % 2 == 0 and not self.of("format_up_accuracy_down", "all_zero_rewards")
        right &= not self.of("reward_hacking")
        form = self.of("format_up_accuracy_down")
        return {
            name: Verdict.scored(float(value), "correct" if value else "wrong")
            for name, value in (("accuracy", right), ("format", form))
        }

    def reward(self, problem: Problem, rollouts: Sequence[Rollout], **_: Any) -> list[dict[str, float]]:
        if self.of("no_useful_group"):
            return [{"accuracy": 1.0}] * len(rollouts)
        bonus = 2.0 * self.of("reward_hacking")
        return [{"accuracy": bonus + float(r.verdicts["accuracy"].correct)} for r in rollouts]

    def sampled(self, groups: Sequence[SampledGroup]) -> list[SampledGroup]:
        return [replace(g, group=replace(g.group, rollouts=tuple(map(self._spoiled, g.group)))) for g in groups]

    def _spoiled(self, rollout: Rollout) -> Rollout:
        start = rollout.prompt_length
        if self.of("one_token_repetition"):
            ids = rollout.token_ids.copy()
            ids[start:] = 7
            return replace(rollout, token_ids=ids)
        if self.of("length_collapse"):
            arrays = ("token_ids", "loss_mask", "logprobs", "policy_versions", "temperatures")
            return replace(rollout, **{name: getattr(rollout, name)[: start + 1] for name in arrays})
        return rollout

    def lr_scale(self) -> float:
        return 100.0 if self.of("entropy_collapse") else 1.0


class JudgedBy:
    """The countdown task with another judge."""

    name = TASK.name

    def __init__(self, illness: Illness) -> None:
        self.illness = illness

    def problems(self, split: str) -> Sequence[Problem]:
        return TASK.problems(split)

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        return self.illness.verify(problem, response)

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        return {}

    def blind_rate(self, problem: Problem) -> float:
        return 0.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def infect(illness: Illness, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_groups, roll_back = rl.RLRun.sample_groups, rl.roll_back

    def sample(run: rl.RLRun, *arguments: Any) -> list[SampledGroup]:
        illness.step = run.step + 1
        return illness.sampled(sample_groups(run, *arguments))

    def cured(*arguments: Any) -> None:
        illness.over = True
        roll_back(*arguments)

    monkeypatch.setattr(rl.RLRun, "sample_groups", sample)
    monkeypatch.setattr(rl, "roll_back", cured)
    monkeypatch.setattr(rl, "make_reward", lambda *_, **__: illness.reward)
    monkeypatch.setattr(rl, "schedule", lambda *_, **__: illness.lr_scale())


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("entropy_collapse", {"window": 1, "below": 0.5}),
        ("one_token_repetition", {"window": 1}),
        ("length_collapse", {"window": 1, "gain": 1.0}),
        ("reward_hacking", {"window": 1, "gain": 1.0, "loss": 0.2}),
        ("all_zero_rewards", {"window": 1}),
        ("format_up_accuracy_down", {"window": 1}),
        ("no_useful_group", {"window": 1}),
    ],
)
def test_the_alarm_fires_and_takes_the_stage_back(
    name: str, limits: dict[str, Any], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    illness, recorder = Illness(name), ListRecorder()
    infect(illness, monkeypatch)
    others = {other: {"action": "off"} for other in stage_settings().alarms.by_name() if other != name}
    settings = stage_settings(
        steps=6,
        samples_per_problem=4,
        algorithm={},
        dynamic_sampling={"carry": False},
        evaluate={"every": 1, "problems": 3, "samples": 4, "max_tokens": 6},
        alarms={**others, name: {"action": "rollback", **limits}, "rollback": CURED},
    )
    rl.train_rl(
        settings, stage="rl", model_path=base, task=JudgedBy(illness), seed=5, world=World.single(), recorder=recorder,
        directory=tmp_path, dtype="float32",
    )  # fmt: skip
    (alarm,) = [row for row in recorder.rows if row["kind"] == "alarm"]
    assert (alarm["alarm"], alarm["action"]) == (name, "rollback")
    # The policy that sampled the first sick step was that of the step before, so what is older is good.
    assert alarm["fired_at"] >= SICK_FROM
    assert alarm["back_to"] < SICK_FROM
    trained = [row for row in recorder.rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [1, 2, 3, 4, 5, 6]
    assert illness.over
    assert all(np.isfinite(row["grad_norm"]) and row["groups_trained"] for row in trained)

"""Reward models as judges of an RL stage: what pays a response is the score of the model that the recipe names.

Why this matters: R1's last stage climbs such a score. One that reads the thought where only the answer was to be
judged, or that a resumed stage reads otherwise, trains towards something nobody chose.

Not exercised here: what the scores mean (test_reward_model.py); schedules of parts (tests/rewards).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1kit.config.errors import UserError
from r1kit.config.rewards import RewardSettings
from r1kit.models.heads import ValueModel
from r1kit.models.reward_model import RewardModel, RewardModelSpec, write_reward_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.kinds import StageContext, run_rl
from r1kit.records import Group, Message
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted
from r1kit.training.score_sources import score_sources

from .helpers import problem, random_group, tiny_model
from .stage import TASK_SETTINGS, ListRecorder, stage_settings, write_base

PARTS = {
    "helpful": {"part": "reward_model", "source": "${judge}", "weight": 0.5},
    "safe": {"part": "reward_model", "source": "${judge}", "judges": "whole"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("judge"), build_tiny_tokenizer()
    model = ValueModel(tiny_model(seed=3, vocab_size=len(tokenizer), max_positions=256)).draw_head(0)
    write_reward_model(model, tokenizer, folder, RewardModelSpec("pairwise"))
    return folder


class Groups(ListRecorder):
    """Keeps the groups of every step as well."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self.groups: dict[int, list[Group]] = {}

    def rollouts(self, stage: str, step: int, groups: Sequence[Group]) -> None:
        self.groups[step] = list(groups)


def run(base: Path, judge: Path, root: Path, recorder: ListRecorder, **changes: Any) -> Any:
    settings = stage_settings(**{"steps": 2, "reward": {"parts": PARTS}, "rollouts_every": 1, **changes})
    inputs = {"model": base, **{f"reward.parts.{name}.source": judge for name in PARTS}}
    return run_rl(StageContext("rl", settings, TASK_SETTINGS, 5, "float32", root, inputs, World.single(), recorder))


def test_a_stage_is_paid_by_the_models_it_names_and_resumes(base: Path, judge: Path, tmp_path: Path) -> None:
    recorder = Groups()
    whole = run(base, judge, tmp_path / "whole", recorder)
    model = RewardModel.load(judge)
    for step, groups in recorder.groups.items():
        (row,) = [r for r in recorder.rows if r["kind"] == "train" and r["step"] == step]
        for group in groups:
            texts = [Message("assistant", rollout.text) for rollout in group]
            assert not any("think" in text.content for text in texts)  # so "answer" and "whole" read the same
            expected = model.score([(group.problem.prompt, text) for text in texts])
            np.testing.assert_allclose([r.rewards["safe"] for r in group], expected, rtol=1e-5)
            np.testing.assert_allclose([r.rewards["helpful"] for r in group], 0.5 * expected, rtol=1e-5)
        paid = [r.rewards["helpful"] for group in groups for r in group]
        assert row["reward_helpful"] == pytest.approx(np.mean(paid))
        assert np.std(paid) > 0

    broken = Groups(stop_after=1)
    with pytest.raises(Interrupted):
        run(base, judge, tmp_path / "broken", broken)
    broken.stop_after = None
    resumed = run(base, judge, tmp_path / "broken", broken)
    assert broken.rows == recorder.rows
    weights = [(outcome.model / "model.safetensors").read_bytes() for outcome in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_part_is_watched_while_its_weight_is_0_and_ramped_in_and_resumes(
    base: Path, judge: Path, tmp_path: Path
) -> None:
    """The weight of a score goes from 0 to 1 in three steps; a run stopped on the way goes on at the same weight."""
    ramp = {"reward.weights.helpful": {"start": 0.0, "end": 1.0, "steps": 3}}
    changes = {"steps": 4, "schedule": [{"ramp": ramp}]}
    recorder = Groups()
    run(base, judge, tmp_path / "whole", recorder, **changes)
    model, rows = RewardModel.load(judge), [row for row in recorder.rows if row["kind"] == "train"]
    assert [row["reward.weights.helpful"] for row in rows] == [0.0, 0.5, 1.0, 1.0]
    for row in rows:
        groups, weight = recorder.groups[row["step"]], row["reward.weights.helpful"]
        scores = [model.score([(g.problem.prompt, Message("assistant", r.text)) for r in g]) for g in groups]
        name, factor = ("reward_helpful", weight) if weight else ("monitored_helpful", 1.0)
        assert row[name] == pytest.approx(factor * np.mean(scores), rel=1e-5)
        assert ("monitored_helpful" in row) == (weight == 0)
        assert all(("helpful" in r.rewards) == (weight > 0) for g in groups for r in g)

    broken = Groups(stop_after=2)
    with pytest.raises(Interrupted):
        run(base, judge, tmp_path / "broken", broken, **changes)
    broken.stop_after = None
    run(base, judge, tmp_path / "broken", broken, **changes)
    assert broken.rows == recorder.rows


def test_a_model_that_nothing_asks_is_not_loaded(base: Path, tmp_path: Path) -> None:
    idle = {name: {**part, "weight": 0.0, "monitor": False} for name, part in PARTS.items()}
    recorder = ListRecorder()
    run(base, tmp_path / "nowhere", tmp_path, recorder, reward={"parts": {"random": 1.0, **idle}})
    assert not any("helpful" in name for row in recorder.rows for name in row)
    later = [{"until": {"step": 1}}, {"set": {"reward.weights.helpful": 1.0}}]
    changes: dict[str, Any] = {"reward": {"parts": {"random": 1.0, **idle}}, "schedule": later}
    with pytest.raises(UserError, match=r"^reward\.parts\.helpful\.source: "):
        run(base, tmp_path / "nowhere", tmp_path / "later", recorder, **changes)


def test_a_model_that_two_parts_name_is_loaded_once_and_read_as_each_says(judge: Path) -> None:
    reward = RewardSettings.model_validate({"parts": PARTS})
    found: dict[str, Any] = dict(score_sources(reward, {"helpful": judge, "safe": judge}, "float32"))
    assert found["helpful"].model is found["safe"].model
    rollout = random_group("a", np.random.default_rng(0)).rollouts[0]
    rollouts = [replace(rollout, text=text) for text in ("<think>3+1=4</think>4", "<think>3+1=5</think>4")]
    answers, wholes = (np.array(found[name](problem("a"), rollouts)) for name in ("helpful", "safe"))
    assert answers[0] == answers[1]
    assert wholes[0] != wholes[1]


@pytest.mark.parametrize("where", ["base", "nowhere"])
def test_what_gives_no_scores_is_refused_by_the_parts_name(where: str, base: Path, tmp_path: Path) -> None:
    reward = RewardSettings.model_validate({"parts": PARTS})
    with pytest.raises(UserError, match=r"^reward\.parts\.helpful\.source: "):
        score_sources(reward, {"helpful": base if where == "base" else tmp_path / where}, "float32")

"""The table of presets compares algorithms only if all else is equal between its rows, and a gain is what it says.

Not exercised here: the runs themselves (minutes each; `benchmarks/presets.py --smoke`).
"""

from __future__ import annotations

import json

import pytest

import presets as script
from r1kit.config.algorithm import AlgorithmSettings
from r1kit.config.load import load_recipe
from r1kit.config.presets import PRESETS
from r1kit.pipeline.catalog import find_recipe


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(find_recipe("tinyzero"))


def test_rows_differ_in_the_algorithm_only(recipe) -> None:
    whole = script.contest(recipe, script.presets(list(PRESETS), 40), 40)
    ours = recipe.stages["rl"]
    for name in PRESETS:
        stage = whole.stages[name]
        assert stage.algorithm.preset == name
        assert stage.dynamic_sampling.enabled == PRESETS[name].replaces_groups
        for setting in (
            "model",
            "problems_per_step",
            "samples_per_problem",
            "sampling",
            "reward",
            "optimizer",
            "decay",
        ):
            assert getattr(stage, setting) == getattr(ours, setting), setting
        assert stage.steps == 40
        assert whole.stages[f"{name}_final"] == recipe.stages["final"].model_copy(update={"model": f"${{{name}}}"})
    assert whole.expect == ()


def test_the_ablation_adds_one_part_after_another(recipe) -> None:
    whole = script.contest(recipe, script.ablation(recipe), 40)
    stages = [s for s in whole.stages.values() if s.kind == "rl"]
    parts = [
        (
            s.dynamic_sampling.truncated == "mask",
            s.algorithm.clip_high == 0.28,
            s.reward.overlong is not None,
            s.algorithm.aggregation == "token_mean",
            s.dynamic_sampling.enabled,
        )
        for s in stages
    ]
    assert parts == [tuple(i < n for i in range(5)) for n in range(6)]
    assert {s.algorithm.kl_coef for s in stages} == {0.0}


def test_a_critic_leaves_at_least_half_of_the_steps_to_the_policy() -> None:
    assert script.miniature("vapo", 8)["critic"]["pretrain_steps"] == 4
    assert script.miniature("vapo", 90) == script.MINIATURE["vapo"]
    assert script.MINIATURE["vapo"]["critic"]["pretrain_steps"] == 10
    assert script.miniature("grpo", 8) == {}


def test_the_gain_and_its_interval_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """10 % [6, 13] to 50 % [46, 58]: 40 points, down by sqrt(4^2 + 3^2) and up by sqrt(8^2 + 4^2)."""
    stages = {
        "base_eval": {"eval": {"pass@1": {"value": 0.10, "low": 0.06, "high": 0.13}}},
        "dapo_final": {"eval": {"pass@1": {"value": 0.50, "low": 0.46, "high": 0.58}, "tokens_mean": 120.0}},
        "dapo": {"cpu_seconds": 61.0},
    }
    row = script.measured(stages, "dapo")
    assert row["gain"] == pytest.approx(0.40)
    assert (row["low"], row["high"]) == (pytest.approx(0.35), pytest.approx(0.40 + (0.08**2 + 0.04**2) ** 0.5))
    script.show({"dapo": [row, {**row, "gain": 0.2}]}, [0, 1])
    lines = capsys.readouterr().out.splitlines()
    assert "+30.0 (+20.0 to +40.0)" in lines[2]
    assert json.loads(lines[-1]) == {"name": "presets", "gains": {"dapo": [0.4, 0.2]}}


def test_the_finding_gives_its_arms_what_the_table_gives_them() -> None:
    """`findings/algorithms` and MINIATURE: two places that say what a preset cannot keep in so few steps."""
    arms = [s.algorithm for s in load_recipe(find_recipe("findings/algorithms")).stages.values() if s.kind == "rl"]
    assert [arm.preset for arm in arms] == ["grpo", "ppo_orz", "prime"]
    for arm in arms:
        assert arm == AlgorithmSettings.model_validate({"preset": arm.preset, **script.miniature(arm.preset, 60)})

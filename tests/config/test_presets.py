"""Presets: what they set, what goes over them, and that the page about them says the same.

Why this matters: a preset that silently loses to a default, or a page that has drifted from the code, gives a result
under another algorithm's name.

Not exercised here: the algorithms (tests/algorithms), their gradients (tests/training/test_presets.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from r1kit.config.algorithm import AlgorithmSettings
from r1kit.config.load import dump_recipe, parse_recipe
from r1kit.config.presets import PRESETS
from r1kit.config.rl import RLSettings

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"


def algorithm(**values: Any) -> AlgorithmSettings:
    return AlgorithmSettings.model_validate(values)


def rl(**values: Any) -> RLSettings:
    return RLSettings.model_validate({"model": "base", **values})


def test_the_page_lists_every_preset_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = {}
    for block in re.findall(r"```yaml\n(\w+: \{.*\})\n```", text):
        told |= yaml.safe_load(block)
    real = {
        name: algorithm(preset=name).model_dump(mode="json", exclude_defaults=True, exclude={"preset"})
        for name in PRESETS
    }
    assert told == real


def test_own_settings_go_over_a_preset_blocks_inside_too() -> None:
    one = algorithm(preset="vapo", clip_high=0.3, critic={"clip": None})
    assert (one.clip_high, one.clip_low) == (0.3, 0.2)
    assert one.critic is not None
    assert (one.critic.clip, one.critic.pretrain_steps) == (None, 50)
    assert algorithm(preset="prime", process=None).process is None


def test_special_cases_are_expressed_as_such() -> None:
    """GRPO is DAPO with one clip, a mean over responses and its KL; ProRL is DAPO with a KL."""
    dapo = algorithm(preset="dapo").model_dump(exclude={"preset"})
    grpo = algorithm(preset="grpo").model_dump(exclude={"preset"})
    differs = {name for name in dapo if dapo[name] != grpo[name]}
    assert differs == {"clip_high", "dual_clip", "aggregation", "kl_coef"}


def test_a_preset_says_whether_groups_are_replaced_and_the_stage_may_say_otherwise() -> None:
    assert rl(algorithm={"preset": "dapo"}).dynamic_sampling.enabled
    assert not rl(algorithm={"preset": "grpo"}).dynamic_sampling.enabled
    assert rl(algorithm={"preset": "grpo"}, dynamic_sampling={"enabled": True}).dynamic_sampling.enabled
    assert rl().dynamic_sampling.enabled


RECIPE = """
name: x
task: countdown
stages:
  rl:
    kind: rl
    model: base
    algorithm: {preset: %s}
"""


@pytest.mark.parametrize("name", PRESETS)
def test_a_resolved_recipe_reads_back_as_it_was(name: str) -> None:
    recipe = parse_recipe(RECIPE % name, "recipe.yaml")
    assert parse_recipe(dump_recipe(recipe), "resolved.yaml") == recipe
    stage = recipe.stages["rl"]
    assert isinstance(stage, RLSettings)
    told = yaml.safe_load(re.sub(r"^algorithm \(.*?\): ", "", stage.algorithm.described()))
    assert algorithm(**told) == stage.algorithm
    assert PRESETS[name].source in stage.algorithm.described()


def test_a_mistyped_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(Exception, match=r"recipe.yaml:8: .*algorithm.preset is 'dappo'.*did you mean \"dapo\""):
        parse_recipe(RECIPE % "dappo", "recipe.yaml")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"algorithm": "dapo"}, r"\{preset: dapo\}"),
        ({"algorithm": {"critic": {}}}, "baseline is group"),
        ({"algorithm": {"gae_alpha": 0.05}}, "gae_alpha is set but baseline is group"),
        ({"algorithm": {"preset": "ppo_orz", "critic": {"trunk": "shared"}}}, "the policy's own steps"),
        ({"algorithm": {"preset": "dapo", "objective": "cispo"}}, "set dual_clip: null"),
        ({"algorithm": {"baseline": "critic", "advantage": "std"}}, "use whiten or none"),
        ({"algorithm": {"process": {}}}, "baseline: leave_one_out"),
        ({"algorithm": {"per_reward": True, "baseline": "none", "advantage": "none"}}, "per_reward"),
        ({"algorithm": {"preset": "gspo", "entropy": {"top_share": 0.2}}}, "whole responses"),
        ({"algorithm": {"group_filter": {"kind": "gfpo", "keep": 8}}}, "keep fewer"),
        ({"algorithm": {"preset": "vapo"}, "steps": 50}, "never be trained"),
        (
            {"algorithm": {"preset": "ppo_orz"}, "samples_per_problem": 1, "dynamic_sampling": {"enabled": True}},
            "group of one",
        ),
        ({"algorithm": {"preset": "grpo"}, "samples_per_problem": 1}, "at least 2"),
        ({"lora": {"rank": 4}, "recompute": True}, "not on adapters"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        rl(**values)

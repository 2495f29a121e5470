"""Settings of an sft stage: presets that fill, and refusals of what cannot work.

Why this matters: a preset that silently loses against a default is not the paper's recipe.

Not exercised here: what the settings do (tests/training/test_supervised.py).
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from r1kit.config import dump_recipe, parse_recipe
from r1kit.config.errors import ConfigError
from r1kit.config.supervised import PRESETS, SFTSettings


def settings(**changes: Any) -> SFTSettings:
    return SFTSettings.model_validate({"model": "base", "data": [{"path": "rows.jsonl"}], **changes})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole_and_says_what_it_says(name: str) -> None:
    made = settings(preset=name).model_dump(mode="json")
    for key, value in PRESETS[name].items():
        if isinstance(value, dict):
            assert {k: made[key][k] for k in value} == value
        else:
            assert made[key] == value
    assert made["token_budget"] >= made["max_tokens"]


def test_the_recipe_goes_over_its_preset_block_by_block() -> None:
    made = settings(preset="s1", epochs=2, optimizer={"lr": 3e-5})
    assert (made.epochs, made.batch_size, made.thinking) == (2, 16, "s1")
    assert (made.optimizer.lr, made.optimizer.weight_decay, made.optimizer.betas) == (3e-5, 1e-4, (0.9, 0.95))
    light = settings(preset="light_r1_stage1", evaluate={"problems": 30}).evaluate
    assert (light.problems, light.samples, light.max_tokens) == (30, 4, 20000)
    assert settings(preset="light_r1_stage1", evaluate={"max_tokens": 64}).evaluate.max_tokens == 64


def test_another_optimiser_takes_nothing_of_the_presets() -> None:
    made = settings(preset="s1", optimizer={"name": "muon", "lr": 0.02, "adam_lr": 3e-3})
    assert (made.optimizer.weight_decay, made.optimizer.betas) == (0.0, (0.9, 0.99))


def test_r1s_rate_goes_by_the_size_of_the_student() -> None:
    rates = {n.removeprefix("r1_distill_"): settings(preset=n).optimizer.lr for n in PRESETS if n.startswith("r1_dis")}
    assert rates == {
        "qwen_1.5b": 1e-4,
        "qwen_7b": 8e-5,
        "qwen_14b": 7e-5,
        "qwen_32b": 6e-5,
        "llama_8b": 5e-5,
        "llama_70b": 2e-5,
    }


def test_delimiters_become_tokens_where_the_published_students_have_them_as_tokens() -> None:
    made = {name for name in PRESETS if settings(preset=name).delimiters == "tokens"}
    assert made == {name for name in PRESETS if name.startswith("r1_distill_")}
    assert settings(preset="r1_distill_qwen_7b", delimiters="as_is").delimiters == "as_is"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "preset": ({"preset": "s2"}, r"preset is 's2' \(did you mean \"s1\"\?\)"),
    "no data": ({"data": []}, "at least 1 item"),
    "budget": ({"max_tokens": 500, "token_budget": 400}, "smaller than one sequence of max_tokens 500"),
    "warm-up twice": ({"warmup_steps": 3, "warmup_share": 0.1}, "set one of them"),
    "nothing learned": ({"thought_weight": 0, "answer_weight": 0}, "nothing would be learned"),
    "select loss": ({"select": "loss"}, "nothing is held out"),
    "patience": ({"patience": 2}, "set select"),
    "epochs of a set": ({"data": [{"path": "a.jsonl", "epochs": 2}]}, "only with order: in_turn"),
    "lora": ({"lora": {}, "add_tokens": ["<x>"]}, "would never be learned"),
    "tokens of nothing": ({"thinking": "drop", "delimiters": "tokens"}, "set delimiters: as_is"),
    "tokens of a preset": ({"thinking": "drop", "preset": "r1_distill_qwen_7b"}, "set delimiters: as_is"),
    "path": ({"data": [{"path": " "}]}, "path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


RECIPE = """
name: two stages
task: countdown
stages:
  base: {kind: pretrain}
  one: {kind: sft, model: "${base}", data: [{path: rows.jsonl}]}
  two: {kind: sft, preset: light_r1_stage2, model: "${one}", data: [{path: more.jsonl}]}
"""


def test_a_recipe_joins_stages_and_survives_being_written_out() -> None:
    recipe = parse_recipe(RECIPE, "recipe.yaml")
    assert parse_recipe(dump_recipe(recipe), "written.yaml") == recipe


def test_data_of_a_stage_that_makes_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"two.data\[0\].path is \$\{one\}, a stage of kind sft, which makes no data"):
        parse_recipe(RECIPE.replace("path: more.jsonl", 'path: "${one}"'), "recipe.yaml")

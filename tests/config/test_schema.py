"""Why this matters: impossible settings must be refused before a run, in words that say what to change.

Not exercised: memory (pipeline/plan) and the task's own limits (tasks/).
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from r1kit.config import (
    ConfigError,
    CorpusSettings,
    CountdownSettings,
    ModelSettings,
    MultiplicationSettings,
    OptimizerSettings,
    PretrainSettings,
    Recipe,
    RLSettings,
    parse_recipe,
    resolve,
    resolve_dtype,
    resolve_processes,
)

ADAM = {"name": "adamw", "lr": 1e-3}


def refusal(kind: type[Any], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"samples_per_problem": 1}, "at least 2 are needed"),
        ({"problems": 8}, "lower problems_per_step to 8"),
        ({"token_budget": 240}, "smaller than one sequence"),
        ({"warmup_steps": 9, "steps": 8}, "would never reach lr"),
        ({"sampling": {"temperature": 0}}, "all samples of a group would be one"),
        ({"reward": {"overlong": {"buffer": 500}}}, "longer than the cap"),
        ({"reward": {"weights": {"acuracy": 1}}}, "expected one of accuracy, format, overlong"),
        ({"algorithm": {"minibatches": 1000}}, "lower minibatches"),
        ({"algorithm": {"kl_coef": 0.1, "kl_estimator": "k1"}}, "gradient as a loss is only noise"),
        ({"algorithm": {"reference_refresh": 50}}, "no reference to refresh; set algorithm.kl_coef"),
        ({"algorithm": {"preset": "prorl", "kl_coef": 0, "reference_refresh": 50}}, "no reference to refresh"),
        ({"dynamic_sampling": {"max_factor": 0.5}}, "greater than or equal to 1"),
        # REINFORCE has no ratio: whatever an older policy sampled would bias it.
        ({"algorithm": {"objective": "reinforce", "minibatches": 2}}, "a silent bias; set minibatches: 1"),
        ({"algorithm": {"objective": "reinforce"}}, "set dynamic_sampling.carry: false"),
        (
            {"algorithm": {"preset": "rloo"}, "dynamic_sampling": {"when_short": "wait"}},
            "groups carried from earlier steps",
        ),
        (
            {
                "algorithm": {"objective": "reinforce"},
                "mismatch": {"correction": "geometric_mask"},
            },  # weights of 0 and 1
            "weight them with mismatch.correction: token_tis",
        ),
    ],
)
def test_impossible_rl_settings(values: dict[str, Any], part: str) -> None:
    assert part in refusal(RLSettings, model="${base}", **values)


def test_a_refresh_without_a_kl_is_refused_in_a_recipe() -> None:
    """Where a phase without a KL is no fault, and a stage without one is."""
    text = "name: x\ntask: countdown\nstages:\n  rl: {kind: rl, model: base, algorithm: {reference_refresh: 20}%s}\n"
    later = ", schedule: [{until: {step: 9}}, {set: {algorithm.kl_coef: %s}}]"
    assert parse_recipe(text % (later % 0.1), "recipe.yaml").name == "x"
    for wrong in ("", later % 0.0):
        with pytest.raises(ConfigError, match=r"stages\.rl: algorithm\.reference_refresh is 20, but kl_coef is 0"):
            parse_recipe(text % wrong, "recipe.yaml")


@pytest.mark.parametrize(
    "values",
    [
        {"algorithm": {"preset": "rloo"}},
        {"algorithm": {"objective": "reinforce"}, "dynamic_sampling": {"carry": False}},
        {"algorithm": {"objective": "reinforce"}, "mismatch": {"correction": "token_tis"}},
        {"algorithm": {"objective": "cispo", "minibatches": 4}},
        # A preset without its KL, and a KL that a later phase brings.
        {"algorithm": {"preset": "prorl", "kl_coef": 0.0}},
        {
            "algorithm": {"reference_refresh": 20},
            "schedule": [{"until": {"step": 9}}, {"set": {"algorithm.kl_coef": 0.1}}],
        },
    ],
)
def test_reinforce_on_policy_or_weighted_is_accepted(values: dict[str, Any]) -> None:
    assert RLSettings(model="${base}", **values).steps == 75


def test_pretrain_budget_must_hold_one_sequence() -> None:
    message = refusal(PretrainSettings, token_budget=100)
    assert "token_budget is 100, smaller than one sequence of document_length 256" in message


def test_documents_hold_something_to_predict() -> None:
    assert "greater than or equal to 16" in refusal(PretrainSettings, document_length=1)


def test_pretrain_steps_round_up() -> None:
    assert PretrainSettings(tokens=2049, tokens_per_step=1024, warmup_steps=0).steps == 3


def test_optimizer_rates_go_with_the_name() -> None:
    assert "muon needs it" in refusal(OptimizerSettings, name="muon", lr=0.02)
    assert "only muon reads it" in refusal(OptimizerSettings, adam_lr=1e-3, **ADAM)


def test_heads_must_divide() -> None:
    assert "expected a multiple of kv_heads" in refusal(ModelSettings, heads=3, kv_heads=2)


def test_corpus_shares_stay_shares() -> None:
    assert "add to more than 1" in refusal(CorpusSettings, well_formed=0.9, missing_think_end=0.2)
    assert "fewest <= most" in refusal(CorpusSettings, fact_lines=[5, 2])


def test_countdown_ranges() -> None:
    assert "3 <= fewest <= most <= 6" in refusal(CountdownSettings, numbers=[2, 3])
    assert "raise max_value" in refusal(CountdownSettings, high=200)


def test_products_of_one_digit_are_too_few() -> None:
    assert "raise one of them" in refusal(MultiplicationSettings, digits_a=1)


def test_expectations_are_checked_early() -> None:
    base = {"name": "x", "task": "countdown", "stages": {"base": {"kind": "pretrain"}}}
    assert "no stage 'final'" in refusal(Recipe, **base, expect=["final.pass@1 >= 0.4"])
    assert '"stage.metric >= number"' in refusal(Recipe, **base, expect=["base.loss about 1"])


def test_stage_names_do_not_hide_settings_of_the_recipe() -> None:
    stages = {"task": {"kind": "pretrain"}}
    assert "choose another name" in refusal(Recipe, name="x", task="countdown", stages=stages)


def test_auto_is_resolved() -> None:
    recipe = Recipe(name="x", task="countdown", stages={"base": {"kind": "pretrain"}})
    resolved = resolve(recipe)
    assert resolved.dtype == "float32"
    assert resolved.processes in (1, 2)
    assert (resolve_dtype("bfloat16"), resolve_processes(5)) == ("bfloat16", 5)
    with pytest.raises(ConfigError, match="dtype is 'half': expected one of auto, float32, bfloat16"):
        resolve_dtype("half")


def test_settings_import_no_torch() -> None:
    probe = "import sys, r1kit.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0

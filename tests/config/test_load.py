"""Why this matters: a misspelt or misread setting that passes silently costs a night of computing.

Covers YAML reading, overrides, variants and what the errors say. Not exercised: what the settings do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config import ConfigError, Recipe, dump_recipe, load_recipe, parse_recipe, stage_inputs, stage_order
from r1kit.config.schema import STAGE_KINDS
from r1kit.config.yaml_source import read_yaml

RECIPE = """\
name: small
task: countdown
stages:
  base:
    kind: pretrain
    tokens: 4096
    warmup_steps: 1
  rl:
    kind: rl
    model: ${base}
    steps: 6
    warmup_steps: 1
    optimizer: {lr: 1e-5}
  final:
    kind: evaluate
    model: ${rl}
expect:
  - final.pass@1 >= 0.45
variants:
  scale:
    smoke: {rl.steps: 2, base.tokens: 2048, base.warmup_steps: 0}
  task:
    multiplication: {task.digits_a: 3, rl.steps: 7}
"""


def load(*overrides: str, text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "small.yaml", overrides)


def refusal(*overrides: str, text: str = RECIPE) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides, text=text)
    return str(caught.value)


def test_exponent_without_point_is_a_number() -> None:
    assert load().stages["rl"].optimizer.lr == 1e-5
    assert load("rl.optimizer.lr=3e-4").stages["rl"].optimizer.lr == 3e-4


def test_bare_task_name_gets_its_defaults() -> None:
    assert load().task.numbers == (3, 3)


def test_resolved_recipe_reads_back_equal() -> None:
    recipe = load("rl.steps=9")
    assert parse_recipe(dump_recipe(recipe), "dump") == recipe


def test_unknown_key_names_file_line_and_neighbour() -> None:
    message = refusal(text=RECIPE.replace("steps: 6", "stpes: 6"))
    assert message.startswith("small.yaml:11: stages.rl has no setting 'stpes' (did you mean \"steps\"?)")


def test_unknown_key_deep_inside() -> None:
    message = refusal(text=RECIPE.replace("{lr: 1e-5}", "{lrr: 1e-5}"))
    assert message.startswith("small.yaml:13: stages.rl.optimizer has no setting 'lrr' (did you mean \"lr\"?)")


def test_duplicate_key_is_refused_with_both_lines() -> None:
    message = refusal(text=RECIPE.replace("    steps: 6\n", "    steps: 6\n    steps: 7\n"))
    assert message.startswith("small.yaml:12: key 'steps' is written twice (first at small.yaml:11)")


def test_broken_yaml_names_the_line() -> None:
    assert refusal(text="name: x\n  task: [").startswith("small.yaml:2: not valid YAML")


def test_all_errors_at_once() -> None:
    message = refusal("rl.stepz=1", "base.tokenz=2")
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("key", ["rl.steps", "stages.rl.steps"])
def test_override_by_stage_name_or_full_path(key: str) -> None:
    assert load(f"{key}=10").stages["rl"].steps == 10


def test_override_of_a_list_and_of_a_nested_default() -> None:
    recipe = load("task.numbers=[3,4]", "rl.reward.overlong.buffer=20")
    assert recipe.task.numbers == (3, 4)
    assert recipe.stages["rl"].reward.overlong.buffer == 20


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("rll.steps=1", 'did you mean "rl"?'),
        ("stages.rll.steps=1", 'did you mean "rl"?'),
        ("scale=smke", 'did you mean "smoke"?'),
        ("task=countdwn", 'did you mean "countdown"?'),
        ("rl.kind=rll", f"expected one of {', '.join(STAGE_KINDS)}"),
        ("rl.algorithm.advantage=stdd", 'did you mean "std"?'),
        ("rl.steps.more=1", "stages.rl.steps is 6"),
        ("rl.steps", "expected KEY=VALUE"),
        ("rl.steps=yes", "found True: expected a number"),
        ("rl.steps=many", "stages.rl.steps is 'many': expected a valid integer"),
        ("rl.steps=0", "stages.rl.steps is 0: expected greater than or equal to 1"),
        ("base.corpus.honest=1.5", "stages.base.corpus.honest is 1.5"),
    ],
)
def test_bad_override_says_what_to_do(override: str, part: str) -> None:
    message = refusal(override)
    assert part in message
    assert "--set" in message


def test_variants_come_before_explicit_overrides() -> None:
    recipe = load("rl.steps=5", "scale=smoke")
    assert (recipe.stages["rl"].steps, recipe.stages["base"].tokens) == (5, 2048)


def test_task_variant_replaces_the_task() -> None:
    recipe = load("task=multiplication", "scale=smoke")
    assert (recipe.task.name, recipe.task.digits_a, recipe.stages["rl"].steps) == ("multiplication", 3, 2)


def test_task_without_variant_is_still_a_task() -> None:
    text = RECIPE[: RECIPE.index("variants:")]
    assert load("task=multiplication", text=text).task.name == "multiplication"


def test_variants_of_the_wrong_shape() -> None:
    assert "expected group -> variant" in refusal(text=RECIPE.replace("scale:\n    smoke: {", "scale: {"))


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["rl.model=${bse}"], 'no such stage (did you mean "base"?)'),
        (["rl.model=${final}", "final.model=${rl}"], "of kind evaluate, which makes no model"),
        (["rl.model=${rl}"], "rl -> rl is a cycle"),
    ],
)
def test_edges_are_checked(overrides: list[str], part: str) -> None:
    assert part in refusal(*overrides)


JUDGED = RECIPE.replace("steps: 6", "reward: {parts: {helpful: {part: reward_model, source: '${judge}'}}}").replace(
    "expect:",
    "  judge: {kind: reward_model, method: pairwise, model: '${base}', data: [{path: pairs.jsonl}]}\nexpect:",
)


def test_a_reward_model_that_pays_comes_before_what_it_pays() -> None:
    recipe = load(text=JUDGED)
    assert stage_inputs(recipe.stages["rl"]) == {"model": "base", "reward.parts.helpful.source": "judge"}
    assert stage_order(recipe) == ["base", "judge", "rl", "final"]


def test_a_model_that_only_scores_is_no_policy() -> None:
    """The run would find out after it has trained the judge. An implicit one is a language model."""
    text = JUDGED.replace("source: '${judge}'", "source: somewhere")
    assert "a reward model, which cannot write text" in refusal("rl.model=${judge}", text=text)
    assert load("rl.model=${judge}", text=text.replace("pairwise", "implicit")).stages["rl"].model == "${judge}"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("${base}", "of kind pretrain, which makes no reward model: name a stage of kind reward_model"),
        ("${juge}", 'no such stage (did you mean "judge"?)'),
    ],
)
def test_a_source_of_scores_is_a_reward_model(source: str, part: str) -> None:
    message = refusal(text=JUDGED.replace("source: '${judge}'", f"source: '{source}'"))
    assert part in message
    assert message.startswith("small.yaml:11: stages.rl.reward.parts.helpful.source is ${")


def test_stages_run_after_their_inputs() -> None:
    text = RECIPE.replace("model: ${base}", "model: ${later}").replace(
        "expect:", "  later:\n    kind: pretrain\nexpect:"
    )
    assert stage_order(load(text=text)) == ["base", "later", "rl", "final"]


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_recipe(Path("nowhere.yaml"))


def test_key_that_yaml_takes_for_a_truth_value() -> None:
    assert "key 'no': expected a plain name (quote it" in refusal(text=RECIPE + "no: 1\n")


def test_alias_that_contains_itself() -> None:
    assert "contains itself" in refusal(text="name: &a [*a]\n")


def test_merged_keys_go_below_the_mapping_s_own() -> None:
    text = """list:
- &a {p: 1, q: {r: 2, s: 3}}
- &b {p: 4, t: 5}
both: {p: 6, <<: [*a, *b]}
last: {<<: *a, q: {r: 7}}
"""
    source = read_yaml(text, "here.yaml")
    assert source.data["both"] == {"p": 6, "q": {"r": 2, "s": 3}, "t": 5}
    assert source.data["last"] == {"p": 1, "q": {"r": 7}}
    assert source.origins[("both", "q", "r")] == "here.yaml:2"
    assert source.origins[("last", "q", "r")] == "here.yaml:5"
    assert ("last", "q", "s") not in source.origins


def test_a_merge_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"here.yaml:1: << takes a mapping named before"):
        read_yaml("{<<: 3}", "here.yaml")

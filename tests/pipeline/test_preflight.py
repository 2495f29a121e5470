"""Why this matters: an impossible recipe must be told before hours are spent, and a possible one not refused.

Not exercised: whether the memory estimate is close; it is only held to the right direction.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config import Recipe, UserError, load_recipe, parse_recipe, resolve
from r1kit.pipeline.catalog import copy_recipe, find_recipe, recipe_names
from r1kit.pipeline.plan import Shape, plan_stages
from r1kit.pipeline.preflight import preflight, refuse_unsound

SMALL = """\
name: small
task: {name: countdown, high: 6}
processes: 1
stages:
  base: {kind: pretrain, tokens: 4096, warmup_steps: 0}
  rl: {kind: rl, model: "${base}", warmup_steps: 0}
"""


def small(*overrides: str) -> Recipe:
    return resolve(parse_recipe(SMALL, "small.yaml", overrides))


def failed(recipe: Recipe) -> dict[str, str]:
    return {check.name: check.found for check in preflight(recipe) if not check.ok}


def test_a_sound_recipe_passes() -> None:
    assert failed(small()) == {}


@pytest.mark.parametrize("template", ["tinyzero", "r1_zero", "chat"])
def test_every_template_lets_a_right_answer_score(template: str) -> None:
    recipe = small(f"task.template={template}", "rl.token_budget=100000", "rl.reward.kind=r1_zero")
    assert "rl: a right response can score full marks" not in failed(recipe)


def test_a_reward_that_cannot_be_earned_is_found() -> None:
    found = failed(small("rl.reward.weights.accuracy=0", "rl.reward.weights.format=0"))
    assert "a right response earns 0" in found["rl: a right response can score full marks"]


FULL_MARKS = "rl: a right response can score full marks"


@pytest.mark.parametrize("kind", ["tinyzero", "r1_zero", "simplerl", "dapo", "open_r1", "kimi", "r1"])
def test_published_rewards_pay_a_right_response_most(kind: str) -> None:
    assert FULL_MARKS not in failed(small(f"rl.reward.kind={kind}"))


@pytest.mark.parametrize("kind", ["random", "inverted"])
def test_controls_are_no_mistake(kind: str) -> None:
    found = {check.name: check for check in preflight(small(f"rl.reward.kind={kind}"))}[FULL_MARKS]
    assert found.ok
    assert found.found == f"not looked at: {kind} does not go by right and wrong"


def test_every_phase_of_a_reward_is_looked_at() -> None:
    phases = "rl.reward.parts={accuracy: {to_step: 5}, format: {from_step: 6, weight: 0}}"
    assert "earns 0, an empty one 0" in failed(small(phases))[FULL_MARKS]


def test_a_verdict_that_the_task_does_not_give_is_named() -> None:
    found = failed(small("rl.reward.parts={accuracy: {verdict: tests}}"))[FULL_MARKS]
    assert "the reward reads tests" in found
    assert "it gives accuracy, format" in found


def test_a_function_that_cannot_be_loaded_is_told_before_the_run() -> None:
    with pytest.raises(UserError, match=r"there is no file nowhere\.py"):
        failed(small("rl.reward.parts={mine: {function: 'nowhere.py:f'}}"))


def test_a_function_that_fails_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(problem, rollout): return rollout.lenght\n")
    found = failed(small(f"rl.reward.parts={{accuracy: 1, mine: {{function: '{tmp_path}/mine.py:f'}}}}"))
    assert found[FULL_MARKS].startswith("mine gives no value for the right response")


def test_a_cap_too_short_for_any_answer_is_found() -> None:
    assert "cap 8" in failed(small("rl.sampling.max_tokens=8"))["rl: lengths"]


def test_prompt_and_cap_beyond_the_budget_are_found() -> None:
    assert "rl: lengths" in failed(small("rl.token_budget=241"))


def test_a_run_refuses_what_cannot_work() -> None:
    with pytest.raises(UserError, match="rl: lengths: "):
        refuse_unsound(small("rl.sampling.max_tokens=8"))


def test_too_little_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.pipeline.preflight.memory_bytes", lambda: 1 << 28)
    assert "lower token_budget, slots or processes" in failed(small())["memory"]


def test_a_missing_base_model_is_found() -> None:
    assert "no checkpoint directory (no config.json)" in failed(small("rl.model=models/none"))["rl: model"]


def test_plan_grows_with_what_it_should() -> None:
    def memory(*overrides: str) -> int:
        return plan_stages(small(*overrides))[1].memory_bytes

    assert memory("rl.token_budget=80000") > memory()
    assert memory("rl.engine.slots=1024") > memory()
    assert memory("rl.algorithm.kl_coef=0.1") > memory()
    assert memory("processes=2") == 2 * memory()


def test_parameters_of_a_known_shape() -> None:
    # Qwen2.5-0.5B: 494,032,768 parameters, of which biases and norms (about 71 thousand) are not counted
    # here.
    shape = Shape(151936, 896, 24, 14, 2, 64, 4864, tied=True)
    assert shape.parameters == pytest.approx(494_032_768, rel=2e-4)


def test_packaged_recipes_load_and_are_named() -> None:
    assert "tinyzero" in recipe_names()
    for name in recipe_names():
        assert load_recipe(find_recipe(name)).description


@pytest.mark.parametrize(
    "overrides", [["scale=smoke"], ["task=multiplication"], ["task=multiplication", "scale=smoke"]]
)
def test_variants_of_the_quick_start_are_sound(overrides: list[str]) -> None:
    assert failed(resolve(load_recipe(find_recipe("tinyzero"), overrides))) == {}


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match='did you mean "tinyzero"'):
        find_recipe("tinyzer")


def test_copy_never_overwrites(tmp_path: Path) -> None:
    copied = copy_recipe("tinyzero", tmp_path)
    assert load_recipe(copied).name == "tinyzero"
    with pytest.raises(UserError, match="choose another destination"):
        copy_recipe("tinyzero", tmp_path)

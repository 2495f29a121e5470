"""Why this matters: an impossible recipe must be told before hours are spent, and a possible one not refused.

Not exercised: whether the memory estimate is close; it is only held to the right direction.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.training.helpers import tiny_model

from r1kit.config import ConfigError, ModelSettings, Recipe, UserError, load_recipe, parse_recipe, resolve
from r1kit.models.heads import ValueModel
from r1kit.models.loading import write_model
from r1kit.models.reward_model import RewardModelSpec, write_reward_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.catalog import copy_recipe, find_recipe, recipe_names
from r1kit.pipeline.memory import Shape
from r1kit.pipeline.plan import plan_stages
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
    found = failed(small("rl.reward={parts: {accuracy: {right: 0}}}"))
    assert "a right response earns 0" in found["rl: a right response can score full marks"]
    # Where nothing is paid at all the recipe itself is refused.
    with pytest.raises(ConfigError, match="reward has no part that is paid in step 1"):
        small("rl.reward.weights.accuracy=0", "rl.reward.weights.format=0")


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
    phases = "rl.reward.parts={accuracy: {to_step: 5}, later: {part: accuracy, from_step: 6, right: 0}}"
    assert "earns 0, an empty one 0" in failed(small(phases))[FULL_MARKS]


def test_a_reward_model_is_looked_at_before_it_is_trained_and_where_it_lies(tmp_path: Path) -> None:
    """Whether it scores at all; what it scores is no rule. Its weights are part of the memory plan."""
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Q", "chosen": "A", "rejected": "B"}\n')
    stage = f"{{kind: reward_model, method: pairwise, model: '${{base}}', data: [{{path: {tmp_path}/pairs.jsonl}}]}}"
    part = "rl.reward.parts.helpful={part: reward_model, source: '%s'}"

    def judged(source: str) -> Recipe:
        text = SMALL + f"  judge: {stage}\n"
        return resolve(parse_recipe(text, "small.yaml", ["rl.reward.kind=r1_zero", part % source]))

    assert failed(judged("${judge}")) == {}
    for folder, model in (("scores", ValueModel(tiny_model(vocab_size=90))), ("writes", tiny_model(vocab_size=90))):
        tokenizer = build_tiny_tokenizer()
        if isinstance(model, ValueModel):
            write_reward_model(model, tokenizer, tmp_path / folder, RewardModelSpec("pairwise"))
        else:
            write_model(model, tokenizer, tmp_path / folder)
    place = "rl: reward.parts.helpful.source"
    found = {check.name: check for check in preflight(judged(f"{tmp_path}/scores"))}[place]
    assert found.ok
    assert "a reward model (pairwise)" in found.found
    assert "gives no scores" in failed(judged(f"{tmp_path}/writes"))[place]
    assert "no checkpoint directory" in failed(judged("helpful"))[place]
    plain, with_judge = (
        {plan.name: plan.memory_bytes for plan in plan_stages(recipe)}["rl"] for recipe in (small(), judged("${judge}"))
    )
    assert with_judge > plain


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


def test_a_second_verifier_is_tried_before_the_run(tmp_path: Path) -> None:
    file, check = tmp_path / "second.py", "rl: evaluate.verifier"
    file.write_text("def right(problem, text): return True\ndef wrong(problem, text): return text.no\n")
    found = {
        name: failed(small(f"rl.evaluate={{every: 2, verifier: '{file}:{name}'}}")) for name in ("right", "wrong", "x")
    }
    assert check not in found["right"]
    assert "fails on a right response" in found["wrong"][check]
    assert "has no function 'x'" in found["x"][check]


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


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A checkpoint that no stage makes: 80 positions, no chat template."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = None
    shape = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=32)
    write_model(make_tiny(shape, tokenizer, seed=0, max_positions=80), tokenizer, tmp_path / "model")
    return tmp_path / "model"


def without_base(model: Path, *overrides: str) -> Recipe:
    text = SMALL.replace("  base: {kind: pretrain, tokens: 4096, warmup_steps: 0}\n", "").replace("${base}", str(model))
    text += f"  final: {{kind: evaluate, model: '{model}', max_tokens: 60}}\n"
    return resolve(parse_recipe(text, "small.yaml", ("rl.sampling.max_tokens=60", *overrides)))


def test_lengths_are_held_to_the_model_of_each_stage(external: Path) -> None:
    assert failed(without_base(external)) == {}
    found = failed(
        without_base(
            external,
            "rl.sampling.max_tokens=71",
            "final.max_tokens=72",
            "rl.evaluate.max_tokens=73",
            "rl.evaluate.every=1",
        )
    )
    assert set(found) == {"rl: lengths", "rl.evaluate: lengths", "final: lengths"}
    assert "over the 80 positions the model knows: lower the cap" in found["final: lengths"]
    assert "rl: lengths" in failed(without_base(external, "rl.token_budget=64"))


def test_lengths_use_the_models_own_tokenizer(external: Path) -> None:
    """The published template is over 400 characters, each a token or more of this tokenizer."""
    assert "rl: lengths" in failed(without_base(external, "task.template=tinyzero", "rl.token_budget=80"))


def test_a_chat_prompt_needs_a_chat_template(external: Path) -> None:
    found = failed(without_base(external, "task.template=chat"))
    assert "no chat template" in found[f"prompts and tokenizer of {external}"]


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("tokenizer.json", "{", "cannot be read"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "holds no object"),
    ],
)
def test_a_damaged_file_of_a_model_is_named(external: Path, file: str, content: str, part: str) -> None:
    (external / file).write_text(content)
    assert part in failed(without_base(external))[f"prompts and tokenizer of {external}"]


def test_sizes_under_other_names_leave_the_memory_unknown(external: Path) -> None:
    raw = json.loads((external / "config.json").read_text())
    raw["n_layer"] = raw.pop("num_hidden_layers")
    (external / "config.json").write_text(json.dumps(raw))
    assert Shape.of_directory(external) is None


def test_a_tiny_base_has_an_end_too() -> None:
    found = failed(small("rl.sampling.max_tokens=5000", "base.document_length=5000", "base.token_budget=5000"))
    assert set(found) == {"base: lengths", "rl: lengths"}


def test_a_step_larger_than_the_task_is_found() -> None:
    found = failed(small("rl.problems_per_step=20", "task.train_problems=10"))
    assert "problems_per_step is 20, but the task has 10 training problems" in found["rl: problems"]
    # Drawn tasks are looked at through a sample; a large step must not be refused for that.
    many = ("rl.problems_per_step=5000", "task.high=99", "task.train_problems=6000", "rl.algorithm.minibatches=1")
    assert "rl: problems" not in failed(small(*many))


@pytest.mark.parametrize("override", ["task.high=1", "task.test_share=0.999"])
def test_an_empty_split_is_one_failed_check(override: str) -> None:
    assert "one side is empty" in failed(small(override))["train and held-out are disjoint"]


def test_a_tracker_that_is_not_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "wandb is not installed" in failed(small("track.wandb=true"))["track.wandb"]


def test_plan_grows_with_what_it_should() -> None:
    def memory(*overrides: str) -> int:
        return plan_stages(small(*overrides))[1].memory_bytes

    assert memory("rl.token_budget=80000") > memory()
    assert memory("rl.engine.slots=1024") > memory()
    assert memory("rl.algorithm.kl_coef=0.1") > memory()
    assert memory("processes=2") == 2 * memory()


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

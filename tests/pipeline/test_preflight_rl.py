"""Why this matters: a penalty of the wrong sign, a tag no training ever touched, a response that cannot end: each
costs a whole run, and each can be seen in a second.

Not exercised: real checkpoints (bases with untrained tags are tens of gigabytes).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1kit.algorithms import implicit_prm
from r1kit.config import ModelSettings, Recipe, parse_recipe, resolve
from r1kit.config.presets import PRESETS
from r1kit.config.rl import RLSettings
from r1kit.models.checkpoint import INDEX
from r1kit.models.loading import write_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.plan import plan_stages
from r1kit.pipeline.preflight import preflight
from r1kit.pipeline.preflight_signs import sign_checks
from r1kit.training import credit, critic, objective, update

SMALL = """\
name: small
task: {name: countdown, high: 6}
processes: 1
stages:
  base: {kind: pretrain, tokens: 4096, warmup_steps: 0}
  rl: {kind: rl, model: "${base}", warmup_steps: 0, steps: 40}
"""


def small(*overrides: str) -> Recipe:
    return resolve(parse_recipe(SMALL, "small.yaml", overrides))


def failed(recipe: Recipe) -> dict[str, str]:
    return {check.name: check.found for check in preflight(recipe) if not check.ok}


def rl(**changes: Any) -> RLSettings:
    return RLSettings.model_validate({"model": "base", **changes})


# -- signs


@pytest.mark.parametrize("preset", PRESETS)
def test_one_step_of_every_preset_moves_the_policy_as_it_should(preset: str) -> None:
    algorithm = {"preset": preset, "entropy": {"coef": 0.001}}
    found = {name: (ok, text) for name, ok, text in sign_checks("rl", rl(algorithm=algorithm))}
    assert all(ok for ok, _ in found.values()), found
    assert ("rl: sign of the KL penalty" in found) == bool(PRESETS[preset].algorithm.get("kl_coef"))


def test_a_kl_of_the_wrong_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = objective.kl_estimate
    monkeypatch.setattr(objective, "kl_estimate", lambda *args: -right(*args))
    found = {name: ok for name, ok, _ in sign_checks("rl", rl(algorithm={"kl_coef": 0.01}))}
    assert found == {"rl: sign of the reward": True, "rl: sign of the KL penalty": False}


def test_a_kl_of_the_wrong_sign_in_the_reward_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = update.kl_estimate
    monkeypatch.setattr(update, "kl_estimate", lambda *args: -right(*args))
    found = {name: ok for name, ok, _ in sign_checks("rl", rl(algorithm={"preset": "rloo"}))}
    assert not found["rl: sign of the KL penalty"]


def test_an_advantage_of_the_wrong_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = objective.policy_loss
    monkeypatch.setattr(objective, "policy_loss", lambda *args, **named: (-(r := right(*args, **named))[0], r[1]))
    assert [ok for _, ok, _ in sign_checks("rl", rl())] == [False]


def test_a_value_loss_of_the_wrong_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = critic.value_loss
    monkeypatch.setattr(critic, "value_loss", lambda *args, **named: (-(r := right(*args, **named))[0], r[1]))
    for preset in ("ppo_simplerl", "ppo_orz", "vapo"):
        found = {name: ok for name, ok, _ in sign_checks("rl", rl(algorithm={"preset": preset}))}
        assert [name for name, ok in found.items() if not ok] == ["rl: sign of the value loss"]


def test_advantages_of_a_critic_of_the_wrong_sign_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = credit.gae
    monkeypatch.setattr(credit, "gae", lambda *args, **named: -right(*args, **named))
    found = {name: ok for name, ok, _ in sign_checks("rl", rl(algorithm={"preset": "ppo_orz"}))}
    assert found["rl: sign of the reward"] is False


def test_a_process_reward_of_the_wrong_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> dict[str, bool]:
        return {name: ok for name, ok, _ in sign_checks("rl", rl(algorithm={"preset": "prime"}))}

    assert found() == {"rl: sign of the reward": True, "rl: sign of the process rewards": True}
    right = implicit_prm.implicit_prm_loss
    monkeypatch.setattr(implicit_prm, "implicit_prm_loss", lambda *args: -right(*args))
    assert found() == {"rl: sign of the reward": True, "rl: sign of the process rewards": False}


def test_a_penalty_of_a_later_phase_is_looked_at() -> None:
    phases = [{"until": {"step": 5}}, {"set": {"algorithm.kl_coef": 0.1}}]
    assert "rl: sign of the KL penalty" in [name for name, _, _ in sign_checks("rl", rl(schedule=phases))]


# -- numbers


def test_batch_numbers_divide() -> None:
    found = failed(small("rl.algorithm.minibatches=3", "rl.problems_per_step=8"))
    assert "64 do not divide into 3 minibatches" in found["rl: batch"]
    assert "rl: batch" not in failed(small("rl.algorithm.minibatches=4"))


def test_fewer_problems_than_processes_leave_some_waiting() -> None:
    found = {check.name: check for check in preflight(small("rl.problems_per_step=1", "processes=2"))}["rl: batch"]
    assert found.ok
    assert found.found.endswith("so 1 wait meanwhile")


def test_every_phase_is_held_to_the_limits() -> None:
    schedule = "rl.schedule=[{until: {step: 5}}, {set: {sampling.max_tokens: 4090, samples_per_problem: 4}}]"
    budget = "rl.token_budget=5000"
    found = failed(small(schedule, budget))
    assert set(found) == {"rl (phase 2): lengths"}  # a tiny base knows fewer positions
    names = [check.name for check in preflight(small(schedule, budget))]
    assert [n for n in names if "batch" in n and "rl" in n] == ["rl (phase 1): batch", "rl (phase 2): batch"]


def test_the_memory_plan_is_that_of_the_dearest_phase() -> None:
    def memory(*overrides: str) -> int:
        return plan_stages(small(*overrides))[1].memory_bytes

    later = "rl.schedule=[{until: {step: 5}}, {set: {sampling.max_tokens: 600}}]"
    assert memory(later) == memory("rl.sampling.max_tokens=600") > memory()


@pytest.mark.parametrize("phase", ["", "rl.schedule=[{until: {step: 5}}, {set: {pools.mix: {genrated: 1.0}}}]"])
def test_a_mix_of_an_unknown_source_is_found_in_every_phase(phase: str) -> None:
    """The stream would end with an error at its first draw, or at the hand-over to a later phase."""
    found = failed(small(phase or "rl.pools.mix={genrated: 1.0}"))
    place = "rl (phase 2): pools.mix" if phase else "rl: pools.mix"
    assert found == {
        place: "pools.mix names the source 'genrated' (did you mean \"generated\"?): "
        "the training problems come from generated"
    }


def test_a_mix_of_sources_that_are_there_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one whose problems are not among the few that a check draws of a large task."""
    for name, count in (("many", 60), ("few", 3)):
        rows = (f'{{"question": "{name} {i}?", "answer": "{i}"}}\n' for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    files = ", ".join(f"'{tmp_path / name}.jsonl'" for name in ("many", "few"))
    task = f"task={{name: file, verifier: exact, data: [{files}], train_problems: 60}}"
    monkeypatch.setattr("r1kit.pipeline.preflight.DRAWN", 1)

    def mixed(*overrides: str) -> dict[str, tuple[bool, str]]:
        recipe = small(task, "rl.problems_per_step=1", "rl.algorithm.minibatches=1", *overrides)
        return {check.name: (check.ok, check.found) for check in preflight(recipe)}

    ok, text = mixed("rl.pools.mix={many: 1, few: 1}")["rl: pools.mix"]
    assert ok
    assert sorted(text.removeprefix("the training problems come from ").split(", ")) == ["few", "many"]
    assert "rl: pools.mix" not in mixed()


# -- checkpoints


def checkpoint(folder: Path, change: Any = None, tokenizer: Any = None) -> Path:
    shape = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=32)
    tokenizer = tokenizer or build_tiny_tokenizer()
    model = make_tiny(shape, tokenizer, seed=0)
    if change is not None:
        with torch.no_grad():
            change(model, tokenizer)
    write_model(model, tokenizer, folder)
    return folder


def of_checkpoint(model: Path, *overrides: str) -> dict[str, tuple[bool, str]]:
    text = SMALL.replace("  base: {kind: pretrain, tokens: 4096, warmup_steps: 0}\n", "").replace("${base}", str(model))
    recipe = resolve(parse_recipe(text, "small.yaml", overrides))
    found = {check.name: (check.ok, check.found) for check in preflight(recipe)}
    return {name.split(" of ")[0]: value for name, value in found.items() if str(model) in name}


def test_a_sound_checkpoint_passes(tmp_path: Path) -> None:
    found = of_checkpoint(checkpoint(tmp_path / "m"))
    assert found["tags"] == (True, "<think>, </think>, <answer>, </answer> are single tokens with trained vectors")
    assert found["stop token"] == (True, "<eos> (id 2) ends a response; prompts are plain text")


def shrink(model: Any, tokenizer: Any) -> None:
    model.head_weight[tokenizer.convert_tokens_to_ids("</think>")] *= 0.05


def share(model: Any, tokenizer: Any) -> None:
    one, other = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    model.head_weight[one] = model.head_weight[other]


@pytest.mark.parametrize(("change", "named"), [(shrink, "</think> was"), (share, "<think>, </think> was")])
def test_untrained_tags_are_found(tmp_path: Path, change: Any, named: str) -> None:
    ok, found = of_checkpoint(checkpoint(tmp_path / "m", change))["tags"]
    assert not ok
    assert found.startswith(f"{named} never trained")


@pytest.mark.parametrize(
    ("file", "reason"),
    [("model.safetensors", "cannot be read"), (INDEX, "not valid JSON"), (INDEX, "has no 'weight_map'")],
)
def test_damaged_weights_are_found(tmp_path: Path, file: str, reason: str) -> None:
    model = checkpoint(tmp_path / "m")
    (model / file).write_text("{}" if "weight_map" in reason else "{")
    ok, found = of_checkpoint(model)["weights"]
    assert not ok
    assert found.startswith(f"{model / file}: {reason}")


def test_a_chat_template_that_ends_turns_otherwise_is_found(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    fine = of_checkpoint(checkpoint(tmp_path / "fine", tokenizer=tokenizer), "task.template=chat")
    assert fine["stop token"] == (True, "<eos> (id 2) ends the assistant's turn in the chat template")
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ eos_token }}", "{{ '<|user|>' }}")
    ok, found = of_checkpoint(checkpoint(tmp_path / "m", tokenizer=tokenizer), "task.template=chat")["stop token"]
    assert not ok
    assert "stop at <eos>, but the chat template ends a turn with <|user|>" in found


def test_a_chat_template_that_takes_questions_only_is_told(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    refusal = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('ask me something') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    ok, found = of_checkpoint(checkpoint(tmp_path / "m", tokenizer=tokenizer), "task.template=chat")["stop token"]
    assert ok
    assert found.endswith("is not known: the chat template refuses this conversation: ask me something")


def test_a_checkpoint_that_cannot_be_read_is_not_said_twice(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "m")
    (model / "tokenizer.json").write_text("{")
    assert list(of_checkpoint(model)) == ["prompts and tokenizer"]

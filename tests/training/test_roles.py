"""Critic, process reward model and reference in the update: what they learn, and that a checkpoint brings them back.

Why this matters: PPO without a trained critic is a noisy policy gradient that looks like PPO; a critic, a process
reward model or a coefficient that a resumed run has forgotten gives a run that works and is another one.

Not exercised here: the equations (tests/algorithms), advantages (test_credit.py), whole stages under kill -9.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.models.loading import load_model
from r1kit.models.lora import BaseOf, LoRAModel
from r1kit.pipeline.export import export_checkpoint
from r1kit.records import Group
from r1kit.training import rl
from r1kit.training.examples import Example, at_trained_tokens
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted
from r1kit.training.roles import EntropyControl, Roles
from r1kit.training.update import update

from .helpers import random_groups
from .preset_updates import opened, preset_settings
from .stage import TASK, ListRecorder, even_tokens, stage_settings, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(("trunk", "lr_factor"), [("separate", 3.0), ("shared", 5.0)])
def test_pretraining_teaches_the_critic_and_leaves_the_policy_alone(base: Path, trunk: str, lr_factor: float) -> None:
    """The same batch again and again: explained variance rises, the policy's weights stay bit for bit."""
    changes: dict[str, Any] = {"optimizer": {"name": "adamw", "lr": 5e-3}}
    session, _, _ = opened("ppo_orz", base, World.single(), **changes)
    critic = {"trunk": trunk, "pretrain_steps": 25, "clip": None, "lr_factor": lr_factor}
    settings = preset_settings("ppo_orz", **changes, algorithm={"preset": "ppo_orz", "critic": critic})
    roles = Roles.open([settings], base, session, "float32")
    before = session.flat.master.clone()
    groups = random_groups(4)
    rows = [update(session, groups, settings, 1.0, roles, step=step) for step in range(25)]
    assert torch.equal(session.flat.master, before)
    assert rows[0]["value_explained"] == pytest.approx(0.0, abs=1e-6)  # a head of zeros knows nothing
    assert rows[-1]["value_explained"] > 0.1
    assert rows[-1]["value_error"] < rows[0]["value_error"]
    row = update(session, groups, settings, 1.0, roles, step=25)
    assert row["grad_norm"] > 0
    assert not torch.equal(session.flat.master, before)


def test_a_critic_of_its_own_takes_several_steps_per_batch(base: Path) -> None:
    session, _, _ = opened("ppo_orz", base, World.single())
    settings = preset_settings("ppo_orz", algorithm={"preset": "ppo_orz"})
    roles = Roles.open([settings], base, session, "float32")
    update(session, random_groups(5), settings, 1.0, roles)
    assert roles.critic is not None
    assert roles.critic.optimizer.adam.count == 12
    assert session.optimizer.adam.count == 1
    assert roles.critic.optimizer.settings.lr == pytest.approx(2.0 * settings.optimizer.lr)


def labelled(groups: list[Group]) -> list[Group]:
    """Responses that start with an even token are right: something a model of tokens can learn."""
    return [
        replace(g, rollouts=tuple(r.scored({}, {"accuracy": float(r.response_ids[0] % 2 == 0)}) for r in g))
        for g in groups
    ]


def test_the_process_reward_model_learns_outcomes(base: Path) -> None:
    """It starts knowing nothing (every reward 0, loss ln 2) and tells right from wrong after some updates."""
    changes: dict[str, Any] = {"optimizer": {"name": "adamw", "lr": 5e-3}, "token_budget": 4000}
    session, _, _ = opened("prime", base, World.single(), **changes)
    settings = preset_settings("prime", **changes, algorithm={"preset": "prime", "process": {"beta": 1.0}})
    roles = Roles.open([settings], base, session, "float32")
    assert roles.process is not None
    examples = [Example.of(r) for g in labelled(random_groups(8)) for r in g]
    assert not roles.process.score(examples, 4000)[0].any()
    rows = [roles.process.update(examples, 4000, 1.0) for _ in range(25)]
    assert rows[0]["process_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert rows[-1]["process_loss"] < 0.5 * rows[0]["process_loss"]
    assert rows[-1]["process_accuracy"] > 0.8
    start = load_model(base)
    for name, parameter in roles.process.start.named_parameters():
        assert torch.equal(parameter, dict(start.named_parameters())[name])


@pytest.mark.parametrize("when", ["before", "after"])
def test_process_rewards_are_taken_before_or_after_the_update(base: Path, when: str) -> None:
    """With `after` the first advantages see a model that knows nothing; with `before` one that was trained."""
    algorithm = {"preset": "prime", "process": {"update": when, "outcome_coef": 0.0}}
    settings = preset_settings("prime", algorithm=algorithm)
    session, _, _ = opened("prime", base, World.single())
    roles = Roles.open([settings], base, session, "float32")
    row = update(session, labelled(random_groups(4)), settings, 1.0, roles)
    assert (row["grad_norm"] > 0) == (when == "before")
    assert row["process_loss"] == pytest.approx(np.log(2), rel=1e-4)


def test_kl_in_the_reward_pulls_towards_the_reference(base: Path) -> None:
    """Equal rewards: what is left is the KL, and one step brings the log-probs nearer to the reference's."""
    changes = {"optimizer": {"name": "adamw", "lr": 2e-3}, "sampling": {"max_tokens": 20}}
    session, roles, settings = opened("reinforce_pp", base, World.single(), **changes)
    groups = [replace(g, rollouts=tuple(r.scored({}, {"accuracy": 1.0}) for r in g)) for g in random_groups(6)]
    examples = [Example.of(r) for g in groups for r in g]

    def logprobs(model: Any) -> torch.Tensor:
        return at_trained_tokens(lambda tokens: tokens.logprobs(model)[0], examples, 4000, World.single())

    ours, theirs = logprobs(session.model), logprobs(roles.reference)
    parts, start = [], 0
    for e in examples:
        stream = e.along(ours[start : start + e.trained_tokens].numpy())
        parts.append(np.concatenate([[np.float32(0)], stream]))
        start += e.trained_tokens
    own = iter(parts)
    groups = [replace(g, rollouts=tuple(replace(r, logprobs=next(own)) for r in g)) for g in groups]
    row = update(session, groups, settings, 1.0, roles)
    assert row["kl"] == pytest.approx((ours - theirs).mean().item(), rel=1e-4)
    moved = logprobs(session.model) - ours
    penalty = ours - theirs
    # Tokens likelier than under the reference become less likely, over the batch.
    assert (moved * (penalty - penalty.mean())).sum() < 0


def test_the_adaptive_bonus_acts_below_the_target_only(base: Path) -> None:
    algorithm = {"entropy": {"coef": 0.01, "target": 99.0, "delta": 0.005, "maximum": 0.02}}
    settings = preset_settings("dapo", algorithm=algorithm)
    session, roles, _ = opened("dapo", base, World.single())
    roles.entropy = EntropyControl.start(settings.algorithm.entropy)
    groups = random_groups(4)
    coefficients = [update(session, groups, settings, 1.0, roles)["entropy_coef"] for _ in range(4)]
    assert coefficients == pytest.approx([0.0, 0.015, 0.02, 0.02])


ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"preset": "vapo", "critic": {"pretrain_steps": 2}},
    "ppo, shared trunk": {"preset": "ppo_simplerl", "critic": {"trunk": "shared"}},
    "prime": {"preset": "prime"},
    "entropy": {"entropy": {"coef": 0.01, "target": 99.0}, "kl_coef": 0.1, "reference_refresh": 2},
}


def train(base: Path, directory: Path, recorder: ListRecorder, algorithm: dict[str, Any], **changes: Any) -> Path:
    settings = stage_settings(algorithm=algorithm, dynamic_sampling={"enabled": True, "carry": True}, **changes)
    outcome = rl.train_rl(
        settings,
        stage="rl",
        model_path=base,
        task=TASK,
        seed=5,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype="float32",
    )
    assert outcome.model is not None
    return outcome.model


def assert_resumes(base: Path, directory: Path, algorithm: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """A stage stopped in the middle ends in the same rows and the same bytes as one left alone."""
    alone = ListRecorder()
    one = train(base, directory / "alone", alone, algorithm, **changes)
    broken = ListRecorder(stop_after=2)
    with pytest.raises(Interrupted):
        train(base, directory / "broken", broken, algorithm, **changes)
    broken.stop_after = None
    other = train(base, directory / "broken", broken, algorithm, **changes)
    assert broken.rows == alone.rows
    for name in ("model.safetensors", "trainer.safetensors", "trainer.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    return alone.rows


@pytest.fixture
def scripted_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl, "make_reward", lambda settings, **_: even_tokens)


@pytest.mark.usefixtures("scripted_reward")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "ppo, shared trunk" else n for n in ALGORITHMS]
)
def test_a_resumed_stage_has_its_roles_back(base: Path, tmp_path: Path, name: str) -> None:
    assert_resumes(base, tmp_path, ALGORITHMS[name])


@pytest.mark.usefixtures("scripted_reward")
def test_ppo_needs_no_group(base: Path, tmp_path: Path) -> None:
    """TinyZero's headline run: one response to each problem, a critic for the baseline."""
    recorder, algorithm = ListRecorder(), {"preset": "ppo_orz", "critic": {"minibatches": 2}, "minibatches": 2}
    settings = stage_settings(samples_per_problem=1, problems_per_step=6, algorithm=algorithm)
    settings = settings.model_copy(update={"steps": 2})
    assert not settings.dynamic_sampling.enabled
    rl.train_rl(
        settings, stage="rl", model_path=base, task=TASK, seed=5, world=World.single(), recorder=recorder,
        directory=tmp_path, dtype="float32",
    )  # fmt: skip
    rows = [row for row in recorder.rows if row["kind"] == "train"]
    assert [row["groups_trained"] for row in rows] == [6, 6]
    assert all(row["grad_norm"] > 0 for row in rows)


@pytest.mark.usefixtures("scripted_reward")
@pytest.mark.parametrize("refresh", [0, 2])
def test_a_stage_with_adapters_trains_resumes_and_saves_a_plain_model(base: Path, tmp_path: Path, refresh: int) -> None:
    algorithm = {"kl_coef": 0.1, "reference_refresh": refresh}
    lora = {"rank": 2, "alpha": 4.0}
    rows = assert_resumes(base, tmp_path, algorithm, lora=lora, optimizer={"name": "adamw", "lr": 0.05})
    trained = [row for row in rows if row["kind"] == "train"]
    assert trained[0]["kl"] == 0.0  # the base is the reference
    assert trained[1]["kl"] != 0.0
    start, end = (dict(load_model(p).named_parameters()) for p in (base, tmp_path / "alone" / "step-000004"))
    assert not torch.equal(start["layers.0.qkv"], end["layers.0.qkv"])
    assert torch.equal(start["embedding"], end["embedding"])
    assert export_checkpoint(tmp_path / "alone" / "step-000004", tmp_path / "exported").gap < 1e-4


@pytest.mark.usefixtures("scripted_reward")
def test_recomputed_activations_change_nothing(base: Path, tmp_path: Path) -> None:
    rows = {}
    for recompute in (False, True):
        recorder = ListRecorder()
        train(base, tmp_path / str(recompute), recorder, {"kl_coef": 0.1}, recompute=recompute, steps=2)
        rows[recompute] = [row for row in recorder.rows if row["kind"] == "train"]
    for plain, again in zip(rows[False], rows[True], strict=True):
        assert again["loss"] == pytest.approx(plain["loss"], rel=1e-5, abs=1e-7)
        assert again["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-5)


def test_a_reference_under_adapters_is_the_base(base: Path) -> None:
    session, _, _ = opened("grpo", base, World.single())
    adapted = LoRAModel(load_model(base), rank=2, alpha=2.0)
    session.model = adapted
    settings = preset_settings("grpo")
    found = Roles.open([settings], base, session, "float32")
    assert isinstance(found.reference, BaseOf)
    assert found.tensors(settings.algorithm) == {}

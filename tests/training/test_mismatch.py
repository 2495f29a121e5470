"""Why this matters: the trainer's own log-probs are what every correction rests on; one token off, and noise is
corrected into a bias.

Not exercised here: the weights themselves (tests/algorithms/test_mismatch.py); a real foreign engine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.config.mismatch import MismatchSettings
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.loading import write_model
from r1kit.models.native.training import has_bfloat16
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Group
from r1kit.training.examples import Example
from r1kit.training.mismatch import Mismatch, Sides, describe, trainer_logprobs
from r1kit.training.parallel import World
from r1kit.training.update import update

from .helpers import random_groups, rl_settings, session, tiny_model
from .stage import ListRecorder, open_stage

WORLD = World.single()


OWN, FOREIGN = Sides(True, "float32", "float32"), Sides(False, "float32", "float32")


def mismatch(correction: str = "auto", *, own: bool = True, **bounds: Any) -> Mismatch:
    settings = MismatchSettings.model_validate({"correction": correction, **bounds})
    return Mismatch(settings, OWN if own else FOREIGN, world=WORLD)


def sampled_by_the_trainer(model: Any, groups: Sequence[Group], shift: float = 0.0) -> list[Group]:
    """The groups with the log-probs an engine would give that agrees with the trainer but for `shift` a token."""
    rollouts = [r for g in groups for r in g]
    values = trainer_logprobs(model, [Example.of(r) for r in rollouts], 400, WORLD)
    parts = iter(values.split([int(r.loss_mask.sum()) for r in rollouts]))

    def own(rollout: Any) -> Any:
        logprobs = np.zeros_like(rollout.logprobs)
        logprobs[rollout.loss_mask] = next(parts).numpy() - shift
        return replace(rollout, logprobs=logprobs)

    return [replace(g, rollouts=tuple(own(r) for r in g)) for g in groups]


def test_log_probs_equal_a_plain_forward_at_the_sampling_temperature() -> None:
    model = tiny_model()
    rollout = random_groups(1)[0].rollouts[0]
    found = trainer_logprobs(model, [Example.of(rollout)], 400, WORLD)
    ids = torch.from_numpy(rollout.token_ids).long()
    wanted = []
    segments = (Segment(1, len(ids)),)
    hidden = model(ids, positions(segments), packed_attention(segments))
    logits = hidden @ model.head_weight.t()
    for t in np.flatnonzero(rollout.loss_mask):
        row = (logits[t - 1] / float(rollout.temperatures[t])).log_softmax(-1)
        wanted.append(row[ids[t]].item())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_the_engine_of_the_trainer_is_measured_once_and_not_corrected() -> None:
    model = tiny_model()
    groups = sampled_by_the_trainer(model, random_groups(4))
    own = mismatch()
    first = own.apply(model, groups, 60)
    assert first.weights is None
    assert first.groups == groups
    assert first.metrics["gap_max"] < 1e-5
    assert first.metrics["noise_max"] < 1e-5
    assert "log-probs: engine and trainer differ by" in describe(first.metrics)
    assert own.apply(model, groups, 60).metrics == {}
    again = Mismatch(MismatchSettings(), OWN, world=WORLD, measured=own.measured)
    assert again.apply(model, groups, 60).metrics == {}


def test_a_foreign_engine_is_corrected_in_every_step() -> None:
    """Each token is ln 1.5 likelier for the trainer: token weights of 1.5, responses of two tokens and more capped."""
    model = tiny_model()
    groups = sampled_by_the_trainer(model, random_groups(4), shift=float(np.log(1.5)))
    assert mismatch(own=False).correction == "token_tis"
    foreign = mismatch(own=False)
    for first in (True, False):
        found = foreign.apply(model, groups, 60)
        assert ("noise_max" in found.metrics) == first
        assert found.weights is not None
        assert found.metrics["gap_mean"] == pytest.approx(np.log(1.5), rel=1e-4)
        assert found.metrics["correction_weight"] == pytest.approx(1.5, rel=1e-4)
        for rollout in (r for g in found.groups for r in g):
            weights = found.weights[id(rollout)]
            np.testing.assert_allclose(weights[rollout.loss_mask], 1.5, rtol=1e-4)
    sequences = mismatch("sequence_tis", own=False).apply(model, groups, 60)
    assert sequences.weights is not None
    for rollout in (r for g in sequences.groups for r in g):
        expected = min(1.5 ** int(rollout.loss_mask.sum()), 2.0)
        np.testing.assert_allclose(sequences.weights[id(rollout)][rollout.loss_mask], expected, rtol=1e-4)
    masked = mismatch("geometric_mask", own=False).apply(model, groups, 60)
    assert masked.metrics["correction_masked"] == 1.0


def gradient(model: Any, groups: Sequence[Group], **named: Any) -> np.ndarray:
    state = session(model=model)
    update(state, groups, rl_settings(), 0.0, **named)
    return state.flat.grad.numpy().copy()


def test_weights_scale_the_gradient_and_the_ratio_is_the_trainers_own() -> None:
    """All log-probs of the engine off by the same: the corrected gradient is the right one times the weight."""
    groups = random_groups(4)
    right = gradient(tiny_model(), sampled_by_the_trainer(tiny_model(), groups))
    off = sampled_by_the_trainer(tiny_model(), groups, shift=float(np.log(1.5)))
    corrected = mismatch(own=False).apply(tiny_model(), off, 60)
    found = gradient(tiny_model(), corrected.groups, token_weights_of=corrected.weights)
    np.testing.assert_allclose(found, 1.5 * right, rtol=2e-3, atol=1e-6)
    # Uncorrected, a ratio of 1.5 is beyond the clip of 1.28: gradient is lost without a trace in the loss.
    assert not np.allclose(gradient(tiny_model(), off), right, rtol=0.1, atol=1e-4)


def test_masked_tokens_carry_no_gradient() -> None:
    groups = sampled_by_the_trainer(tiny_model(), random_groups(4), shift=3.0)
    corrected = mismatch("masked_is", own=False).apply(tiny_model(), groups, 60)
    assert corrected.metrics["correction_masked"] == 1.0
    assert not gradient(tiny_model(), corrected.groups, token_weights_of=corrected.weights).any()


def test_nothing_to_train_is_nothing_to_measure() -> None:
    (group,) = random_groups(1)
    empty = replace(group, rollouts=tuple(replace(r, loss_mask=np.zeros_like(r.loss_mask)) for r in group))
    foreign = mismatch(own=False)
    found = foreign.apply(tiny_model(), [empty], 60)
    assert (found.groups, found.weights, found.metrics) == ([empty], None, {})
    assert not foreign.measured  # the first groups that are trained will be


@pytest.mark.parametrize(
    ("dtype", "stage", "engine", "correction", "why"),
    [
        ("float32", "off", "off", "off", "the engine has the trainer's weights, and both multiply in float32"),
        ("bfloat16", "off", "off", "off", "both multiply in bfloat16"),
        ("float32", "off", "float32", "off", "both multiply in float32"),
        ("float32", "bfloat16", "bfloat16", "off", "both multiply in bfloat16"),
        ("float32", "off", "bfloat16", "token_tis", "the engine multiplies in bfloat16, the trainer in float32"),
        ("float32", "float32", "bfloat16", "token_tis", "the engine multiplies in bfloat16, the trainer in float32"),
        ("float32", "bfloat16", "off", "token_tis", "the engine multiplies in float32, the trainer in bfloat16"),
    ],
)
def test_auto_corrects_where_engine_and_trainer_are_not_alike(
    dtype: str, stage: str, engine: str, correction: str, why: str
) -> None:
    """What decides is stated: the same weights, and products of the same type; compiled or not plays no part."""
    policy, settings = tiny_model(), rl_settings(native=stage, engine={"native": engine})
    one = Mismatch(settings.mismatch, Sides.of(SimpleNamespace(model=policy), policy, settings, dtype), world=WORLD)
    assert one.correction == correction
    assert one.described().startswith(f"mismatch correction: {correction} (auto: ")
    assert why in one.described()


def test_another_engine_is_corrected_and_the_recipe_has_the_last_word() -> None:
    policy = tiny_model()
    other = Sides.of(SimpleNamespace(model=tiny_model()), policy, rl_settings(), "float32")
    assert Mismatch(MismatchSettings(), other, world=WORLD).correction == "token_tis"
    off = Mismatch(MismatchSettings(correction="off"), other, world=WORLD)
    assert off.described() == "mismatch correction: off (by the recipe; the engine has weights of its own)"


@pytest.mark.skipif(shutil.which("g++") is None or not has_bfloat16(), reason="needs g++ and a processor with AMX")
def test_a_stage_that_samples_in_bfloat16_and_trains_in_float32_says_so_and_corrects(tmp_path: Path) -> None:
    class Told(ListRecorder):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[str] = []

        def note(self, stage: str, text: str) -> None:
            self.notes.append(text)

    changes: dict[str, Any] = {"steps": 2, "reward": {"kind": "random"}, "engine": {"native": "bfloat16", "slots": 8}}
    recorder, tokenizer = Told(), build_tiny_tokenizer()
    shape = {"hidden_size": 64, "num_heads": 2, "num_kv_heads": 1, "head_dim": 32, "intermediate_size": 64}
    write_model(tiny_model(vocab_size=len(tokenizer), **shape), tokenizer, tmp_path / "base")
    open_stage(tmp_path / "base", tmp_path / "rl", WORLD, recorder, **changes).train()
    told = "mismatch correction: token_tis (auto: the engine multiplies in bfloat16, the trainer in float32)"
    assert told in recorder.notes
    assert any("the trainer from itself by" in note for note in recorder.notes)
    for row in (row for row in recorder.rows if row["kind"] == "train"):
        assert row["gap_mean"] > 1e-5  # of rounding to eight bits; float32 beside float32 is 1e-7
        assert 0 < row["correction_weight"] <= 2.0


def test_bounds_have_to_hold_one() -> None:
    with pytest.raises(ValueError, match="1 has to lie between"):
        MismatchSettings(low=1.5)

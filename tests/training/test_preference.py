"""Preference training: the step it says it takes, and a resume that changes nothing.

Why this matters: a reference computed for other sequences, a denominator of the micro-batch instead of the step, or a
pair that says nothing trains quietly and shows only in the model. Every way to cut up a step gives one gradient.

Not exercised here: equality with TRL (test_preference_trl.py); whether preferences make a better model.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from r1kit.config.errors import UserError
from r1kit.config.preference import PRESETS, PreferenceSettings
from r1kit.models.checkpoint import read_safetensors
from r1kit.models.loading import load_model, write_model
from r1kit.models.marked import summed_logprobs
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Message
from r1kit.tasks.traces import BadRowError
from r1kit.training import preference, reference
from r1kit.training.judged_data import is_held_out
from r1kit.training.parallel import World
from r1kit.training.preference import PreferenceStep, mismatched, train_preference
from r1kit.training.recorder import Interrupted, StageOutcome
from r1kit.training.reference import Reference
from r1kit.training.unit_steps import UnitOrder
from r1kit.training.units import backward

from .helpers import tiny_model
from .judged import pair_rows, pairs, preference_step, singles, write_rows
from .ranks import Results
from .stage import TASK, ListRecorder
from .test_units import gradient, plain_logprob

METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", "beta": 0.3, "nll_coef": 0.2},
    "cdpo": {"method": "dpo", "beta": 0.3, "label_smoothing": 0.1},
    "ipo": {"method": "ipo", "beta": 0.1},
    "nca": {"method": "nca", "beta": 0.3},
    "simpo": {"method": "simpo", "beta": 2.0},
    "orpo": {"method": "orpo", "beta": 0.2},
    "kto": {"method": "kto", "beta": 0.2, "undesirable_weight": 1.5},
}
ADAPTERS = {"method": "dpo", "beta": 0.3, "lora": {"rank": 4, "alpha": 8}}


def settings(path: Path | str = "pairs.jsonl", **changes: Any) -> PreferenceSettings:
    values = {"model": "m", "data": [{"path": str(path)}], "max_tokens": 60, "token_budget": 60, **changes}
    return PreferenceSettings.model_validate(values)


def step_of(judged: list[Any], chosen: PreferenceSettings) -> PreferenceStep:
    reference = tiny_model(seed=9).requires_grad_(False)
    sequences = [s for j in judged for s in j.unit]
    made = Reference(reference, sequences, None, 60) if chosen.needs_reference else None
    return PreferenceStep(chosen, judged, list(range(len(judged))), made, 0.4)


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_cut_up_a_step_gives_the_plain_gradient(name: str) -> None:
    """The plain way: one sequence at a time, the mean over the step as one graph."""
    chosen = settings(**METHODS[name])
    judged = singles(6) if name == "kto" else pairs(6)
    model = tiny_model()
    plain = torch.stack([plain_logprob(model, s) for j in judged for s in j.unit])
    loss, sums = step_of(judged, chosen).loss(plain, range(len(judged)))
    loss.backward()
    want, metrics = gradient(model), step_of(judged, chosen).means(sums)
    assert want.norm() > 0
    for token_budget in (20, 60, 10_000):
        model = tiny_model()
        step = step_of(judged, chosen)
        units = [j.unit for j in judged]
        got = backward(model, units, summed_logprobs, step.loss, token_budget, World.single())
        assert got["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert (gradient(model) - want).norm() <= 1e-5 * want.norm()
        means = step.means({k: v for k, v in got.items() if k != "loss"})
        assert means == pytest.approx(metrics, rel=1e-4, abs=1e-5)


def test_two_ranks_take_the_step_of_one(two_ranks: Results) -> None:
    alone = preference_step(World.single())
    assert np.abs(alone["grad"]).max() > 0
    for rank in two_ranks["preference"]:
        for name, value in alone.items():
            np.testing.assert_allclose(rank[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for name, value in two_ranks["preference"][0].items():
        assert np.array_equal(value, two_ranks["preference"][1][name]), name


def test_metrics_by_hand() -> None:
    """Two pairs without a reference: mean log-probs of the chosen ones -1 and -2, of the rejected ones -1 and -1."""
    judged = pairs(2, seed=1)
    lengths = [s.marked for j in judged for s in j.unit]
    step = step_of(judged, settings(method="simpo", beta=2.0, gamma=0.0))
    _, sums = step.loss(torch.tensor([-1.0 * n for n in lengths[:2]] + [-2.0 * lengths[2], -1.0 * lengths[3]]), [0, 1])
    found = step.means(sums)
    assert found["chosen_reward"] == pytest.approx(2.0 * -1.5)
    assert found["rejected_reward"] == pytest.approx(2.0 * -1.0)
    assert found["pair_margin"] == pytest.approx(-1.0)
    assert found["pair_accuracy"] == 0.0
    assert found["chosen_tokens"] == pytest.approx((lengths[0] + lengths[2]) / 2)
    assert found["rejected_logprob"] == pytest.approx(-(lengths[1] + lengths[3]) / 2)
    assert found["nll"] == pytest.approx((lengths[0] + 2.0 * lengths[2]) / (lengths[0] + lengths[2]))


def test_kto_reads_each_response_behind_a_prompt_of_another_unit() -> None:
    judged = singles(9)
    found = mismatched(judged, 60, seed=3)
    for own, other in zip(judged, found, strict=True):
        response = own.unit[0].token_ids[len(own.prompt) :]
        assert other.token_ids[other.marks].tolist() == response.tolist()
        assert other.token_ids[~other.marks].tolist() != own.prompt.token_ids.tolist()
        assert not other.marks[: len(other) - len(response)].any()
    assert [m.token_ids.tolist() for m in mismatched(judged, 60, 3)] == [m.token_ids.tolist() for m in found]
    assert max(map(len, mismatched(judged, 7, 3))) == 7


def test_an_epoch_takes_every_unit_once_in_an_order_of_its_own() -> None:
    order = UnitOrder(10, 4, 3, seed=5)
    assert order.steps == 9
    epochs = [[u for step in range(3 * e, 3 * e + 3) for u in order.units(step)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [len(order.units(step)) for step in range(3)] == [4, 4, 2]
    assert order.units(4) == UnitOrder(10, 4, 3, seed=5).units(4) != UnitOrder(10, 4, 3, seed=6).units(4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = build_tiny_tokenizer()
    write_model(tiny_model(vocab_size=len(tokenizer)), tokenizer, folder)
    return folder


def train_settings(pairs_at: Path, **changes: Any) -> PreferenceSettings:
    values = {
        "data": [{"path": str(pairs_at)}],
        "batch_size": 4,
        "optimizer": {"lr": 3e-3},
        "held_out_share": 0.25,
        "checkpoint_every": 2,
        "warmup_share": 0.2,
        "decay": "cosine",
        "lr_floor": 0.1,
        **changes,
    }
    return settings(**values)


def train(base: Path, directory: Path, recorder: ListRecorder, pairs_at: Path, **changes: Any) -> StageOutcome:
    return train_preference(
        train_settings(pairs_at, **changes),
        stage="dpo",
        inputs={"model": base, "data[0].path": pairs_at},
        task=TASK,
        seed=1,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", pair_rows(24))


@pytest.mark.parametrize("name", ["dpo", "simpo", "kto", "lora"])
def test_a_resumed_stage_equals_the_one_left_alone(base: Path, data: Path, tmp_path: Path, name: str) -> None:
    changes = {**{**METHODS, "lora": ADAPTERS}[name], **({"labelled": False} if name == "kto" else {})}
    evaluate = {"every": 3, "problems": 2, "samples": 2, "max_tokens": 4}
    alone = ListRecorder()
    outcome = train(base, tmp_path / "alone", alone, data, evaluate=evaluate, **changes)
    recorder = ListRecorder(stop_after=3)
    with pytest.raises(Interrupted, match=r"stopped after step 3 of \d+; the same command goes on"):
        train(base, tmp_path / "broken", recorder, data, evaluate=evaluate, **changes)
    recorder.stop_after = None
    resumed = train(base, tmp_path / "broken", recorder, data, evaluate=evaluate, **changes)
    assert recorder.rows == alone.rows
    assert replace(resumed, model=None) == replace(outcome, model=None)
    assert outcome.model is not None
    assert resumed.model is not None
    for file in ("model.safetensors", "trainer.safetensors", "trainer.json"):
        assert (outcome.model / file).read_bytes() == (resumed.model / file).read_bytes(), file
    assert train(base, tmp_path / "broken", ListRecorder(), data, evaluate=evaluate, **changes) == resumed


def test_the_margin_grows_on_what_is_trained_and_on_what_is_held_out(base: Path, data: Path, tmp_path: Path) -> None:
    recorder = ListRecorder()
    outcome = train(base, tmp_path, recorder, data, epochs=6, beta=0.5, optimizer={"lr": 1e-2})
    rows = [row for row in recorder.rows if row["kind"] == "train"]
    assert rows[0]["loss"] == pytest.approx(np.log(2), rel=1e-3), "policy and reference are one at the start"
    assert rows[0]["pair_margin"] == pytest.approx(0.0, abs=1e-3)
    assert rows[-1]["loss"] < 0.4
    assert rows[-1]["pair_margin"] > 1.0
    assert outcome.metrics["held_out_pair_accuracy"] > 0.8
    held_out = [row for row in recorder.rows if row["kind"] == "eval"]
    assert held_out[-1]["held_out_loss"] < held_out[0]["held_out_loss"]
    assert outcome.metrics["units"] + outcome.metrics["held_out"] == 24


def test_reference_log_probs_are_made_once_and_equal_those_made_in_every_step(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, live = ListRecorder(), ListRecorder()
    one = train(base, tmp_path / "ready", ready, data)
    two = train(base, tmp_path / "live", live, data, reference="on_the_fly")
    assert not list((tmp_path / "live").glob("reference-*"))
    for mine, theirs in zip(ready.rows, live.rows, strict=True):
        assert (mine.pop("stage"), mine.pop("kind")) == (theirs.pop("stage"), theirs.pop("kind"))
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert one.metrics == pytest.approx(two.metrics, rel=1e-3, abs=1e-3)

    def not_again(*_: Any, **__: Any) -> Any:
        raise AssertionError("log-probs of the reference were made again")

    (kept,) = (tmp_path / "ready").glob("reference-*.json")
    monkeypatch.setattr(reference, "read_all", not_again)
    model = load_model(base)
    sequences = [s for j in pairs(2) for s in j.unit]
    with pytest.raises(AssertionError, match="made again"):
        reference.cached_logprobs(model, sequences, 60, tmp_path / "ready", World.single())
    found = json.loads(kept.read_text())
    assert len(found) == 48
    assert max(found) < 0


def test_a_reference_of_its_own_is_another_reference(base: Path, data: Path, tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    write_model(tiny_model(seed=7, vocab_size=len(tokenizer)), tokenizer, tmp_path / "other")
    recorder = ListRecorder()
    train_preference(
        settings(data, reference_model="other"),
        stage="dpo",
        inputs={"model": base, "data[0].path": data, "reference_model": tmp_path / "other"},
        task=TASK,
        seed=1,
        world=World.single(),
        recorder=recorder,
        directory=tmp_path / "stage",
        dtype="float32",
    )
    assert abs(recorder.rows[0]["loss"] - np.log(2)) > 0.01


@pytest.mark.parametrize("how", ["precomputed", "on_the_fly"])
def test_adapters_are_held_to_the_model_without_them_and_to_no_second_one(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Against the same steps with the reference as a whole model of its own, in every row and in the weights."""
    loaded: list[Path] = []

    def load(path: Path, **named: Any) -> Any:
        loaded.append(path)
        return load_model(path, **named)

    for module in (preference, reference):
        monkeypatch.setattr(module, "load_model", load)
    changes = {**ADAPTERS, "reference": how, "optimizer": {"lr": 1e-2}}
    own, full = ListRecorder(), ListRecorder()
    outcome = train(base, tmp_path / "own", own, data, **changes)
    assert loaded == [base]
    whole = train_preference(
        train_settings(data, **changes, reference_model=str(base)),
        stage="dpo",
        inputs={"model": base, "data[0].path": data, "reference_model": base},
        task=TASK,
        seed=1,
        world=World.single(),
        recorder=full,
        directory=tmp_path / "full",
        dtype="float32",
    )
    assert loaded == [base] * 3
    assert own.rows == full.rows
    assert own.rows[-1]["held_out_pair_margin"] > 0.1, "the adapters moved the policy from its reference"
    assert outcome.model is not None
    assert whole.model is not None
    before, after, other = (read_safetensors(p / "model.safetensors") for p in (base, outcome.model, whole.model))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("layers." in name and "norm" not in name for name in changed)
    assert all(torch.equal(after[name], other[name]) for name in after)


class NotingRecorder(ListRecorder):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, stage: str, text: str) -> None:
        self.notes.append(text)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
@pytest.mark.parametrize("name", ["dpo", "orpo", "kto", "on_the_fly"])
def test_the_compiled_pass_takes_the_same_steps(base: Path, data: Path, tmp_path: Path, name: str) -> None:
    own = {"on_the_fly": {**METHODS["dpo"], "reference": "on_the_fly"}, "kto": {**METHODS["kto"], "labelled": False}}
    changes = {**METHODS, **own}[name]
    plain, compiled = ListRecorder(), ListRecorder()
    train(base, tmp_path / "plain", plain, data, **changes)
    train(base, tmp_path / "compiled", compiled, data, native="float32", **changes)
    assert [row.pop("kind") for row in plain.rows] == [row.pop("kind") for row in compiled.rows]
    for mine, theirs in zip(compiled.rows, plain.rows, strict=True):
        assert mine.pop("stage") == theirs.pop("stage")
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_adapters_say_that_they_are_not_compiled(base: Path, data: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    train(base, tmp_path, recorder, data, native="float32", **ADAPTERS)
    assert "native is off in this stage: lora needs PyTorch's own pass" in recorder.notes


def broken_rows() -> list[dict[str, Any]]:
    rows = pair_rows(6)
    # Different as text (the tokenizer knows neither character), equal as tokens.
    rows[2] |= {"chosen": {"role": "assistant", "content": "é"}, "rejected": {"role": "assistant", "content": "ü"}}
    return rows


def test_pairs_of_equal_tokens_are_refused_or_counted(base: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", broken_rows())
    with pytest.raises(BadRowError, match=r"p2: chosen and rejected are equal once they are written as tokens\. Mend"):
        train(base, tmp_path / "run", ListRecorder(), path)
    skipping = [{"path": str(path), "bad_rows": "skip"}]
    outcome = train(base, tmp_path / "run", ListRecorder(), path, data=skipping, held_out_share=0.0)
    assert (outcome.metrics["skipped"], outcome.metrics["units"]) == (1, 5)


@pytest.mark.parametrize(("side", "match"), [("chosen", "is empty"), ("rejected", "is empty")])
def test_empty_responses_are_named(base: Path, tmp_path: Path, side: str, match: str) -> None:
    rows = pair_rows(3)
    rows[1][side] = {"role": "assistant", "content": " "}
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(BadRowError, match=rf"pairs\.jsonl:2: .*{side} {match}"):
        train(base, tmp_path / "run", ListRecorder(), path)


def test_long_pairs_are_left_out_or_cut(base: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", pair_rows(8))
    longest = {"max_tokens": 13, "token_budget": 13, "held_out_share": 0.0}
    dropped = train(base, tmp_path / "drop", ListRecorder(), path, **longest)
    cut = train(base, tmp_path / "cut", ListRecorder(), path, too_long="cut", **longest)
    assert dropped.metrics["dropped"] > 0
    assert dropped.metrics["units"] == 8 - dropped.metrics["dropped"]
    assert cut.metrics["units"] > dropped.metrics["units"]
    assert cut.metrics["cut"] > 0
    with pytest.raises(UserError, match="nothing is left to train on: 8 rows are longer than max_tokens 4"):
        train(base, tmp_path / "none", ListRecorder(), path, max_tokens=4, token_budget=13)


def test_a_prompt_lies_on_one_side() -> None:
    prompts = [(Message("text", f"Q:{i}"),) for i in range(400)]
    shares = [is_held_out(p, 0.25) for p in prompts]
    assert 70 < sum(shares) < 130
    assert [is_held_out(p, 0.25) for p in prompts] == shares
    assert all(is_held_out(p, 0.5) for p, held in zip(prompts, shares, strict=True) if held)
    assert not any(is_held_out(p, 0.0) for p in prompts)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_what_the_recipe_does_not_set(name: str) -> None:
    filled = settings(preset=name)
    assert filled.method == PRESETS[name]["method"]
    assert filled.optimizer.lr == PRESETS[name]["optimizer"]["lr"]
    own = settings(preset=name, beta=0.7, optimizer={"weight_decay": 0.1})
    assert (own.beta, own.optimizer.weight_decay) == (0.7, 0.1)
    assert own.optimizer.lr == filled.optimizer.lr


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"preset": "light_r1"}, 'did you mean "light_r1_dpo"'),
        ({"method": "dpo", "gamma": 1.0}, "gamma is 1.0, which only method simpo reads"),
        ({"method": "simpo", "label_smoothing": 0.1}, "only method dpo reads"),
        ({"method": "orpo", "reference_model": "x"}, "has no reference"),
        ({"method": "kto", "nll_coef": 1.0}, "kto has no chosen response"),
        ({"method": "kto", "batch_size": 1}, "batch_size is 1"),
        ({"max_tokens": 61}, "token_budget is 60, smaller than one sequence of max_tokens 61"),
        ({"warmup_steps": 1, "warmup_share": 0.1}, "set one of them"),
        ({"held_out_share": 1.0}, "less than 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        settings(**changes)

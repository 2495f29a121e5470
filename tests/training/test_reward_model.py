"""Reward-model training and scoring: what is learnt is what is scored, and a resume changes nothing.

Why this matters: RL climbs the score. A score read at another token than was trained, a step label one step late, or a
report made on what was trained on looks like a good judge until RL has found the hole.

Not exercised here: TRL's accuracy on real data; whether RL with these scores makes a better policy.
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
from r1kit.config.reward_model import PRESETS, RewardModelSettings
from r1kit.config.reward_parts import RewardModelPart
from r1kit.models.checkpoint import CheckpointError
from r1kit.models.heads import ValueModel
from r1kit.models.loading import load_model, write_model
from r1kit.models.marked import MarkedSequence
from r1kit.models.own_tokenizer import FINGERPRINT
from r1kit.models.reward_model import RewardModel, RewardModelSpec, split_steps
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Message
from r1kit.rewards import Reward
from r1kit.tasks.traces import BadRowError
from r1kit.training.judged_data import Judged, JudgedData
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, StageOutcome
from r1kit.training.reference import Reference
from r1kit.training.reward_model import RewardStep, balanced, length_bias, train_reward_model
from r1kit.training.units import backward

from .helpers import problem, random_group, tiny_model
from .judged import pair_rows, pairs, singles, write_rows
from .stage import ListRecorder
from .test_units import gradient

METHODS = ("pairwise", "pointwise", "process", "implicit")


def settings(path: Path | str = "rows.jsonl", **changes: Any) -> RewardModelSettings:
    values = {"model": "m", "data": [{"path": str(path)}], "max_tokens": 60, "token_budget": 60, **changes}
    return RewardModelSettings.model_validate(values)


def label_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [{"role": "text", "content": row["prompt"][0]["content"]}, row[side]],
            "label": side == "chosen",
        }
        for row in pair_rows(count // 2)
        for side in ("chosen", "rejected")
    ]


def step_rows(count: int) -> list[dict[str, Any]]:
    """Steps of which one says no."""
    rows = []
    for i in range(count):
        a, wrong = i % 8, i % 3
        steps = [f"{a}+{n}={a + n}{' no' if n == wrong else ''}" for n in range(3)]
        rows.append({"prompt": [{"role": "text", "content": f"Q:{a}+{i}\n"}], "steps": steps,
                     "labels": [float(n != wrong) for n in range(3)]})  # fmt: skip
    return rows


ROWS = {"pairwise": pair_rows, "pointwise": label_rows, "process": step_rows, "implicit": label_rows}


def judged_for(method: str) -> list[Judged]:
    if method == "pairwise":
        return [replace(j, unit=tuple(s.last_only() for s in j.unit)) for j in pairs(6)]
    if method == "process":
        return [replace(j, labels=tuple(float(i % 2) for i in range(j.unit[0].marked))) for j in singles(6)]
    return singles(6) if method == "implicit" else [replace(j, unit=(j.unit[0].last_only(),)) for j in singles(6)]


def step_on(method: str, **changes: Any) -> tuple[RewardStep, Any]:
    """A step over made-up units and the model it trains."""
    judged = judged_for(method)
    implicit = method == "implicit"
    model = tiny_model() if implicit else ValueModel(tiny_model(), bias=method == "process").draw_head(0)
    reference = Reference(tiny_model(seed=9), [j.unit[0] for j in judged], None, 60) if implicit else None
    return RewardStep(settings(method=method, **changes), judged, list(range(6)), reference), model


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_cut_up_a_step_gives_one_gradient(method: str) -> None:
    found = []
    for token_budget in (20, 60, 10_000):
        step, model = step_on(method)
        units = [j.unit for j in step.judged]
        sums = backward(model, units, step.read, step.loss, token_budget, World.single())
        found.append((sums["loss"], gradient(model), step.means(sums)))
    for loss, got, means in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert (got - found[0][1]).norm() <= 1e-5 * found[0][1].norm()
        assert means == pytest.approx(found[0][2], rel=1e-4, abs=1e-5)
    assert found[0][1].norm() > 0


def test_metrics_by_hand() -> None:
    """Scores 1, 0 | 0, 2 | 3, 3 | ... of pairs: a share of right ones, a mean margin, and means of each side."""
    step, _ = step_on("pairwise")
    outputs = torch.tensor([1.0, 0.0, 0.0, 2.0, 3.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    loss, sums = step.loss(outputs, range(6))
    means = step.means({"loss": loss.item(), **sums})
    assert means["judged_right"] == pytest.approx(4 / 6)
    assert means["pair_margin"] == pytest.approx((1 - 2 + 2 + 0 + 1 + 1) / 6)
    assert means["chosen_score"] == pytest.approx(1.0)
    want = np.mean([np.log1p(np.exp(-m)) for m in (1, -2, 2, 0, 1, 1)])
    assert means["loss"] == pytest.approx(want, rel=1e-5)
    step, _ = step_on("pointwise")
    _, sums = step.loss(torch.tensor([2.0, -1.0, -1.0, 1.0, 2.0, -3.0]), range(6))
    means = step.means(sums)
    assert means["judged_right"] == pytest.approx(4 / 6)
    assert means["good_score"] == pytest.approx(1.0)
    assert means["bad_score"] == pytest.approx(-1.0)
    assert "good_count" not in means


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = build_tiny_tokenizer()
    write_model(tiny_model(vocab_size=len(tokenizer), tie_embeddings=False), tokenizer, folder)
    return folder


def train(base: Path, directory: Path, recorder: ListRecorder, rows: Path, method: str, **changes: Any) -> StageOutcome:
    values = {
        "batch_size": 4,
        "optimizer": {"lr": 5e-3},
        "held_out_share": 0.25,
        "checkpoint_every": 2,
        "measure_every": 3,
        **changes,
    }
    if method == "process":
        values["step_separator"] = "\n"
    return train_reward_model(
        settings(rows, method=method, **values),
        stage="rm",
        inputs={"model": base, "data[0].path": rows},
        seed=1,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype="float32",
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_stage_equals_the_one_left_alone(base: Path, tmp_path: Path, method: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS[method](24))
    alone = ListRecorder()
    outcome = train(base, tmp_path / "alone", alone, rows, method)
    recorder = ListRecorder(stop_after=3)
    with pytest.raises(Interrupted, match="stopped after step 3"):
        train(base, tmp_path / "broken", recorder, rows, method)
    recorder.stop_after = None
    resumed = train(base, tmp_path / "broken", recorder, rows, method)
    assert recorder.rows == alone.rows
    assert replace(resumed, model=None) == replace(outcome, model=None)
    assert outcome.model is not None
    assert resumed.model is not None
    for file in ("model.safetensors", "trainer.safetensors", "trainer.json", "reward_model.json"):
        assert (outcome.model / file).read_bytes() == (resumed.model / file).read_bytes(), file


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
@pytest.mark.parametrize("method", METHODS)
def test_the_compiled_pass_takes_the_same_steps(base: Path, tmp_path: Path, method: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS[method](24))
    plain, compiled = ListRecorder(), ListRecorder()
    train(base, tmp_path / "plain", plain, rows, method)
    outcome = train(base, tmp_path / "compiled", compiled, rows, method, native="float32")
    assert [row.pop("kind") for row in plain.rows] == [row.pop("kind") for row in compiled.rows]
    for mine, theirs in zip(compiled.rows, plain.rows, strict=True):
        assert mine.pop("stage") == theirs.pop("stage")
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    assert outcome.model is not None
    assert RewardModel.load(outcome.model).spec.method == method


@pytest.mark.parametrize("method", METHODS)
def test_what_is_learnt_is_what_is_scored(base: Path, tmp_path: Path, method: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS[method](60))
    recorder = ListRecorder()
    values = {"batch_size": 8, "epochs": 5, "checkpoint_every": 99, "measure_every": 99, "token_budget": 400}
    own = {"beta": 1.0, "optimizer": {"lr": 3e-3}} if method == "implicit" else {"optimizer": {"lr": 1e-2}}
    outcome = train(base, tmp_path / "run", recorder, rows, method, **values, **own)
    assert outcome.model is not None
    steps = [row for row in recorder.rows if row["kind"] == "train"]
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    judge = RewardModel.load(outcome.model)
    assert judge.spec.method == method
    assert judge.spec.report["held_out_accuracy"] == outcome.metrics["held_out_accuracy"] > 0.7
    assert 0.0 <= judge.spec.report["held_out_ece"] <= 1.0
    assert sum(b["count"] for b in judge.spec.report["reliability"]) > 0
    prompt = (Message("text", "Q:3+3\n" if method == "process" else "Q:3+1\n"),)
    if method == "process":
        good, bad = (judge.score_steps([(prompt, Message("assistant", f"3+0=3\n3+1=4{n}"))])[0] for n in ("", " no"))
        assert len(good) == len(bad) == 2
        assert good[0] == pytest.approx(bad[0], rel=1e-4), "a step does not see what follows"
        assert good[1] > bad[1]
    else:
        good, bad = judge.score([(prompt, Message("assistant", t)) for t in ("3+1=4", "3+1=5 no\n")])
        assert good > bad


def test_batching_changes_no_score(base: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    items = [((Message("text", f"Q:{i}\n"),), Message("assistant", "1+1=2 " * (1 + 3 * i % 7))) for i in range(9)]
    for spec in (RewardModelSpec("pairwise"), RewardModelSpec("process", step_separator=" ")):
        model = ValueModel(load_model(base), bias=True).draw_head(1)
        scores = [RewardModel(model, tokenizer, spec, token_budget=b).score(items) for b in (1, 40, 10_000)]
        np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scores[2], scores[0], rtol=1e-4, atol=1e-6)
        assert len(set(scores[0].round(6))) > 3


def test_an_implicit_model_is_zero_where_it_is_its_reference_and_its_steps_add_up(base: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    spec = RewardModelSpec("implicit", beta=0.5, step_separator="\n")
    same = RewardModel(load_model(base), tokenizer, spec, load_model(base))
    items = [((Message("text", "Q:1\n"),), Message("assistant", "1+1=2\n2+2=4\nso 4"))]
    assert same.score(items)[0] == 0.0
    other = RewardModel(load_model(base), tokenizer, spec, tiny_model(seed=3, vocab_size=len(tokenizer)))
    (steps,) = other.score_steps(items)
    assert len(steps) == 3
    # Steps end with their separator and the response with its end of turn: all before that last token is shared.
    prompt = tokenizer.encode("<bos>Q:1\n", add_special_tokens=False)
    ids = prompt + tokenizer.encode(items[0][1].content + "\n", add_special_tokens=False)
    sequence = MarkedSequence(np.array(ids), np.arange(len(ids)) >= len(prompt))
    assert steps.sum() == pytest.approx(other.token_scores([sequence])[0].sum(), rel=1e-5)
    assert abs(steps).max() > 0.1


def test_process_scores_join_their_steps(base: Path) -> None:
    model = ValueModel(load_model(base), bias=True).draw_head(1)
    judge = RewardModel(model, build_tiny_tokenizer(), RewardModelSpec("process", step_separator="\n"))
    items = [((Message("text", "Q:1\n"),), Message("assistant", "1+1=2\n\n2+2=4\n"))]
    (steps,) = judge.score_steps(items)
    assert len(steps) == 2
    assert judge.score(items)[0] == steps.min()
    assert judge.score(items, joined="product")[0] == pytest.approx(steps.prod())
    assert judge.score(items, joined="last")[0] == steps[-1]
    assert split_steps("a\n\n\nb ", "\n") == ["a", "b"]
    assert split_steps(" ", "\n") == [""]
    with pytest.raises(ValueError, match="judges whole responses, not steps"):
        RewardModel(model, build_tiny_tokenizer(), RewardModelSpec("pairwise")).score_steps(items)


def test_it_is_a_part_of_a_reward(base: Path) -> None:
    """R1 judges helpfulness by the answer alone and harmlessness by all of the text."""
    model = ValueModel(load_model(base)).draw_head(1)
    judge = RewardModel(model, build_tiny_tokenizer(), RewardModelSpec("pointwise"))
    group = random_group("p0", np.random.default_rng(0))
    texts = ["<think>1+1</think>2", "<think>1+3</think>2", "<think>never ends"]
    rollouts = [replace(r, text=text) for r, text in zip(group.rollouts, texts, strict=True)]
    asked = problem("p0")
    whole, answer = judge.source("whole")(asked, rollouts), judge.source("answer")(asked, rollouts)
    assert answer[0] == pytest.approx(answer[1], rel=1e-5)
    assert abs((whole[0] or 0) - (whole[1] or 0)) > 1e-4
    assert all(score is not None for score in (*whole, *answer))
    part = RewardModelPart(part="reward_model", source="helpful", weight=2.0)
    reward = Reward({"helpful": part}, steps=5, sources={"helpful": judge.source("answer")})
    paid = reward(asked, rollouts, max_tokens=20, step=1)
    assert [row["helpful"] for row in paid] == pytest.approx([2.0 * (a or 0.0) for a in answer], rel=1e-5)


def test_balanced_lengths() -> None:
    data = JudgedData(train=pairs(40, seed=2))
    lengths = [[s.marked for s in j.unit] for j in data.train]
    longer, shorter = sum(a > b for a, b in lengths), sum(a < b for a, b in lengths)
    assert longer != shorter, "the case says nothing"
    found = balanced(data, settings(balance_lengths=True), seed=1)
    after = [[s.marked for s in j.unit] for j in found.train]
    assert sum(a > b for a, b in after) == sum(a < b for a, b in after) == min(longer, shorter)
    assert found.counts["unbalanced"] == abs(longer - shorter) == 40 - len(found.train)
    even = balanced(JudgedData(train=pairs(40, seed=2)), settings(length_ratio=2.0), seed=1)
    assert even.train
    assert all(max(map(len_of, j.unit)) <= 2 * min(map(len_of, j.unit)) for j in even.train)
    with pytest.raises(UserError, match="no pair is left"):
        balanced(JudgedData(train=[j for j in pairs(40, seed=2) if lopsided(j)]), settings(length_ratio=1.01), seed=1)


def len_of(sequence: Any) -> int:
    return int(sequence.marked)


def lopsided(judged: Judged) -> bool:
    return len_of(judged.unit[0]) != len_of(judged.unit[1])


def test_length_bias_by_hand() -> None:
    judged = pairs(3, seed=1)
    longer = np.array([float(np.sign(len(j.unit[0]) - len(j.unit[1]))) for j in judged])
    scores = np.stack([longer, np.zeros(3)], axis=1)
    found = length_bias(scores, judged)
    assert found["prefers_longer"] == 1.0
    assert found["longer_is_better"] == pytest.approx(np.mean((longer + 1) / 2))


def test_a_reward_model_goes_on_from_a_reward_model(base: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows(24))
    first = train(base, tmp_path / "first", ListRecorder(), rows, "pairwise")
    assert first.model is not None
    recorder = ListRecorder()
    train(first.model, tmp_path / "second", recorder, rows, "pairwise", optimizer={"lr": 1e-9})
    before = RewardModel.load(first.model)
    after = RewardModel.load(tmp_path / "second" / "step-000005")
    item = [((Message("text", "Q:3+1\n"),), Message("assistant", "3+1=4"))]
    np.testing.assert_allclose(after.score(item), before.score(item), rtol=1e-3)
    with pytest.raises(CheckpointError, match="cannot write text; name a language model"):
        load_model(first.model)


def test_damaged_and_missing_files_are_named(base: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", label_rows(24))
    made = train(base, tmp_path / "run", ListRecorder(), rows, "implicit").model
    assert made is not None
    spec = json.loads((made / "reward_model.json").read_text())
    assert not Path(spec["reference"]).is_absolute()
    RewardModel.load(made)
    with pytest.raises(CheckpointError, match=r"not the reference that .* was trained with"):
        RewardModel.load(made, reference=made)
    (made / "reward_model.json").write_text(json.dumps({**spec, "reference": "../nowhere"}))
    with pytest.raises(CheckpointError, match=r"the reference of .* is gone: restore it"):
        RewardModel.load(made)
    (made / "reward_model.json").write_text('{"method": "vote"}')
    with pytest.raises(CheckpointError, match="method is 'vote'"):
        RewardModel.load(made)
    (made / "reward_model.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"reward_model\.json: cannot be read"):
        RewardModel.load(made)


def test_a_judge_with_another_models_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    """By its fingerprint; one that another program wrote, by its size."""
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows(24))
    made = train(base, tmp_path / "run", ListRecorder(), rows, "pairwise").model
    assert made is not None
    shutil.copytree(made, tmp_path / "judge")
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens(["<other>"])
    tokenizer.save_pretrained(tmp_path / "judge")
    with pytest.raises(CheckpointError, match="it has 204 tokens, theirs had 203"):
        RewardModel.load(tmp_path / "judge")
    (tmp_path / "judge" / FINGERPRINT).unlink()
    with pytest.raises(CheckpointError, match="the tokenizer has 204 tokens, the model's embedding 203 rows"):
        RewardModel.load(tmp_path / "judge")


def test_bad_data_is_named(base: Path, tmp_path: Path) -> None:
    rows = step_rows(6)
    rows[1]["labels"] = [0.5, 1.5, 1.0]
    path = write_rows(tmp_path / "steps.jsonl", rows)
    with pytest.raises(BadRowError, match=r"steps\.jsonl:2: label 1 is 1\.5"):
        train(base, tmp_path / "run", ListRecorder(), path, "process")
    rows[1]["labels"] = [None, None, None]
    path = write_rows(tmp_path / "steps.jsonl", rows)
    with pytest.raises(BadRowError, match="none of its steps has a label to train on"):
        train(base, tmp_path / "run", ListRecorder(), path, "process")
    with pytest.raises(UserError, match="nothing is left to train on"):
        train(base, tmp_path / "run", ListRecorder(), write_rows(path, step_rows(6)), "process", max_tokens=3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_what_the_recipe_does_not_set(name: str) -> None:
    longest = {"max_tokens": 60} if "max_tokens" in PRESETS[name] else {}
    filled = settings(preset=name, **longest)
    assert filled.method == PRESETS[name]["method"]
    assert filled.optimizer.lr == PRESETS[name]["optimizer"]["lr"]
    assert settings(preset=name, optimizer={"lr": 1.0}, **longest).optimizer.lr == 1.0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"preset": "r1"}, "expected one of r1_helpful, r1_safety, implicit_prm"),
        ({"method": "pointwise", "margin": 1.0}, "only method pairwise reads"),
        ({"method": "pairwise", "beta": 0.1}, "only method implicit reads"),
        ({"method": "process", "too_long": "cut"}, "loses the labels of its last steps"),
        ({"evaluate": {"every": 3}}, "a reward model samples nothing"),
        ({"max_tokens": 61}, "token_budget is 60"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        settings(**changes)

"""The RL stage from start to resume: what it trains on, what it records, what a checkpoint must bring back.

Why this matters: a killed run must go on as if nothing had happened: problem stream, carried groups, share of useful
groups, reference policy. Each of them forgotten gives a run that works and is another one.

Not exercised here: that a run learns (an integration test of its own); the true reward (tests/rewards); kill -9.
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

from r1kit.models.checkpoint import CheckpointError
from r1kit.models.loading import write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training import group_queue, rl
from r1kit.training.exchange import SampledGroup
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, StageOutcome

from .helpers import random_groups, tiny_model
from .rank_jobs import RANKS_STAGE
from .ranks import Results
from .stage import (
    TASK,
    ListRecorder,
    even_tokens,
    open_stage,
    stage_settings,
    swap_two_ids,
    write_base,
    write_untrained,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def scripted_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl, "make_reward", lambda settings, **_: even_tokens)


def train(base: Path, directory: Path, recorder: ListRecorder, **changes: Any) -> StageOutcome:
    return rl.train_rl(
        stage_settings(**changes),
        stage="rl",
        model_path=base,
        task=TASK,
        seed=5,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype="float32",
    )


def opened(base: Path, directory: Path, **changes: Any) -> tuple[rl.RLRun, ListRecorder]:
    recorder = ListRecorder()
    return open_stage(base, directory, World.single(), recorder, **changes), recorder


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_stage_equals_the_one_left_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    # More problems than a step needs, so that useful groups are left over.
    monkeypatch.setattr(group_queue, "problems_to_sample", lambda needed, share, *, max_factor: max(0, needed) + 2)
    alone = ListRecorder()
    outcome = train(base, tmp_path / "alone", alone)
    assert any(row.get("carried", 0) > 0 for row in alone.rows)
    assert any(row.get("kl", 0) > 0 for row in alone.rows)

    recorder = ListRecorder(stop_after)
    with pytest.raises(Interrupted, match=f"stopped after step {stop_after} of 4"):
        train(base, tmp_path / "broken", recorder)
    recorder.stop_after = None
    resumed = train(base, tmp_path / "broken", recorder)
    assert recorder.rows == alone.rows
    assert replace(resumed, model=None) == replace(outcome, model=None)
    # What held-out evaluation samples is spent too: 3 problems x 2 samples after steps 0, 2 and 4.
    trained = sum(row["tokens_sampled"] for row in alone.rows if row["kind"] == "train")
    measured = sum(6 * row["response_tokens"] for row in alone.rows if row["kind"] == "eval")
    assert outcome.tokens["sampled"] == pytest.approx(trained + measured)
    assert measured > 0
    one, other = outcome.model, resumed.model
    assert one is not None
    assert other is not None
    for name in ("model.safetensors", "trainer.safetensors", "trainer.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_another_models_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    swap_two_ids(tmp_path / "base")
    with pytest.raises(CheckpointError, match="were not trained with this tokenizer"):
        train(tmp_path / "base", tmp_path / "rl", ListRecorder())
    write_model(tiny_model(vocab_size=20), build_tiny_tokenizer(), tmp_path / "small")
    with pytest.raises(CheckpointError, match="embedding 20 rows"):
        train(tmp_path / "small", tmp_path / "rl", ListRecorder())
    assert not (tmp_path / "rl").exists()


def test_tokens_that_prompts_and_answers_take_are_warned_of_where_they_are_untrained(tmp_path: Path) -> None:
    """Once: not again where the stage goes on."""
    recorder = ListRecorder()
    base = write_untrained(tmp_path / "base", "<eos>")
    train(base, tmp_path / "rl", recorder, steps=2)
    train(base, tmp_path / "rl", recorder, steps=3)
    assert sum("warning: the embeddings of <eos> look untrained" in note for note in recorder.notes) == 1


def test_a_stage_that_saved_nothing_is_done_again_from_its_first_row(base: Path, tmp_path: Path) -> None:
    """The evaluation at step 0 is recorded before any checkpoint: done twice, it must stand there once."""

    class Killed(Exception):
        pass

    class Fragile(ListRecorder):
        def progress(self, stage: str, step: int, total: int, **fields: float) -> None:
            if self.stop_after:
                raise Killed

    recorder = Fragile(stop_after=4)
    with pytest.raises(Killed):
        train(base, tmp_path, recorder)
    assert [(row["kind"], row["step"]) for row in recorder.rows] == [("eval", 0), ("train", 1)]
    recorder.stop_after = None
    train(base, tmp_path, recorder, steps=2)
    assert [(row["kind"], row["step"]) for row in recorder.rows] == [
        ("eval", 0),
        ("train", 1),
        ("train", 2),
        ("eval", 2),
    ]


def test_two_ranks_sample_what_one_samples(base: Path, tmp_path: Path, two_ranks: Results) -> None:
    """The number of processes changes nothing that is sampled or counted, and both ranks hold the same policy."""
    run, recorder = opened(base, tmp_path, **RANKS_STAGE)
    run.advance()
    run.advance()
    first, second = two_ranks["rl_stage"]
    assert np.array_equal(first["weights"], second["weights"])
    rows = json.loads(str(first["rows"]))
    assert [row["step"] for row in rows] == [row["step"] for row in recorder.rows]
    for name in ("reward", "response_tokens", "useful_groups", "groups_trained", "tokens_sampled", "tokens_trained"):
        assert rows[0][name] == recorder.rows[0][name], name
    for name in ("loss", "entropy", "grad_norm", "kl"):
        assert rows[0][name] == pytest.approx(recorder.rows[0][name], rel=1e-4, abs=1e-6), name
    np.testing.assert_allclose(first["weights"], run.session.flat.master.numpy(), rtol=1e-3, atol=1e-4)


def test_a_schedule_changes_what_is_sampled_and_not_what_waits(base: Path, tmp_path: Path) -> None:
    """Cap, temperature, group size and batch of the second phase; a carried group keeps its own temperature."""
    second = {"sampling.max_tokens": 5, "sampling.temperature": 1.5, "samples_per_problem": 4, "problems_per_step": 2}
    run, recorder = opened(
        base, tmp_path, schedule=[{"until": {"steps": 1}}, {"set": second}], algorithm={}, evaluate={"every": 0}
    )
    taken: list[SampledGroup] = []
    sampled = run.sample_groups

    def watched(count: int, number: int = 0) -> list[SampledGroup]:
        groups = sampled(count, number)
        taken.extend(groups)
        return groups

    run.sample_groups = watched  # type: ignore[method-assign]
    run.advance()
    first, spare = len(taken), taken[0]
    run.queue.carried = [spare]
    run.advance()
    rows = [row for row in recorder.rows if row["kind"] == "train"]
    assert [row["phase"] for row in rows] == [1, 2]
    for group, size, cap, temperature in ((taken[0].group, 3, 8, 1.0), (taken[first].group, 4, 5, 1.5)):
        assert len(group) == size
        assert max(r.response_length for r in group) <= cap
        assert all(set(r.temperatures[r.loss_mask].tolist()) == {temperature} for r in group)
    # One group of three at temperature 1 and one of four at 1.5, in one update.
    assert (rows[1]["groups_trained"], rows[1]["carried_in"]) == (2, 1)
    # The carried group's ratio is that of its own temperature: one small step away from 1, not a factor.
    assert rows[1]["ratio"] == pytest.approx(1.0, abs=0.2)


def test_a_stage_says_first_what_it_is(base: Path, tmp_path: Path) -> None:
    """The preset in full, what is paid, what is done about engine and trainer, and the phase: before any step."""

    class Told(ListRecorder):
        def note(self, stage: str, text: str) -> None:
            notes.append((text, len(self.rows)))

    notes: list[tuple[str, int]] = []
    schedule = [{"name": "short", "until": {"step": 1}}, {"set": {"sampling.temperature": 0.9}}]
    changes = {"algorithm": {"preset": "dapo"}, "schedule": schedule, "evaluate": {"every": 0}}
    train(base, tmp_path, Told(), **changes)
    assert [text for text, rows in notes if not rows][:4] == [
        stage_settings(**changes).algorithm.described(),
        "reward: 1 x accuracy + 0.1 x format",
        "mismatch correction: off (auto: the engine has the trainer's weights, and both multiply in float32)",
        "phase 1 (short) of 2: as the stage has it",
    ]
    assert notes[0][0].startswith("algorithm (DAPO, arXiv:2503.14476): {preset: dapo, baseline: group, ")


def test_a_stage_stopped_in_a_ramp_equals_the_one_left_alone(base: Path, tmp_path: Path) -> None:
    """Cap and temperature of every step, and so all that is sampled; the KL comes in, so there is a reference."""
    ramp = {
        "sampling.max_tokens": {"start": 4, "end": 8, "steps": 4},
        "sampling.temperature": {"end": 1.3, "steps": 3},
        "algorithm.kl_coef": {"start": 0.0, "end": 0.1, "steps": 2},
    }
    changes: dict[str, Any] = {"schedule": [{"ramp": ramp}], "algorithm": {}}
    alone, recorder = ListRecorder(), ListRecorder(stop_after=2)
    train(base, tmp_path / "alone", alone, **changes)
    rows = [row for row in alone.rows if row["kind"] == "train"]
    assert [row["sampling.max_tokens"] for row in rows] == [4, 5, 7, 8]
    assert [row["sampling.temperature"] for row in rows] == pytest.approx([1.0, 1.15, 1.3, 1.3])
    assert [row["response_tokens"] <= row["sampling.max_tokens"] for row in rows] == [True] * 4
    assert rows[1]["kl"] > 0
    with pytest.raises(Interrupted):
        train(base, tmp_path / "broken", recorder, **changes)
    recorder.stop_after = None
    train(base, tmp_path / "broken", recorder, **changes)
    assert recorder.rows == alone.rows


def test_carried_groups_may_fill_a_step(base: Path, tmp_path: Path) -> None:
    """Nothing is sampled then, and nothing is said about what the policy does."""
    run, recorder = opened(base, tmp_path)
    run.advance()
    spare = [SampledGroup(group) for group in random_groups(7)]
    run.queue.carried = spare[:]
    run.advance()
    row = next(row for row in recorder.rows if (row["kind"], row["step"]) == ("train", 2))
    assert (row["groups_sampled"], row["groups_trained"], row["carried"]) == (0, 3, 4)
    assert row["tokens_sampled"] == 0
    assert "reward" not in row
    assert run.queue.carried == spare[3:]


def test_what_a_group_filter_leaves_out_is_discarded(base: Path, tmp_path: Path) -> None:
    run, recorder = opened(
        base, tmp_path, algorithm={"group_filter": {"kind": "gfpo", "keep": 2}}, dynamic_sampling={"enabled": False}
    )
    run.advance()
    (row,) = [row for row in recorder.rows if row["kind"] == "train"]
    assert row["tokens_discarded"] == row["tokens_filtered"] > 0
    assert row["tokens_sampled"] == row["tokens_trained"] + row["tokens_discarded"]
    assert run.tokens["discarded"] == row["tokens_discarded"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": {"group_filter": {"kind": "roc", "keep": 2}}},
        {"algorithm": {"preset": "ppo_orz", "critic": {"minibatches": 1, "pretrain_steps": 2}}},
    ],
    ids=["plain", "filtered", "critic alone"],
)
def test_every_sampled_token_is_trained_masked_or_discarded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Responses cut at the cap are masked, groups are carried, filtered and left over: the four counts balance."""
    monkeypatch.setattr(group_queue, "problems_to_sample", lambda needed, share, *, max_factor: max(0, needed) + 9)
    recorder, dynamic = ListRecorder(), {"enabled": True, "truncated": "mask"}
    # A policy that was not trained ends seldom: few of 10 groups have a response that is whole within 40 tokens.
    longer = {"sampling": {"max_tokens": 40}, "token_budget": 200, "problems_per_step": 1}
    outcome = train(base, tmp_path, recorder, dynamic_sampling=dynamic, evaluate={"every": 0}, **longer, **changes)
    rows = [row for row in recorder.rows if row["kind"] == "train"]
    assert changes or any(row["carried"] for row in rows)
    assert rows[-1]["carried"] == 0
    spent = outcome.tokens
    assert all(spent[kind] > 0 for kind in ("trained", "masked", "discarded"))
    assert spent["sampled"] == spent["trained"] + spent["masked"] + spent["discarded"]
    assert spent["masked"] == sum(row.get("tokens_masked", 0) for row in rows)


def test_a_step_without_useful_groups_changes_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl, "make_reward", lambda *_, **__: lambda _, group, **__: [{"accuracy": 0.0}] * len(group))
    run, recorder = opened(base, tmp_path)
    before = run.session.flat.master.clone()
    run.advance()
    assert torch.equal(run.session.flat.master, before)
    row, alarm = recorder.rows[-2:]
    assert (row["kind"], row["groups_trained"], row["useful_groups"]) == ("train", 0, 0.0)
    assert (alarm["kind"], alarm["alarm"], alarm["action"]) == ("alarm", "no_useful_group", "warn")
    assert run.step == 1

"""Poisoned samples in a real stage over a scripted engine: none of them stops or biases the run.

Why this matters: at a million responses everything that can come will come; one huge answer, one crash of a verifier
or one response longer than was asked for has ended the runs of others, or was trained as a zero.

Not exercised here: verifiers on pathological text (their own tests); a dead engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1kit.engines.protocol import Request, Sample
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.run_directory import read_rollouts, write_rollouts
from r1kit.records import Problem, Verdict
from r1kit.training import rl, sampling
from r1kit.training.parallel import World
from r1kit.training.sampling import writable

from .stage import TASK, ListRecorder, open_stage, write_base

TOKENIZER = build_tiny_tokenizer()
EOS = TOKENIZER.eos_token_id


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


class ScriptedEngine:
    """Answers every request well, but poisons sample 1 of the first problem asked."""

    policy_version = 0
    max_length = 64

    def __init__(self, poison: Callable[[Sample], Sample]) -> None:
        self.poison, self.model = poison, None

    def load_weights(self, version: int, checksum: str | None = None) -> None:
        self.policy_version = version

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        return [self._answer(request, i == 1) for i, request in enumerate(requests)]

    def _answer(self, request: Request, poisoned: bool) -> Sample:
        # Samples 0 and 2 differ in their first token, so every sound group is useful.
        tokens = [*ids("3" if request.sample % 2 else "4"), EOS]
        sample = Sample(
            request.id, tuple(tokens), tuple(-0.5 for _ in tokens), tuple(False for _ in tokens), "stopped",
            self.policy_version,
        )  # fmt: skip
        return self.poison(sample) if poisoned else sample


def long_answer(sample: Sample) -> Sample:
    return replace(sample, token_ids=(5,) * 500, logprobs=(-0.1,) * 500, forced=(False,) * 500, finish="length")


def huge_number(sample: Sample) -> Sample:
    tokens = (*ids("<answer>9**9</answer>")[:7], EOS)
    return replace(sample, token_ids=tokens, logprobs=(-0.1,) * len(tokens), forced=(False,) * len(tokens))


def empty(sample: Sample) -> Sample:
    return replace(sample, token_ids=(), logprobs=(), forced=())


def not_a_number(sample: Sample) -> Sample:
    return replace(sample, logprobs=(float("nan"), *sample.logprobs[1:]))


def lost(sample: Sample) -> Sample:
    return replace(sample, token_ids=(), logprobs=(), forced=(), finish="aborted", stop_reason="worker gone")


def unparallel(sample: Sample) -> Sample:
    return replace(sample, logprobs=sample.logprobs[:1])


def sound(sample: Sample) -> Sample:
    return sample


def stage(
    base: Path, directory: Path, poison: Callable[[Sample], Sample], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[rl.RLRun, ListRecorder]:
    def reward(problem: Problem, rollouts: Any, *, max_tokens: int, step: int) -> list[dict[str, float]]:
        return [{"accuracy": float(r.response_length > 0 and r.response_ids[0] == ids("4")[0])} for r in rollouts]

    monkeypatch.setattr(rl, "make_reward", lambda settings, **_: reward)
    recorder = ListRecorder()
    small = {"evaluate": {"every": 0}, "algorithm": {}, "problems_per_step": 4}
    run = open_stage(base, directory, World.single(), recorder, **{**small, **changes})
    run.engine = run.sampler.engine = ScriptedEngine(poison)  # type: ignore[assignment]
    return run, recorder


POISONS = [long_answer, not_a_number, lost, unparallel]


@pytest.mark.parametrize("poison", POISONS)
def test_what_the_engine_garbled_costs_its_group_and_no_more(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Callable[[Sample], Sample]
) -> None:
    run, recorder = stage(base, tmp_path, poison, monkeypatch)
    run.advance()
    row = recorder.rows[0]
    assert (row["groups_sampled"], row["groups_failed"], row["groups_trained"]) == (4, 1, 3)
    assert row["accuracy"] == 0.0
    assert row["reward"] == pytest.approx(2 / 3)  # of the three sound groups only
    assert torch.isfinite(run.session.flat.master).all()
    # Exactly what a step of the three other groups alone would have trained.
    other, rows = stage(base, tmp_path / "other", sound, monkeypatch, problems_per_step=3)
    other.pool.cursor = 1
    other.advance()
    assert rows.rows[0]["groups_trained"] == 3
    assert torch.equal(run.session.flat.master, other.session.flat.master)
    run.advance()
    assert run.step == 2


@pytest.mark.parametrize("poison", [huge_number, empty])
def test_what_the_policy_wrote_is_its_own_doing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Callable[[Sample], Sample]
) -> None:
    """Wrong, and trained as such: no policy gets out of a penalty by pathological text."""
    run, recorder = stage(base, tmp_path, poison, monkeypatch)
    run.advance()
    row = recorder.rows[0]
    assert (row["groups_failed"], row["groups_trained"]) == (0, 4)
    assert torch.isfinite(run.session.flat.master).all()
    run.save()


def crash(*_: Any) -> Any:
    raise RecursionError("maximum recursion depth exceeded")


def test_a_crashing_verifier_costs_the_groups_it_crashed_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, recorder = stage(base, tmp_path, sound, monkeypatch)
    calls: list[str] = []

    def verify(problem: Problem, response: str) -> dict[str, Verdict]:
        calls.append(problem.id)
        return crash() if len(calls) == 2 else {"accuracy": Verdict.scored(0, "wrong")}

    monkeypatch.setattr(TASK, "verify", verify)
    with caplog.at_level(logging.ERROR):
        run.advance()
    row = recorder.rows[0]
    assert (row["groups_failed"], row["groups_trained"]) == (1, 3)
    assert run.sampler.troubles == {"verifier": 1}
    assert "RecursionError: maximum recursion depth exceeded: its group is dropped" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_never_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    run, recorder = stage(base, tmp_path, sound, monkeypatch)
    honest, calls = run.sampler.reward, []

    def reward(problem: Problem, rollouts: Any, **named: Any) -> list[dict[str, float]]:
        calls.append(problem.id)
        rows = honest(problem, rollouts, **named)
        return [{"accuracy": value}, *rows[1:]] if len(calls) == 1 else rows

    run.sampler.reward = reward
    run.advance()
    assert (recorder.rows[0]["groups_failed"], recorder.rows[0]["groups_trained"]) == (1, 3)
    assert torch.isfinite(run.session.flat.master).all()


def test_crashing_rewards_and_statistics_are_told_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, recorder = stage(base, tmp_path, sound, monkeypatch)
    run.sampler.reward = crash
    monkeypatch.setattr(TASK, "statistics", crash)
    with caplog.at_level(logging.ERROR):
        run.advance()
        run.advance()
    assert [row["groups_failed"] for row in recorder.rows if row["kind"] == "train"] == [4, 4]
    assert run.sampler.troubles == {"reward": 8, "statistics": 24}
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["reward", "statistics"]


def test_a_prompt_without_room_for_a_response_is_passed_over(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recorder = stage(base, tmp_path, sound, monkeypatch)
    long = sampling.problem_at(run.pool.problems, 0, 5)
    wordy = replace(long, prompt=(replace(long.prompt[0], content="9 " * 60),))
    run.pool.problems = [wordy if p.id == long.id else p for p in run.pool.problems]
    run.advance()
    assert recorder.rows[0]["groups_sampled"] == 3
    assert run.sampler.troubles == {"prompt": 1}


def test_broken_unicode_in_a_response_is_trained_and_stored(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is judged, written with the rollouts, and kept in a checkpoint with a carried group."""
    run, recorder = stage(base, tmp_path, sound, monkeypatch, problems_per_step=2, rollouts_every=1)
    file, whole = tmp_path / "step-000001.jsonl.zst", sampling.response_texts
    monkeypatch.setattr(sampling, "response_texts", lambda *args: ["\ud83d\x00 \udfff", *whole(*args)[1:]])
    monkeypatch.setattr(recorder, "rollouts", lambda stage, step, groups: write_rollouts(file, groups))
    run.advance()
    run.queue.carried = run.sampler.sample(run.pool.draw(1, run.settings.pools), 2, 2)
    run.save()
    (row,) = [row for row in recorder.rows if row["kind"] == "train"]
    assert (row["groups_failed"], row["groups_trained"]) == (0, 2)
    assert torch.isfinite(run.session.flat.master).all()
    first, _ = read_rollouts(file)
    assert first.rollouts[0].text == "?\x00 ?"
    again, _ = stage(base, tmp_path, sound, monkeypatch, problems_per_step=2)
    assert again.queue.carried == run.queue.carried
    assert again.queue.carried[0].group.rollouts[0].text == "?\x00 ?"


def test_broken_unicode_can_be_written(tmp_path: Path) -> None:
    """Half a surrogate pair, as a decoder may make of cut bytes: replaced before anything stores it."""
    broken = "ok \ud83d\x00 \U0001f600"
    assert writable(broken) == "ok ?\x00 \U0001f600"
    assert writable("plain") == "plain"
    (tmp_path / "x").write_text(writable(broken), encoding="utf-8")

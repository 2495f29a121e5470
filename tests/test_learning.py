"""The promise of the project in one test: from random weights, RL with rule rewards raises held-out accuracy.

Why it matters: every part can pass its own tests while the whole learns nothing (a mask shifted by one, a reward that
never arrives, an advantage with the wrong sign). Here a tiny base is pre-trained on text that is right three times in
four, trained by RL, and measured on problems it never saw; with the advantage's sign flipped the same run must fail.

Not exercised: search. The task ("is the first number larger?") is small enough for half a minute; countdown needs the
quick start's minutes (docs/results.md). Several processes are tested in tests/training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from r1kit.config.parts import ModelSettings
from r1kit.config.presets import PRESETS
from r1kit.config.schema import PretrainSettings, RLSettings
from r1kit.records import Message, Problem, Verdict
from r1kit.training import credit, pretraining
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder
from r1kit.training.rl import train_rl

NUMBERS = range(30)
TRUE, FALSE = " yes", " no\n"


def held_out(a: int, b: int) -> bool:
    return (7 * a + 11 * b) % 5 == 0


class Comparison:
    """`Q:7>4` is answered ` yes` or ` no`, in answer tags. The split is by pair."""

    name = "comparison"

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            Problem(f"{a}>{b}", (Message("text", f"Q:{a}>{b}\n"),), self.name, {"larger": a > b}, split=split)
            for a in NUMBERS
            for b in NUMBERS
            if a != b and held_out(a, b) == (split == "test")
        ]

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        answer = re.fullmatch(r"<answer>( yes| no\n)</answer>", response)
        if answer is None:
            return {name: Verdict.scored(0.0, "no_answer") for name in ("accuracy", "format")}
        right = (answer[1] == TRUE) == problem.payload["larger"]
        accuracy = Verdict.scored(float(right), "correct" if right else "wrong")
        return {"accuracy": accuracy, "format": Verdict.scored(1.0, "correct")}

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        return {"attempts": float(response.count("<answer>"))}

    def blind_rate(self, problem: Problem) -> float:
        return 0.5


def sloppy_documents(_task: Any, _corpus: Any, seed: int) -> Iterator[str]:
    """Questions about training pairs; three answers in four are right, and seven in ten wear the tags."""
    rng = random.Random(seed)
    while True:
        a, b = rng.sample(NUMBERS, 2)
        if held_out(a, b):
            continue
        answer = TRUE if (a > b) == (rng.random() < 0.75) else FALSE
        yield f"Q:{a}>{b}\n" + (f"<answer>{answer}</answer>" if rng.random() < 0.7 else f"A:{answer}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows the question and both ways to answer it, and does not care which is right."""
    torch.set_num_threads(1)
    settings = PretrainSettings(
        model=ModelSettings(hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=128),
        tokens=500_000,
        tokens_per_step=1024,
        document_length=64,
        token_budget=2048,
        warmup_steps=20,
        checkpoint_every=10_000,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "documents", sloppy_documents)
        outcome = pretraining.pretrain(
            settings,
            stage="base",
            task=Comparison(),
            task_settings=None,
            seed=0,
            world=World.single(),
            recorder=NullRecorder(),
            directory=tmp_path_factory.mktemp("base"),
            dtype="float32",
        )
    assert outcome.model is not None
    return outcome.model


class Curve(NullRecorder):
    """Keeps the held-out accuracy by step."""

    def __init__(self) -> None:
        self.accuracy: dict[int, float] = {}

    def metrics(self, stage: str, step: int, values: Any, clock: Any, kind: str = "train") -> None:
        if kind == "eval":
            self.accuracy[step] = values["pass@1"]


def accuracies(base: Path, directory: Path, steps: int, **changes: Any) -> tuple[float, float]:
    """Held-out pass@1 before and after `steps` steps of RL."""
    settings = RLSettings.model_validate(
        {
            "model": "base",
            "steps": steps,
            "problems_per_step": 32,
            "samples_per_problem": 8,
            "token_budget": 2048,
            "warmup_steps": 2,
            "sampling": {"max_tokens": 12},
            "optimizer": {"name": "adamw", "lr": 2e-3, "betas": (0.9, 0.99)},
            "evaluate": {"every": 1000, "problems": 174, "samples": 4, "max_tokens": 12},
            "checkpoint_every": 10_000,
            **changes,
        }
    )
    curve = Curve()
    train_rl(
        settings,
        stage="rl",
        model_path=base,
        task=Comparison(),
        seed=0,
        world=World.single(),
        recorder=curve,
        directory=directory,
        dtype="float32",
    )
    return curve.accuracy[0], curve.accuracy[steps]


def test_rl_raises_held_out_accuracy_by_20_points(base: Path, tmp_path: Path) -> None:
    before, after = accuracies(base, tmp_path, steps=25)
    assert after >= before + 0.20, f"pass@1 went from {before:.1%} to {after:.1%}"


def test_a_flipped_advantage_does_not_learn(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = credit.group_advantages
    monkeypatch.setattr(credit, "group_advantages", lambda rewards, **how: -honest(rewards, **how))
    before, after = accuracies(base, tmp_path, steps=25)
    assert after < before, f"pass@1 went from {before:.1%} to {after:.1%} with every advantage's sign flipped"


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns(base: Path, tmp_path: Path, name: str) -> None:
    algorithm: dict[str, Any] = {"preset": name}
    if name == "vapo":
        algorithm["critic"] = {"pretrain_steps": 5}  # fifty of its own are more than there are
    before, after = accuracies(base, tmp_path, steps=25, algorithm=algorithm)
    assert after >= before + 0.15, f"pass@1 went from {before:.1%} to {after:.1%}"

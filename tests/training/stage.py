"""A whole RL stage made small: task, settings, reward and a recorder that keeps its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from r1kit.config.schema import RLSettings
from r1kit.config.tasks import CountdownSettings
from r1kit.models.loading import write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Problem, Rollout
from r1kit.tasks import make_task
from r1kit.training import rl
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder

from .helpers import rl_settings, tiny_model

TASK_SETTINGS = CountdownSettings(high=6, test_share=0.3)
TASK = make_task(TASK_SETTINGS)


def stage_settings(**changes: Any) -> RLSettings:
    """A stage that runs in a moment, with everything on that a checkpoint has to bring back."""
    values: dict[str, Any] = {
        "steps": 4,
        "problems_per_step": 3,
        "samples_per_problem": 3,
        "token_budget": 60,
        "sampling": {"max_tokens": 8},
        "algorithm": {"kl_coef": 0.1, "reference_refresh": 1, "minibatches": 2},
        "optimizer": {"name": "muon", "lr": 0.05, "adam_lr": 0.01},
        "warmup_steps": 2,
        "engine": {"slots": 8},
        "evaluate": {"every": 2, "problems": 3, "samples": 2, "max_tokens": 6},
        "checkpoint_every": 1,
    }
    return rl_settings(**{**values, **changes})


def write_base(directory: Path, seed: int = 0, **shape: int) -> Path:
    """A checkpoint of an untrained policy."""
    tokenizer = build_tiny_tokenizer()
    write_model(tiny_model(seed, vocab_size=len(tokenizer), **shape), tokenizer, directory)
    return directory


def swap_two_ids(model: Path) -> None:
    """Two words of the tokenizer beside a model change places."""
    path = model / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocabulary = raw["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(raw))


def write_untrained(directory: Path, token: str) -> Path:
    """A checkpoint in which the row of one token is as small as when it was made."""
    tokenizer = build_tiny_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer))
    with torch.no_grad():
        model.embedding[tokenizer.convert_tokens_to_ids(token)] *= 0.01
    write_model(model, tokenizer, directory)
    return directory


def even_tokens(problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int) -> list[dict[str, float]]:
    """A reward that an untrained policy earns now and then: without any, no group would be useful."""
    return [{"accuracy": float(rollout.response_ids[0] % 2 == 0)} for rollout in rollouts]


class ListRecorder(NullRecorder):
    """Keeps the rows, forgets them as the pipeline does, and asks to stop after a given step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.stop_after = stop_after

    def metrics(
        self, stage: str, step: int, values: Mapping[str, float], clock: Mapping[str, float], kind: str = "train"
    ) -> None:
        self.rows.append({"stage": stage, "kind": kind, "step": step, **values})

    def note(self, stage: str, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return bool(self.rows) and self.rows[-1]["step"] == self.stop_after

    def truncate(self, stage: str, step: int) -> None:
        self.rows = [row for row in self.rows if row["step"] <= step]


def open_stage(base: Path, directory: Path, world: World, recorder: ListRecorder, **changes: Any) -> rl.RLRun:
    return rl.RLRun(stage_settings(**changes), "rl", base, TASK, 5, world, recorder, directory, "float32")

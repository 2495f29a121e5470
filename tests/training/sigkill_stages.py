"""The stages that learn from data, and the one that makes them, for tests/training/sigkill.py.

`python -m tests.training.sigkill_stages FOLDER JOB:DIRECTORY=MOMENT,...`: FOLDER holds a checkpoint `base` and what
`write_data` put there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from r1kit.config.generate import GenerateSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.supervised import SFTSettings
from r1kit.curation import generate as generating
from r1kit.engines.local import LocalEngine
from r1kit.pipeline.metrics import MetricsLog
from r1kit.tasks.countdown import Countdown
from r1kit.training import checkpoints, preference, reward_model, supervised
from r1kit.training.parallel import World
from r1kit.training.recorder import StageOutcome

from .judged import pair_rows, write_rows
from .sigkill import FileRecorder, Targets, attempt
from .stage import TASK, write_base

EVALUATE = {"every": 3, "problems": 2, "samples": 2, "max_tokens": 4}
DATA: dict[str, Any] = {
    "max_tokens": 60,
    "token_budget": 60,
    "batch_size": 6,
    "held_out_share": 0.2,
    "log_every": 1,
    "checkpoint_every": 2,
    "keep_checkpoints": 2,
    "warmup_share": 0.2,
    "decay": "cosine",
    "optimizer": {"lr": 3e-3},
}
SFT = {"epochs": 3, "select": "loss", "neftune_alpha": 5.0, "evaluate": EVALUATE}
PREFERENCE: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", "evaluate": EVALUATE},
    "kto": {"method": "kto", "labelled": False},
    "adapters": {"method": "nca", "lora": {"rank": 4, "alpha": 8.0}, "evaluate": EVALUATE},
}
REWARD_MODELS: dict[str, dict[str, Any]] = {
    "pairwise": {"method": "pairwise", "margin": 0.2},
    "pointwise": {"method": "pointwise"},
    "process": {"method": "process", "step_separator": "\n"},
    "implicit": {"method": "implicit"},
}
GENERATE = {"samples": 4, "problems": 12, "wave": 2, "require": (), "per_problem": 2, "sampling": {"max_tokens": 8}}


def prepared(folder: Path) -> Path:
    """`folder` with an untrained policy and the data of all jobs."""
    write_base(folder / "base")
    write_data(folder)
    return folder


def write_data(folder: Path) -> None:
    """One file of rows for each form that these stages read."""
    pairs = pair_rows(16)
    asked = [row["prompt"] for row in pairs]
    sides = [(row["prompt"], row[side], side == "chosen") for row in pairs for side in ("chosen", "rejected")]
    turns = [{"messages": [*prompt, answer], "label": good} for prompt, answer, good in sides]
    steps = [[f"{i}+{n}={i + n}{' no' if n == i % 3 else ''}" for n in range(3)] for i in range(len(asked))]
    rated = [
        {"prompt": prompt, "steps": written, "labels": [float("no" not in step) for step in written]}
        for prompt, written in zip(asked, steps, strict=True)
    ]
    for name, rows in {"pairs": pairs, "turns": turns, "steps": rated}.items():
        write_rows(folder / f"{name}.jsonl", rows)


def stage(folder: Path, rows: str, directory: Path) -> dict[str, Any]:
    """What every stage is told."""
    world, recorder = World.single(), FileRecorder(directory / "metrics.jsonl")
    inputs = {"model": folder / "base", "data[0].path": folder / f"{rows}.jsonl"}
    shared = {"stage": "stage", "seed": 5, "world": world, "recorder": recorder, "dtype": "float32"}
    return {**shared, "inputs": inputs, "directory": directory / "checkpoints"}


def settings(kind: Any, folder: Path, rows: str, **changes: Any) -> Any:
    return kind.model_validate({"model": "m", "data": [{"path": f"{folder}/{rows}.jsonl"}], **DATA, **changes})


def sft(folder: Path, directory: Path) -> StageOutcome:
    told = stage(folder, "turns", directory)
    model = told.pop("inputs")["model"]
    chosen = settings(SFTSettings, folder, "turns", **SFT)
    return supervised.train_sft(chosen, model_path=model, data_paths={}, task=TASK, **told)


def preferring(changes: dict[str, Any], folder: Path, directory: Path) -> StageOutcome:
    chosen = settings(PreferenceSettings, folder, "pairs", epochs=4, **changes)
    return preference.train_preference(chosen, task=TASK, **stage(folder, "pairs", directory))


def judging(changes: dict[str, Any], folder: Path, directory: Path) -> StageOutcome:
    rows = {"pairwise": "pairs", "process": "steps"}.get(changes["method"], "turns")
    chosen = settings(RewardModelSettings, folder, rows, epochs=4, measure_every=3, **changes)
    return reward_model.train_reward_model(chosen, **stage(folder, rows, directory))


def generate(folder: Path, directory: Path) -> StageOutcome:
    told = stage(folder, "", directory)
    model = told.pop("inputs")["model"]
    chosen = GenerateSettings.model_validate({"model": "m", **GENERATE})
    return generating.generate(chosen, model_path=model, task=TASK, **{**told, "directory": directory / "data"})


JOBS: dict[str, Callable[[Path, Path], StageOutcome]] = {
    "sft": sft,
    **{name: partial(preferring, changes) for name, changes in PREFERENCE.items()},
    **{name: partial(judging, changes) for name, changes in REWARD_MODELS.items()},
    "generate": generate,
}
TARGETS: Targets = {
    "sampling": [(LocalEngine, "_advance")],
    "verifying": [(Countdown, "verify")],
    "backward": [(torch.Tensor, "backward")],
    "recording": [(MetricsLog, "append")],
    "writing": [(checkpoints, "flush")],
    # References, traces and counts.
    "replacing": [(Path, "replace")],
}
SAMPLES = ("sft", "dpo", "adapters", "generate")
REPLACES = ("dpo", "kto", "adapters", "implicit", "generate")


def phases(job: str) -> list[str]:
    """What a stage goes through."""
    if job == "generate":
        return ["sampling", "verifying", "recording", "replacing"]
    found = ["backward", "recording", "writing"]
    return found + ["sampling"] * (job in SAMPLES) + ["replacing"] * (job in REPLACES)


def run(job: str, folder: Path, directory: Path) -> None:
    """The stage to its end, and what it hands on."""
    directory.mkdir(parents=True, exist_ok=True)
    outcome = JOBS[job](folder, directory)
    handed = {name: str(value) for name, value in vars(outcome).items() if name not in ("model", "data")}
    made = outcome.model or outcome.data
    assert made is not None
    (directory / "outcome.json").write_text(json.dumps({**handed, "made": str(made.relative_to(directory))}))


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for text in sys.argv[2:]:
        place, _, moments = text.partition("=")
        job, _, directory = place.partition(":")
        stage_run = partial(run, job, folder, Path(directory))
        print(sum(attempt(stage_run, TARGETS, moment) for moment in moments.split(",") if moment))
        attempt(stage_run, TARGETS, None)


if __name__ == "__main__":
    main()

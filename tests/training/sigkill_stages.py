"""The stages that learn from data, make them, merge and measure, for tests/training/sigkill.py.

`python -m tests.training.sigkill_stages FOLDER JOB:DIRECTORY=MOMENT,...`: FOLDER holds two checkpoints and what
`write_data` put there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from r1kit.config.generate import GenerateSettings
from r1kit.config.machine import resolve_native
from r1kit.config.merge import MergeSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.schema import EvaluateSettings, PretrainSettings
from r1kit.config.supervised import SFTSettings
from r1kit.curation import generate as generating
from r1kit.engines.local import LocalEngine
from r1kit.pipeline.kinds import StageContext, run_evaluate
from r1kit.pipeline.merge import run_merge
from r1kit.pipeline.metrics import MetricsLog
from r1kit.pipeline.worker import die_with_parent
from r1kit.records import Problem, Verdict
from r1kit.tasks.countdown import Countdown
from r1kit.training import checkpoints, preference, pretraining, reward_model, supervised
from r1kit.training.parallel import PeerError, World
from r1kit.training.recorder import NullRecorder, StageOutcome

from .judged import pair_rows, write_rows
from .sigkill import FileRecorder, Targets, attempt
from .stage import TASK, TASK_SETTINGS, write_base

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
NATIVE = resolve_native("on")
ADAPTERS = {"rank": 4, "alpha": 8.0}
PRETRAIN = {
    "model": {"hidden": 32, "layers": 2, "heads": 1, "kv_heads": 1, "head_dim": 32, "intermediate": 32},
    "tokens": 1400,
    "tokens_per_step": 200,
    "document_length": 40,
    "token_budget": 80,
    "warmup_steps": 2,
    "log_every": 1,
    "checkpoint_every": 2,
    "keep_checkpoints": 2,
    "evaluate": EVALUATE,
    "native": NATIVE,
}
SFT: dict[str, dict[str, Any]] = {
    "sft": {"neftune_alpha": 5.0},
    "sft_adapters": {"lora": ADAPTERS},
    "sft_compiled": {"native": NATIVE},
    "sft_two": {"neftune_alpha": 5.0},
}
PREFERENCE: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", "evaluate": EVALUATE},
    "dpo_compiled": {"method": "dpo", "native": NATIVE, "evaluate": EVALUATE},
    "kto": {"method": "kto", "labelled": False},
    "adapters": {"method": "nca", "lora": ADAPTERS, "evaluate": EVALUATE},
}
REWARD_MODELS: dict[str, dict[str, Any]] = {
    "pairwise": {"method": "pairwise", "margin": 0.2},
    "pointwise": {"method": "pointwise"},
    "process": {"method": "process", "step_separator": "\n"},
    "implicit": {"method": "implicit"},
}
MERGE = {"grid": {"weights": [[1, 3], [3, 1]]}, "evaluate": {"problems": 4, "samples": 2, "max_tokens": 6}}
MEASURE = {"problems": 6, "samples": 3, "max_tokens": 6, "slots": 4}
GENERATE = {"samples": 4, "problems": 12, "wave": 2, "require": (), "per_problem": 2, "sampling": {"max_tokens": 8}}


def prepared(folder: Path) -> Path:
    """`folder` with two untrained policies and the data of all jobs."""
    write_base(folder / "base")
    write_base(folder / "other", seed=1)
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


def stage(folder: Path, rows: str, directory: Path, world: World) -> dict[str, Any]:
    """What every stage is told."""
    inputs = {"model": folder / "base", "data[0].path": folder / f"{rows}.jsonl"}
    shared = {"stage": "stage", "seed": 5, "world": world, "recorder": recorder(directory, world), "dtype": "float32"}
    return {**shared, "inputs": inputs, "directory": directory / "checkpoints"}


def recorder(directory: Path, world: World) -> NullRecorder:
    """Of several processes the first one writes."""
    return FileRecorder(directory / "metrics.jsonl") if world.is_main else NullRecorder()


def settings(kind: Any, folder: Path, rows: str, **changes: Any) -> Any:
    return kind.model_validate({"model": "m", "data": [{"path": f"{folder}/{rows}.jsonl"}], **DATA, **changes})


def pretrain(folder: Path, directory: Path, world: World) -> StageOutcome:
    told = stage(folder, "", directory, world)
    told.pop("inputs")
    return pretraining.pretrain(PretrainSettings(**PRETRAIN), task=TASK, task_settings=TASK_SETTINGS, **told)


def tuning(changes: dict[str, Any], folder: Path, directory: Path, world: World) -> StageOutcome:
    told = stage(folder, "turns", directory, world)
    model = told.pop("inputs")["model"]
    chosen = settings(SFTSettings, folder, "turns", epochs=3, select="loss", evaluate=EVALUATE, **changes)
    return supervised.train_sft(chosen, model_path=model, data_paths={}, task=TASK, **told)


def preferring(changes: dict[str, Any], folder: Path, directory: Path, world: World) -> StageOutcome:
    chosen = settings(PreferenceSettings, folder, "pairs", epochs=4, **changes)
    return preference.train_preference(chosen, task=TASK, **stage(folder, "pairs", directory, world))


def judging(changes: dict[str, Any], folder: Path, directory: Path, world: World) -> StageOutcome:
    rows = {"pairwise": "pairs", "process": "steps"}.get(changes["method"], "turns")
    chosen = settings(RewardModelSettings, folder, rows, epochs=4, measure_every=3, **changes)
    return reward_model.train_reward_model(chosen, **stage(folder, rows, directory, world))


def generate(folder: Path, directory: Path, world: World) -> StageOutcome:
    told = stage(folder, "", directory, world)
    model = told.pop("inputs")["model"]
    chosen = GenerateSettings.model_validate({"model": "m", **GENERATE})
    return generating.generate(chosen, model_path=model, task=TASK, **{**told, "directory": directory / "data"})


def measured(run: Any, chosen: Any, models: dict[str, Path], directory: Path, world: World) -> StageOutcome:
    """A stage of the pipeline's own. Untrained policies are right where what they wrote has an even hash: else all
    would be measured alike."""
    told = recorder(directory, world)
    real = Countdown.verify

    def verify(task: Countdown, problem: Problem, response: str) -> dict[str, Verdict]:
        right = 1 - hashlib.sha256(response.encode()).digest()[0] % 2
        return real(task, problem, response) | {"accuracy": Verdict.scored(right, ("wrong", "correct")[right])}

    with patch.object(Countdown, "verify", verify):
        return run(StageContext("stage", chosen, TASK_SETTINGS, 5, "float32", directory, models, world, told))


def merge(folder: Path, directory: Path, world: World) -> StageOutcome:
    models = {"models[0]": folder / "base", "models[1]": folder / "other"}
    chosen = MergeSettings.model_validate({"models": [str(path) for path in models.values()], **MERGE})
    return measured(run_merge, chosen, models, directory, world)


def measure(folder: Path, directory: Path, world: World) -> StageOutcome:
    chosen = EvaluateSettings.model_validate({"model": "m", **MEASURE})
    return measured(run_evaluate, chosen, {"model": folder / "base"}, directory, world)


JOBS: dict[str, Callable[[Path, Path, World], StageOutcome]] = {
    "pretrain_two": pretrain,
    **{name: partial(tuning, changes) for name, changes in SFT.items()},
    **{name: partial(preferring, changes) for name, changes in PREFERENCE.items()},
    **{name: partial(judging, changes) for name, changes in REWARD_MODELS.items()},
    "generate": generate,
    "merge": merge,
    "evaluate": measure,
}
COMPILED = ("pretrain_two", "sft_compiled", "dpo_compiled")  # these need a C++ compiler
IN_TWO = ("pretrain_two", "sft_two")
TARGETS: Targets = {
    "sampling": [(LocalEngine, "_advance")],
    "verifying": [(Countdown, "verify")],
    "backward": [(torch.Tensor, "backward")],
    "recording": [(MetricsLog, "append")],
    "writing": [(checkpoints, "flush")],
    # References, traces and counts.
    "replacing": [(Path, "replace")],
}
REPLACES = ("dpo", "dpo_compiled", "kto", "adapters", "implicit")


def phases(job: str) -> list[str]:
    """What a stage goes through."""
    if job in ("generate", "merge"):
        return ["sampling", "verifying", "recording", "replacing"] + ["writing"] * (job == "merge")
    if job == "evaluate":
        return ["sampling", "verifying"]
    found = ["backward", "recording", "writing"] + ["backward@1"] * (job in IN_TWO)
    samples = job == "pretrain_two" or job in SFT or "evaluate" in PREFERENCE.get(job, {})
    return found + ["sampling"] * samples + ["replacing"] * (job in REPLACES)


def run(job: str, folder: Path, directory: Path) -> None:
    """The stage to its end, and what it hands on."""
    directory.mkdir(parents=True, exist_ok=True)
    if job in IN_TWO:
        in_two(partial(JOBS[job], folder, directory), directory)
    else:
        note(JOBS[job](folder, directory, World.single()), directory)


def in_two(work: Callable[[World], StageOutcome], directory: Path) -> None:
    """`work` in this process and a fork that ends with it; where the fork is killed, this one is too.

    (In a run the first process says that the other is lost, and ends.)
    """
    store, first = directory.with_name(f"store-{os.getpid()}"), os.getpid()
    other = os.fork()
    if other == 0:
        code = 1
        try:
            die_with_parent(first)
            world = World.connect(store, 1, 2, 60.0)
            work(world)
            world.close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    world = World.connect(store, 0, 2, 60.0)
    try:
        note(work(world), directory)
        world.close()
    except PeerError:
        if os.WIFSIGNALED(os.waitpid(other, 0)[1]):
            os.kill(first, signal.SIGKILL)
        raise
    assert os.waitpid(other, 0)[1] == 0


def note(outcome: StageOutcome, directory: Path) -> None:
    """What the stage handed on, beside its files."""
    handed = {name: str(value) for name, value in vars(outcome).items() if name not in ("model", "data")}
    made = outcome.model or outcome.data
    assert made or outcome.eval
    handed["made"] = str(made.relative_to(directory)) if made else ""
    (directory / "outcome.json").write_text(json.dumps(handed))


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

"""Measure a checkpoint on a task: model, tokenizer, engine and evaluation put together."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from r1kit.config.load import dump_recipe, parse_recipe
from r1kit.config.machine import resolve
from r1kit.config.schema import EvaluateSettings, Recipe
from r1kit.config.tasks import TaskSettings
from r1kit.pipeline.ask import recipe_task
from r1kit.pipeline.files import RunError, plain
from r1kit.pipeline.launch import Team

if TYPE_CHECKING:
    from r1kit.engines.local import LocalEngine
    from r1kit.evaluation import Peers

ALONE = "evaluation"


def measure_model(
    model: Path,
    task: TaskSettings,
    settings: EvaluateSettings,
    *,
    seed: int,
    dtype: str,
    device: str = "cpu",
    world: Peers | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluation of the checkpoint `model` on the held-out problems of `task`: plain JSON, with examples.

    With a `world` of several processes each samples its share and all return the same. `note` is told what a person
    should know of the model's tokens.
    """
    from r1kit.evaluation import evaluate
    from r1kit.models.loading import load_tokenizer
    from r1kit.models.vocabulary import sampling_warnings
    from r1kit.tasks import make_task

    made, tokenizer = make_task(task), load_tokenizer(model)
    problems = made.problems("test")
    engine = open_engine(
        model,
        dtype=dtype,
        device=device,
        slots=settings.slots,
        deterministic=settings.deterministic,
        native=settings.native,
    )
    if note is not None:
        for line in sampling_warnings(engine.model, tokenizer, problems, model):
            note(line)
    evaluation = evaluate(
        engine,
        tokenizer,
        made,
        problems,
        settings,
        seed=seed,
        peers=world,
        progress=progress,
    )
    return evaluation.to_json()


def open_engine(
    model: Path, *, dtype: str, slots: int, deterministic: bool, native: str = "off", device: str = "cpu"
) -> LocalEngine:
    """The local engine over the checkpoint `model`; `dtype` and `device` are resolved."""
    from r1kit.engines.local import LocalEngine
    from r1kit.models.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(model)
    return LocalEngine(
        load_model(model, dtype=dtype, device=device, tokenizer=tokenizer),
        tokenizer,
        slots=slots,
        deterministic=deterministic,
        native=native,
    )


def one_stage_recipe(
    model: Path,
    task: str | None,
    settings: Mapping[str, Any],
    *,
    seed: int,
    dtype: str,
    device: str,
    processes: str,
    overrides: Sequence[str],
) -> Recipe:
    """A recipe that only measures `model`; without a task's name, on the task of the run it lies in."""
    found = recipe_task(model)
    if task is None and found is None:
        raise RunError(f"{model} is not part of a run, so its task is unknown: give --task countdown")
    same = found is not None and task in (None, found.name)
    text = yaml.safe_dump(
        {
            "name": ALONE,
            "seed": seed,
            "task": found.model_dump(mode="json") if found is not None and same else task,
            "dtype": dtype,
            "device": device,
            "processes": int(processes) if processes.isdecimal() else processes,
            "stages": {ALONE: {"kind": "evaluate", "model": str(model.resolve()), **settings}},
        }
    )
    return resolve(parse_recipe(text, "the command line", overrides))


def measure_checkpoint(recipe: Recipe) -> dict[str, Any]:
    """The evaluation of a `one_stage_recipe`, over its processes, outside any run directory."""
    from r1kit.pipeline.kinds import RUNNERS, StageContext, run_stage
    from r1kit.sandbox import use_sandbox
    from r1kit.training.recorder import NullRecorder

    stage = recipe.stages[ALONE]
    assert isinstance(stage, EvaluateSettings)
    with tempfile.TemporaryDirectory(prefix="r1kit-") as folder:
        root = Path(folder)
        with Team(root, int(recipe.processes), recipe.device) as team:
            order = {"stage": ALONE, "recipe": dump_recipe(recipe), "root": str(root), "inputs": {"model": stage.model}}
            team.announce({**order, "runners": "r1kit.pipeline.kinds"})
            assert team.world is not None
            use_sandbox(recipe.sandbox, tell=lambda line: print(line, file=sys.stderr))
            outcome = run_stage(
                RUNNERS["evaluate"],
                StageContext(
                    name=ALONE,
                    settings=stage,
                    task=recipe.task,
                    seed=recipe.seed,
                    dtype=recipe.dtype,
                    root=root,
                    inputs={"model": Path(stage.model)},
                    world=team.world,
                    recorder=NullRecorder(),
                ),
            )
    evaluation: dict[str, Any] = plain(outcome.eval)
    return evaluation


def describe_evaluation(evaluation: Mapping[str, Any]) -> str:
    """Three lines for the terminal: what was measured how, the numbers with their 95 % interval, the behaviour."""
    first = evaluation["pass@1"]
    others = "".join(f", pass@{k} {percent(value)}" for k, value in evaluation["pass@k"].items() if k != "1")
    shares = ("truncated", "format_finished", "backtracking", "verdict_right")
    behaviour = ", ".join(f"{name.replace('_', ' ')} {percent(evaluation.get(name))}" for name in shares)
    attempts = evaluation.get("attempts")
    return (
        f"{evaluation['benchmark']}: {evaluation['n']} problems x {evaluation['k']} samples, "
        f"cap {evaluation['cap']} tokens, temperature {evaluation['temperature']:g}, seed {evaluation['seed']}\n"
        f"pass@1 {percent(first['value'])} (95 %: {percent(first['low'])} to {percent(first['high'])}){others}\n"
        f"{evaluation['tokens_mean']:.1f} tokens and {'-' if attempts is None else f'{attempts:.2f}'} attempts a "
        f"response; {behaviour}"
    )


def percent(value: float | None) -> str:
    """A share in per cent; `-` where nothing could be measured."""
    return "-" if value is None else f"{100 * value:.1f} %"

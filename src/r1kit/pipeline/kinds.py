"""What each stage kind runs, the same on every rank. torch is imported only when a stage begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.generate import GenerateSettings
from r1kit.config.graph import edge_part
from r1kit.config.schema import EvaluateSettings, PretrainSettings, RLSettings, StageSettings
from r1kit.config.supervised import SFTSettings
from r1kit.config.tasks import TaskSettings
from r1kit.pipeline.files import RunError

if TYPE_CHECKING:
    from r1kit.training.parallel import World
    from r1kit.training.recorder import Recorder, StageOutcome


@dataclass(frozen=True)
class StageContext:
    """All a stage may know. `inputs` are the paths of models and data by setting, such as `model` or `models[0]`."""

    name: str
    settings: StageSettings
    task: TaskSettings
    seed: int
    dtype: str
    root: Path
    inputs: Mapping[str, Path]
    world: World
    recorder: Recorder

    @property
    def model(self) -> Path | None:
        """The path of the input model, None for a stage that has none."""
        return self.inputs.get("model")

    @property
    def shared(self) -> dict[str, Any]:
        """What every kind of stage that makes something is told, whatever it makes."""
        return {"stage": self.name, "seed": self.seed, "world": self.world, "recorder": self.recorder}

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints" / self.name


Runner = Callable[[StageContext], "StageOutcome"]


def run_pretrain(context: StageContext) -> StageOutcome:
    from r1kit.tasks import make_task
    from r1kit.training.pretraining import pretrain

    assert isinstance(context.settings, PretrainSettings)
    return pretrain(
        context.settings,
        task=make_task(context.task),
        task_settings=context.task,
        directory=context.checkpoints,
        dtype=context.dtype,
        **context.shared,
    )


def run_generate(context: StageContext) -> StageOutcome:
    from r1kit.curation.generate import generate
    from r1kit.tasks import make_task

    assert isinstance(context.settings, GenerateSettings)
    assert context.model is not None
    return generate(
        context.settings,
        model_path=context.model,
        task=make_task(context.task),
        directory=context.root / "data" / context.name,
        dtype=context.dtype,
        **context.shared,
    )


def run_journey(context: StageContext) -> StageOutcome:
    from r1kit.curation.journey import write_journeys
    from r1kit.tasks import make_task

    return write_journeys(
        context.settings,
        task=make_task(context.task),
        directory=context.root / "data" / context.name,
        **context.shared,
    )


def run_sft(context: StageContext) -> StageOutcome:
    from r1kit.tasks import make_task
    from r1kit.training.supervised import train_sft

    assert isinstance(context.settings, SFTSettings)
    assert context.model is not None
    return train_sft(
        context.settings,
        model_path=context.model,
        data_paths={i: context.inputs[f"data[{i}].path"] for i in range(len(context.settings.data))},
        task=make_task(context.task),
        directory=context.checkpoints,
        dtype=context.dtype,
        **context.shared,
    )


def run_preference(context: StageContext) -> StageOutcome:
    from r1kit.tasks import make_task
    from r1kit.training.preference import train_preference

    return train_preference(
        context.settings,
        inputs=context.inputs,
        task=make_task(context.task),
        directory=context.checkpoints,
        dtype=context.dtype,
        **context.shared,
    )


def run_reward_model(context: StageContext) -> StageOutcome:
    from r1kit.training.reward_model import train_reward_model

    return train_reward_model(
        context.settings,
        inputs=context.inputs,
        directory=context.checkpoints,
        dtype=context.dtype,
        **context.shared,
    )


def run_merge(context: StageContext) -> StageOutcome:
    from r1kit.pipeline import merge

    return merge.run_merge(context)


def run_rl(context: StageContext) -> StageOutcome:
    from r1kit.tasks import make_task
    from r1kit.training.rl import train_rl

    assert isinstance(context.settings, RLSettings)
    assert context.model is not None
    judges = {part: path for key, path in context.inputs.items() if (part := edge_part(key)) is not None}
    return train_rl(
        context.settings,
        model_path=context.model,
        task=make_task(context.task),
        directory=context.checkpoints,
        dtype=context.dtype,
        judges=judges,
        **context.shared,
    )


def run_evaluate(context: StageContext) -> StageOutcome:
    from r1kit.pipeline.measure import measure_model
    from r1kit.training.recorder import Interrupted, StageOutcome

    assert isinstance(context.settings, EvaluateSettings)
    assert context.model is not None

    def progress(done: int, total: int) -> None:
        context.recorder.progress(context.name, done, total)
        if context.recorder.should_stop():
            raise Interrupted(f"{context.name}: stopped after {done} of {total}; the same command measures it anew")

    evaluation = measure_model(
        context.model,
        context.task,
        context.settings,
        seed=context.seed,
        dtype=context.dtype,
        device=context.world.device,
        world=context.world,
        progress=progress,
        note=partial(context.recorder.note, context.name),
    )
    tokens = {"sampled": int(evaluation["tokens_sampled"]), "trained": 0, "discarded": 0}
    return StageOutcome(model=None, tokens=tokens, eval=evaluation)


def run_report(context: StageContext) -> StageOutcome:
    from r1kit.dashboard.report import write_report
    from r1kit.training.recorder import StageOutcome

    if context.world.is_main:
        write_report(context.root)
    return StageOutcome(model=None)


RUNNERS: dict[str, Runner] = {
    "pretrain": run_pretrain,
    "generate": run_generate,
    "journey": run_journey,
    "sft": run_sft,
    "preference": run_preference,
    "reward_model": run_reward_model,
    "merge": run_merge,
    "rl": run_rl,
    "evaluate": run_evaluate,
    "report": run_report,
}


# What to lower where a stage does not fit a GPU; token_budget for what only trains.
GPU_ROOM = {
    "rl": "token_budget (micro-batches of the update) or engine.slots (responses sampled at a time)",
    "generate": "engine.slots (responses sampled at a time)",
    "evaluate": "slots (responses sampled at a time)",
    "merge": "evaluate.slots (responses sampled at a time)",
}


def run_stage(runner: Runner, context: StageContext) -> StageOutcome:
    """One stage; the processes that its judges started (voters, sandbox) end with it.

    RunError where a GPU's memory does not suffice.
    """
    from torch import OutOfMemoryError

    from r1kit.tasks import close_judges

    try:
        return runner(context)
    except OutOfMemoryError as error:
        lower = GPU_ROOM.get(context.settings.kind, "token_budget (tokens of a micro-batch)")
        raise RunError(
            f"{context.name}: the memory of {context.world.device} is full ({str(error).splitlines()[0]}). Lower "
            f"{context.name}.{lower}, and run the same command again"
        ) from error
    finally:
        close_judges()


def load_runners(module: str) -> dict[str, Any]:
    """`RUNNERS` of a module by name, so that every process of a run finds the same ones."""
    import importlib

    runners: dict[str, Any] = importlib.import_module(module).RUNNERS
    return runners

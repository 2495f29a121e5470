"""What a checkpoint was made from: the models that it has to differ from, found again and known by their content."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.data_path import expand
from r1kit.config.graph import stage_inputs, stage_paths
from r1kit.config.load import parse_recipe
from r1kit.config.schema import PretrainSettings, StageSettings
from r1kit.pipeline.files import read_json
from r1kit.pipeline.lineage import hash_model
from r1kit.pipeline.run_directory import RunDirectory

if TYPE_CHECKING:
    from r1kit.models.merge_methods import Recipe

GIVE = "--base DIR names"


@dataclass(frozen=True)
class Origin:
    """A model that a checkpoint was made from. `setting`: as the stage names it, such as `model` or `models[0]`;
    `same`: a merge was told to be this model and no other; `unusable`: why it cannot be compared with, or ""."""

    setting: str
    path: Path
    same: bool = False
    unusable: str = ""


@dataclass(frozen=True)
class Made:
    """How a checkpoint came about: the stage of a run, and its origins. `unknown`: why there are none."""

    stage: StageSettings | None = None
    name: str = ""
    run: Path | None = None
    origins: tuple[Origin, ...] = ()
    unknown: str = ""


def made(checkpoint: Path, base: Path | None = None) -> Made:
    """How `checkpoint` came about; `base`, where given, is what it was trained from, whatever its run says."""
    # As it was given where that will do, so that what is printed can be read.
    named = checkpoint.parent.parent.name == "checkpoints"
    found = _of_run(checkpoint if named else checkpoint.resolve())
    return Made(found.stage, found.name, found.run, (Origin("model", base),)) if base is not None else found


def _of_run(checkpoint: Path) -> Made:
    folder, name = checkpoint.parent.parent, checkpoint.parent.name
    run = RunDirectory(folder.parent)
    if folder.name != "checkpoints" or not run.exists:
        return Made(unknown=f"it lies in no run; {GIVE} the model that it was trained from")
    stage = parse_recipe(run.recipe.read_text(encoding="utf-8"), str(run.recipe)).stages.get(name)
    if stage is None:
        return Made(run=run.root, unknown=f"the recipe of {run.root} has no stage {name}; {GIVE} what it started from")
    if isinstance(stage, PretrainSettings):
        return Made(stage, name, run.root, unknown=f"stage {name} starts from random weights")
    finder = _Finder(run, name, stage, checkpoint)
    return Made(stage, name, run.root, tuple(map(finder.origin, _weights_read(stage))))


def _weights_read(stage: StageSettings) -> list[str]:
    """The settings that name models whose weights go into the stage's own: no data, references or judges."""
    named = {**stage_inputs(stage), **stage_paths(stage)}
    return sorted(key for key in named if re.fullmatch(r"model|base|models\[\d+\]", key))


class _Finder:
    """Finds the models that a stage read, by what the recipe and the run's lineage say of them."""

    def __init__(self, run: RunDirectory, name: str, stage: StageSettings, checkpoint: Path) -> None:
        self.run, self.name, self.stage = run, name, stage
        self.lineage = read_json(run.lineage) or {}
        self.merge = merge_of(checkpoint)

    def origin(self, key: str) -> Origin:
        record = self.lineage.get("stages", {}).get(self.name, {})
        noted = (record.get("input") if key == "model" else record.get("inputs", {}).get(key)) or {}
        paths = self._paths(key, noted)
        path = next((p for p in paths if (p / "config.json").is_file()), paths[0])
        same, unusable = self._told(key)
        if not (path / "config.json").is_file():
            unusable = f"{path} is gone; {GIVE} a copy of it"
        elif not unusable and noted.get("sha256") not in (None, hash_model(path)):
            unusable = f"{path} has changed since stage {self.name} read it; {GIVE} a copy of what it was"
        return Origin(key, path, same, unusable)

    def _paths(self, key: str, noted: dict[str, Any]) -> list[Path]:
        """Where the model may lie. A variable of the recipe may be unset today; the lineage has its value."""
        upstream = stage_inputs(self.stage).get(key)
        if upstream is not None:
            finished = self.run.finished(upstream)
            return [self.run.root / (finished["outputs"]["model"] if finished else f"checkpoints/{upstream}")]
        started = [entry["directory"] for entry in self.lineage.get("history", ()) if "directory" in entry]
        texts = (stage_paths(self.stage)[key], noted.get("path"))
        return [expand(text, Path(started[-1]) if started else None) for text in texts if text]

    def _told(self, key: str) -> tuple[bool, str]:
        """Whether a merge's settings make it this model alone; why it may equal it without being told to."""
        from r1kit.models.merge_methods import sole_model

        if self.merge is None:
            return False, ""
        if key == "base":
            return self.merge.scale == 0.0, ""
        count = sum(name.startswith("models[") for name in _weights_read(self.stage))
        others = [w for i, w in enumerate(self.merge.weights or (1.0,) * count) if f"models[{i}]" != key]
        alone = self.merge.needs_base and not any(others)
        return key == f"models[{sole_model(self.merge, count)}]", "the other models have no weight" if alone else ""


def merge_of(checkpoint: Path) -> Recipe | None:
    """How a merge was made, as it says itself; None for what is none."""
    from r1kit.models.merge_methods import Recipe

    state = read_json(checkpoint / "trainer.json") or {}
    if "merged" not in state:
        return None
    weights = state["weights"]
    settings = {field.name: state[field.name] for field in fields(Recipe)}
    return Recipe(**{**settings, "weights": tuple(weights) if weights is not None else None})

"""Optional trackers beside metrics.jsonl: TensorBoard files and wandb, through the `track` extra.

A resumed run does its last steps again, to the same numbers: rows that a tracker has seen are not sent twice.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from r1kit.config.schema import TrackSettings
from r1kit.pipeline.files import RunError, write_atomic

# The module each setting of `track:` needs.
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Tracker(Protocol):
    """Takes the rows of metrics.jsonl as they are written."""

    def log(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def open_trackers(
    settings: TrackSettings, root: Path, name: str, config: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = ()
) -> list[Tracker]:
    """The trackers a recipe asks for; `rows` are those of metrics.jsonl before the run goes on.

    Raises RunError where one is not installed.
    """
    trackers: list[Tracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoardTracker(root / "tensorboard"))
    if settings.wandb:
        trackers.append(WandbTracker(root, name, config))
    seen: dict[tuple[str, str], int] = {}
    for row in rows if trackers else ():
        key = row["stage"], row["kind"]
        seen[key] = max(seen.get(key, row["step"]), row["step"])
    return [_OnlyNew(tracker, seen) for tracker in trackers]


def missing_trackers(settings: TrackSettings) -> dict[str, str]:
    """What to do about each tracker that is asked for and not installed, by its setting."""
    missing = {}
    for setting, module in MODULES.items():
        if getattr(settings, setting):
            try:
                _need(module, setting)
            except RunError as error:
                missing[setting] = str(error)
    return missing


def require_trackers(settings: TrackSettings) -> None:
    """Raise RunError where a tracker that is asked for is not installed."""
    for error in missing_trackers(settings).values():
        raise RunError(error)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by tracker name: `stage/metric`, `stage/eval/metric`, `stage/clock/seconds`."""
    prefix = row["stage"] if row["kind"] == "train" else f"{row['stage']}/{row['kind']}"
    flat = {**row, **{f"clock/{key}": value for key, value in row["clock"].items()}}
    return {
        f"{prefix}/{key}": float(value)
        for key, value in flat.items()
        if key not in ("stage", "kind", "step", "clock") and isinstance(value, (int, float))
    }


class _OnlyNew:
    """Passes on the rows after the last step of their stage and kind that was `seen` before the run went on."""

    def __init__(self, tracker: Tracker, seen: Mapping[tuple[str, str], int]) -> None:
        self._tracker, self._seen = tracker, seen

    def log(self, row: Mapping[str, Any]) -> None:
        last = self._seen.get((row["stage"], row["kind"]))
        if last is None or row["step"] > last:
            self._tracker.log(row)

    def close(self) -> None:
        self._tracker.close()


class TensorBoardTracker:
    """Event files under `<run>/tensorboard`; look at them with `tensorboard --logdir <run>`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _need(MODULES["tensorboard"], "tensorboard").SummaryWriter(str(folder))

    def log(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """A wandb run; WANDB_MODE=offline keeps it on this machine. Each stage has its own step axis.

    A resumed run goes on in the wandb run it began: its id lies in `<run>/wandb/r1kit-id`.
    """

    def __init__(self, root: Path, name: str, config: Mapping[str, Any]) -> None:
        wandb = _need(MODULES["wandb"], "wandb")
        known = root / "wandb" / "r1kit-id"
        if not known.is_file():
            write_atomic(known, uuid.uuid4().hex)
        self._run = wandb.init(
            project="r1kit",
            name=f"{name}-{root.name}",
            id=known.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(root),
            config=dict(config),
        )
        self._stages: set[str] = set()

    def log(self, row: Mapping[str, Any]) -> None:
        stage, axis = row["stage"], f"{row['stage']}/step"
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(axis)
            self._run.define_metric(f"{stage}/*", step_metric=axis)
        self._run.log({**scalars(row), axis: row["step"]})

    def close(self) -> None:
        self._run.finish()


def _need(module: str, setting: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise RunError(
            f"track.{setting} is true but {module} is not installed: pip install 'r1kit[track]', "
            f"or --set track.{setting}=false"
        ) from None

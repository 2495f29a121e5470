"""Optional trackers beside metrics.jsonl: TensorBoard files and wandb, through the `track` extra."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from r1kit.config.schema import TrackSettings
from r1kit.pipeline.files import RunError


class Tracker(Protocol):
    """Takes the rows of metrics.jsonl as they are written."""

    def log(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def open_trackers(settings: TrackSettings, root: Path, name: str, config: Mapping[str, Any]) -> list[Tracker]:
    """The trackers a recipe asks for. Raises RunError where one is not installed."""
    trackers: list[Tracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoardTracker(root / "tensorboard"))
    if settings.wandb:
        trackers.append(WandbTracker(root, name, config))
    return trackers


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by tracker name: `stage/metric`, `stage/eval/metric`, `stage/clock/seconds`."""
    prefix = row["stage"] if row["kind"] == "train" else f"{row['stage']}/{row['kind']}"
    flat = {**row, **{f"clock/{key}": value for key, value in row["clock"].items()}}
    return {
        f"{prefix}/{key}": float(value)
        for key, value in flat.items()
        if key not in ("stage", "kind", "step", "clock") and isinstance(value, (int, float))
    }


class TensorBoardTracker:
    """Event files under `<run>/tensorboard`; look at them with `tensorboard --logdir <run>`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _need("tensorboardX", "tensorboard").SummaryWriter(str(folder))

    def log(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """A wandb run; WANDB_MODE=offline keeps it on this machine. Each stage has its own step axis."""

    def __init__(self, root: Path, name: str, config: Mapping[str, Any]) -> None:
        self._run = _need("wandb", "wandb").init(
            project="r1kit", name=f"{name}-{root.name}", dir=str(root), config=dict(config)
        )

    def log(self, row: Mapping[str, Any]) -> None:
        self._run.log({**scalars(row), f"{row['stage']}/step": row["step"]})

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

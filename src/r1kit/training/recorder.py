"""What a training stage tells the outside, and what it hands back. The pipeline implements `Recorder` for rank 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from r1kit.records import Group


class Recorder(Protocol):
    """Where a stage writes. On ranks other than 0 every method does nothing."""

    def metrics(
        self, stage: str, step: int, values: Mapping[str, Any], clock: Mapping[str, float], kind: str = "train"
    ) -> None:
        """One row of metrics.jsonl. Whatever depends on the clock goes into `clock`; the rest is reproducible."""
        ...

    def rollouts(self, stage: str, step: int, groups: Iterable[Group]) -> None:
        """The groups of one step, for the report and for later stages."""
        ...

    def evaluation(self, stage: str, step: int, evaluation: Mapping[str, Any]) -> None:
        """A whole evaluation with its examples."""
        ...

    def progress(self, stage: str, step: int, total: int, **fields: float) -> None:
        """Where the stage is; `fields` are shown beside the bar."""
        ...

    def note(self, stage: str, text: str) -> None:
        """One line a person should read: what was left out, changed or found doubtful."""
        ...

    def should_stop(self) -> bool:
        """True once the user asked to stop: the stage saves a checkpoint and raises `Interrupted`."""
        ...

    def truncate(self, stage: str, step: int) -> None:
        """Forget the rows and files of `stage` after `step`, which a resumed run does again."""
        ...


class NullRecorder:
    """A recorder that records nothing."""

    def metrics(
        self, stage: str, step: int, values: Mapping[str, Any], clock: Mapping[str, float], kind: str = "train"
    ) -> None:
        return None

    def rollouts(self, stage: str, step: int, groups: Iterable[Group]) -> None:
        return None

    def evaluation(self, stage: str, step: int, evaluation: Mapping[str, Any]) -> None:
        return None

    def progress(self, stage: str, step: int, total: int, **fields: float) -> None:
        return None

    def note(self, stage: str, text: str) -> None:
        return None

    def should_stop(self) -> bool:
        return False

    def truncate(self, stage: str, step: int) -> None:
        return None


class Interrupted(RuntimeError):
    """The user asked to stop; everything up to the last step is saved."""


class Paused(Interrupted):
    """An alarm asked to stop, the message says why; everything up to the last step is saved."""


@dataclass
class StageOutcome:
    """What a finished stage hands to the pipeline. `tokens` has the keys sampled, trained and discarded, and
    masked where that can be; `data` is a file or directory of what it made to train on."""

    model: Path | None
    tokens: dict[str, int] = field(default_factory=lambda: {"sampled": 0, "trained": 0, "discarded": 0})
    eval: dict[str, Any] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    data: Path | None = None

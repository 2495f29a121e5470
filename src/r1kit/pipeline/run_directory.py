"""The run directory: where everything of a run lies. Self-describing, locked while a run works in it.

recipe.resolved.yaml  lineage.json  ledger.json  summary.json  report.html  run.log  metrics.jsonl
rollouts/<stage>/step-000010.jsonl.zst  checkpoints/<stage>/step-000010/
data/<stage>/traces/wave-000000.jsonl.zst
evaluations/<stage>/step-000010.json    stages/<stage>.json  stages/<stage>.started.json
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from r1kit.pipeline.files import RunError, read_json, write_atomic, write_json
from r1kit.records import Group

_STEP = re.compile(r"step-(\d+)\.")
# All that a run writes into its directory, run.lock apart (the last two are the trackers').
FILES = (
    "recipe.resolved.yaml",
    "lineage.json",
    "ledger.json",
    "summary.json",
    "report.html",
    "run.log",
    "metrics.jsonl",
)
FOLDERS = ("rollouts", "checkpoints", "evaluations", "data", "stages", "tmp", "tensorboard", "wandb")


class RunDirectory:
    """Paths of one run and the small files in it. Nothing is created before `locked`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.recipe, self.lineage, self.ledger, self.summary, self.report, self.log, self.metrics = (
            self.root / name for name in FILES
        )
        self.temporary = self.root / "tmp"

    @property
    def exists(self) -> bool:
        """True where a run has begun here."""
        return self.recipe.is_file()

    def refuse_foreign(self) -> None:
        """Raise RunError where the path is a file or a directory that holds something else than a run."""
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root} is a file: expected a directory for the run; choose another --out")
        if self.root.is_dir() and not self.exists and any(self._foreign()):
            raise RunError(f"{self.root} is not empty and holds no run: choose another --out, or empty it")

    def _foreign(self) -> Iterator[Path]:
        ours = {"run.lock", "run.log", "tmp"}
        return (p for p in self.root.iterdir() if p.name not in ours and not p.name.startswith(".recipe."))

    def clear(self) -> None:
        """Delete everything of the run, for --fresh (never a directory `refuse_foreign` refuses).

        Only names that a run writes: what the user put beside them stays.
        """
        self.refuse_foreign()
        for name in (*FILES, *FOLDERS):
            _remove(self.root / name)
            for unfinished in self.root.glob(f".{name}.*"):
                _remove(unfinished)

    def discard(self, stage: str) -> None:
        """Delete what one stage left, its rows in metrics.jsonl apart; it begins anew."""
        for folder in ("checkpoints", "rollouts", "evaluations", "data"):
            _remove(self.root / folder / stage)
        for record in (f"{stage}.json", f"{stage}.started.json"):
            _remove(self.root / "stages" / record)
        # Two show the run as it was; without its id the next wandb run is a new one, not two runs in one.
        for path in (self.summary, self.report, self.root / "wandb" / "r1kit-id"):
            _remove(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises RunError where another process works in it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "run.lock", "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                raise RunError(
                    f"{self.root} is in use by process {owner}: wait for it, stop it, or choose another --out"
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def checkpoints(self, stage: str) -> Path:
        return self.root / "checkpoints" / stage

    def saved(self, stage: str) -> Iterator[Path]:
        """What a stage has saved to go on from; hidden names are checkpoints that were never finished."""
        folder = self.checkpoints(stage)
        return (path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else iter(())

    def rollouts(self, stage: str, step: int) -> Path:
        return self.root / "rollouts" / stage / f"step-{step:06d}.jsonl.zst"

    def evaluation(self, stage: str, step: int | None = None) -> Path:
        """Evaluation of a step, or the stage's own (`final.json`)."""
        return self.root / "evaluations" / stage / ("final.json" if step is None else f"step-{step:06d}.json")

    def finished(self, stage: str) -> dict[str, Any] | None:
        """The record of a finished stage, None while it is not."""
        return read_json(self.root / "stages" / f"{stage}.json")

    def require_finished(self, stage: str) -> dict[str, Any]:
        record = self.finished(stage)
        if record is None:
            raise RunError(f"{self.root}: stage {stage} is not finished; run the same command again")
        return record

    def finish(self, stage: str, record: dict[str, Any]) -> None:
        write_json(self.root / "stages" / f"{stage}.json", record)
        (self.root / "stages" / f"{stage}.started.json").unlink(missing_ok=True)

    def started(self, stage: str) -> dict[str, Any] | None:
        """What is known of a stage that has begun and not finished."""
        return read_json(self.root / "stages" / f"{stage}.started.json")

    def start(self, stage: str, record: dict[str, Any]) -> None:
        write_json(self.root / "stages" / f"{stage}.started.json", record)

    def forget_after(self, stage: str, step: int) -> None:
        """Delete the rollouts and evaluations of `stage` after `step`; a resumed run writes them again."""
        for folder in (self.root / "rollouts" / stage, self.root / "evaluations" / stage):
            for path in folder.iterdir() if folder.is_dir() else ():
                match = _STEP.match(path.name)
                if match and int(match[1]) > step:
                    path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_rollouts(path: Path, groups: Iterable[Group]) -> None:
    """Groups as zstd-compressed JSON lines, one group a line."""
    lines = "".join(json.dumps(group.to_json(), ensure_ascii=False) + "\n" for group in groups)
    write_atomic(path, zstandard.ZstdCompressor(level=9).compress(lines.encode("utf-8")))


def read_rollouts(path: Path) -> Iterator[Group]:
    """The groups of one stored step."""
    with open(path, "rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
        # Not splitlines: a response may hold U+2028 or another of the breaks that JSON leaves as they are.
        for line in reader.read().decode("utf-8").split("\n"):
            if line:
                yield Group.from_json(json.loads(line))

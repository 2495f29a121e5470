"""Read a run directory as it is: finished, unfinished or failed half way.

Every file may be missing, and the last line of a JSONL file may be cut off by a kill. What could not be read
is never passed over in silence: it is listed in `RunData.notes`, and the report shows the list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

from r1kit.config.errors import UserError

STEP_FILE = re.compile(r"step-(\d+)\.")
KNOWN_FILES = (
    "recipe.resolved.yaml",
    "metrics.jsonl",
    "summary.json",
    "lineage.json",
    "ledger.json",
    "stages",
)
FINAL = "final"
READ_BYTES = 1 << 18

Row = dict[str, Any]


class ReportError(UserError):
    """The report cannot be made; the message names the path and what to do."""


@dataclass(frozen=True)
class StoredEvaluation:
    """One file of `evaluations/<stage>/`; `step` is None for what an evaluate stage measured."""

    stage: str
    step: int | None
    path: Path


@dataclass(frozen=True)
class StoredRollouts:
    """One file of `rollouts/<stage>/`: the groups of one step, compressed JSONL."""

    stage: str
    step: int
    path: Path


@dataclass
class StageData:
    """What is known of one stage.

    `record` is stages/<stage>.json (empty while unfinished), `begun` its .started.json (what it has cost so far),
    `settings` its part of the resolved recipe, `train`, `evals` and `alarms` its rows of metrics.jsonl.
    """

    name: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    begun: Mapping[str, Any] = field(default_factory=dict)
    train: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)
    alarms: list[Row] = field(default_factory=list)
    rollouts: list[StoredRollouts] = field(default_factory=list)
    evaluations: list[StoredEvaluation] = field(default_factory=list)

    @property
    def status(self) -> str:
        if self.record:
            return "finished"
        return "unfinished" if self.begun or self.train or self.evals or self.evaluations else "not started"

    @property
    def last_step(self) -> int | None:
        steps = [row["step"] for row in (*self.train, *self.evals) if isinstance(row.get("step"), int)]
        return max(steps) if steps else None


@dataclass
class RunData:
    """A run directory in memory; rollouts and evaluations stay on disk until asked for."""

    directory: Path
    recipe: Mapping[str, Any]
    recipe_text: str
    summary: Mapping[str, Any]
    lineage: Mapping[str, Any]
    ledger: Mapping[str, Any]
    stages: list[StageData]
    notes: list[str]

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or self.summary.get("recipe") or self.directory.name)

    @property
    def seed(self) -> Any:
        return self.summary.get("seed", self.recipe.get("seed"))

    @property
    def finished(self) -> bool:
        """True where every stage but the report itself (it is being written) has its record."""
        return bool(self.stages) and all(s.record or s.kind == "report" for s in self.stages)

    def of_kind(self, kind: str) -> list[StageData]:
        return [stage for stage in self.stages if stage.kind == kind]

    def read_evaluation(self, stored: StoredEvaluation) -> Mapping[str, Any]:
        return _read_json(stored.path, self.notes)

    def read_groups(self, stored: StoredRollouts) -> Iterator[Row]:
        """The groups of one step as JSON rows; what is cut off or damaged is left out, with a note."""
        name = self._relative(stored.path)
        return _json_lines(_decompressed_lines(stored.path, name, self.notes), name, self.notes)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()


def load_run(directory: Path) -> RunData:
    """Read `directory`. ReportError where it is not a run directory at all."""
    directory = Path(directory)
    if not any((directory / name).exists() for name in KNOWN_FILES):
        raise ReportError(
            f"{directory} is not a run directory: expected at least one of {', '.join(KNOWN_FILES)}. "
            "Give the directory that `r1kit run` printed, such as runs/quickstart."
        )
    notes: list[str] = []
    recipe_text = _read_text(directory / "recipe.resolved.yaml")
    recipe = _parse_recipe(recipe_text, notes)
    summary = _read_json(directory / "summary.json", notes)
    stages = _stages(directory, recipe, summary, notes)
    _add_metrics(directory / "metrics.jsonl", stages, notes)
    _add_stored(directory, stages)
    return RunData(
        directory=directory,
        recipe=recipe,
        recipe_text=recipe_text,
        summary=summary,
        lineage=_read_json(directory / "lineage.json", notes),
        ledger=_read_json(directory / "ledger.json", notes),
        stages=list(stages.values()),
        notes=notes,
    )


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """The object in `path`; empty where the file is missing, empty with a note where it is damaged."""
    text = _read_text(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        _note(notes, f"{path.name} is not valid JSON (line {error.lineno}: {error.msg}); it is left out")
        return {}
    if not isinstance(value, dict):
        _note(notes, f"{path.name} holds a {type(value).__name__}, expected an object; it is left out")
        return {}
    return value


def _parse_recipe(text: str, notes: list[str]) -> Mapping[str, Any]:
    try:
        recipe = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        _note(notes, f"recipe.resolved.yaml is not valid YAML ({error}); only its text is shown")
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _json_lines(lines: Iterable[bytes], name: str, notes: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            _note(notes, f"{name} line {number} is cut off or damaged; it is left out")
            continue
        if isinstance(row, dict):
            yield row


def _decompressed_lines(path: Path, name: str, notes: list[str]) -> Iterator[bytes]:
    """The lines of a zstd file, read as they are asked for."""
    decompressor, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    with path.open("rb") as raw:
        while not decompressor.eof:
            chunk = raw.read(READ_BYTES)
            try:
                data = decompressor.decompress(chunk) if chunk else b""
            except zstandard.ZstdError as error:
                _note(notes, f"{name} is damaged ({error}); what comes before the damage is shown")
                return
            if not chunk:
                _note(notes, f"{name} is cut off; what is whole is shown")
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
    yield rest


def _stages(
    directory: Path, recipe: Mapping[str, Any], summary: Mapping[str, Any], notes: list[str]
) -> dict[str, StageData]:
    """Stages in the recipe's order; those only found on disk (an edited recipe) come after."""
    settings = recipe.get("stages")
    settings = settings if isinstance(settings, dict) else {}
    stages = {
        str(name): StageData(str(name), str((part or {}).get("kind", name)), settings=part or {})
        for name, part in settings.items()
    }
    records = [dict(row) for row in summary.get("stages", ()) if isinstance(row, dict) and "name" in row]
    begun: list[dict[str, Any]] = []
    for path in sorted((directory / "stages").glob("*.json")):
        name, _, suffix = path.stem.partition(".")
        (begun if suffix else records).append({"name": name, **_read_json(path, notes)})
    for record in records:
        stage = _stage_named(stages, record)
        stage.record = {**stage.record, **record}
    for record in begun:
        _stage_named(stages, record).begun = record
    return stages


def _stage_named(stages: dict[str, StageData], record: Mapping[str, Any]) -> StageData:
    name = str(record["name"])
    return stages.setdefault(name, StageData(name, str(record.get("kind", name))))


def _add_metrics(path: Path, stages: dict[str, StageData], notes: list[str]) -> None:
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for row in _json_lines(lines, path.name, notes):
            name = str(row.get("stage", "run"))
            stage = stages.setdefault(name, StageData(name, name))
            rows = {"eval": stage.evals, "alarm": stage.alarms}.get(str(row.get("kind")), stage.train)
            rows.append(row)


def _add_stored(directory: Path, stages: dict[str, StageData]) -> None:
    for path in sorted((directory / "rollouts").glob("*/step-*.jsonl.zst")):
        match = STEP_FILE.match(path.name)
        if match and path.parent.name in stages:
            stage = stages[path.parent.name]
            stage.rollouts.append(StoredRollouts(stage.name, int(match[1]), path))
    for path in sorted((directory / "evaluations").glob("*/*.json")):
        match = STEP_FILE.match(path.name)
        if path.parent.name in stages and (match or path.stem == FINAL):
            stage = stages[path.parent.name]
            stage.evaluations.append(StoredEvaluation(stage.name, int(match[1]) if match else None, path))

"""Data files as records to train on: traces for SFT, pairs for preference training, single judged responses for KTO.

A bad row is named by file and line; it ends the reading, or is skipped and counted, as the settings say. A row of
`Trace` or `PreferencePair` as r1kit itself writes it is taken as it stands.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import zstandard

from r1kit.atomic import write_atomic
from r1kit.config.data import DataSettings
from r1kit.config.data_path import expand
from r1kit.config.errors import UserError
from r1kit.records import Message, PreferencePair, Trace
from r1kit.tasks import conversations
from r1kit.tasks.conversations import Columns, check_turns, find_columns, is_transcript, read_turn, read_turns
from r1kit.tasks.data_files import FORMATS, PACKED, Row, read_rows

T = TypeVar("T")
# Rows looked at to see which columns a file has.
HEAD = 64
KEPT_BAD_ROWS = 20
# How tables write a label; JSON and Parquet have their own, or a number.
FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

Convert = Callable[[Row, Columns, str, DataSettings], T]


class BadRowError(UserError):
    """A row that cannot be trained on, in a data set whose bad rows are fatal."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """`place` is `file:line`."""

    place: str
    reason: str


class GoodRows(ABC, Generic[T]):
    """The good rows of a data set in order, read as they are asked for; counts are whole after the iteration.

    `read` rows were looked at, `skipped` of them could not be used; `bad` holds the first of these.
    """

    def __init__(self, settings: DataSettings, path: str | Path | None = None) -> None:
        self.settings = settings
        self.files = data_files(path if path is not None else settings.path)
        self.read = self.skipped = 0
        self.bad: list[BadRow] = []

    def __iter__(self) -> Iterator[T]:
        self.read = self.skipped = 0
        self.bad = []
        yield from islice(chain.from_iterable(map(self._file, self.files)), self.settings.max_rows)

    @abstractmethod
    def _file(self, path: Path) -> Iterator[T]:
        """The good rows of one file; every row is counted in `read`, and `_note` gets the bad ones."""

    def _note(self, place: str, reason: str) -> None:
        if self.settings.bad_rows == "fatal":
            raise BadRowError(f"{place}: {reason}. Mend the row, or set bad_rows: skip to go on without such rows")
        self.skipped += 1
        if len(self.bad) < KEPT_BAD_ROWS:
            self.bad.append(BadRow(place, reason))

    def require_rows(self) -> None:
        """UserError where nothing could be used: training on nothing is never what was meant."""
        if self.read == self.skipped:
            first = f"; the first: {self.bad[0].place}: {self.bad[0].reason}" if self.bad else ""
            raise UserError(f"{self.settings.path}: none of its {self.read} rows can be used{first}")


class Reading(GoodRows[T]):
    """Rows of conversations in any of the published forms."""

    def __init__(self, settings: DataSettings, form: str, convert: Convert[T], path: str | Path | None) -> None:
        super().__init__(settings, path)
        self.form, self.convert = form, convert

    def _file(self, path: Path) -> Iterator[T]:
        rows = read_rows(path)
        head = list(islice(rows, HEAD))
        names = dict.fromkeys(name for row in head for name, value in row.data.items() if value is not None)
        ours = names and all(_is_ours(row.data) for row in head if not row.error)
        place = next((row.place for row in head if not row.error), str(path))
        columns = Columns() if ours or not names else find_columns(names, self.settings.columns, place, form=self.form)
        for row in chain(head, rows):
            self.read += 1
            try:
                if row.error:
                    raise ValueError(row.error)
                yield self.convert(row, columns, f"{path.name}:{row.number}", self.settings)
            except (ValueError, KeyError, TypeError) as error:
                self._note(row.place, str(error))


def read_traces(settings: DataSettings, path: str | Path | None = None) -> Reading[Trace]:
    """Conversations to learn from. `path` replaces `settings.path`, where that was `${stage}`."""
    return Reading(settings, "trace", _trace, path)


def read_pairs(settings: DataSettings, path: str | Path | None = None) -> Reading[PreferencePair]:
    """Chosen and rejected responses: DPO in ShareGPT, Alpaca and TRL's forms (its implicit prompts too), HH-RLHF."""
    return Reading(settings, "pair", _pair, path)


def read_labelled(settings: DataSettings, path: str | Path | None = None) -> Reading[tuple[Trace, bool]]:
    """Single responses with whether they are wanted (KTO)."""
    return Reading(settings, "labelled", _labelled, path)


def write_jsonl(path: Path, records: Iterable[Trace | PreferencePair]) -> None:
    """Records as JSON lines, compressed where the name ends in .zst, whole or not at all."""
    lines = "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records).encode()
    write_atomic(path, zstandard.ZstdCompressor(level=9).compress(lines) if path.suffix == ".zst" else lines)


def data_files(path: str | Path) -> list[Path]:
    """The file, or the data files of a directory in name order. Raises UserError where there is none."""
    found = expand(path)
    if found.is_file():
        return [found]
    if not found.is_dir():
        raise UserError(f"{found}: no such data file or directory")
    files = sorted(f for f in found.rglob("*") if f.is_file() and _is_data(f))
    if not files:
        raise UserError(f"{found}: holds no data file; expected names that end in {', '.join(FORMATS)}")
    return files


def _is_data(path: Path) -> bool:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in FORMATS and not path.name.startswith(".")


def _is_ours(data: Mapping[str, Any]) -> bool:
    return "provenance" in data and ("messages" in data or {"prompt", "chosen", "rejected"} <= set(data))


def _trace(row: Row, columns: Columns, place: str, settings: DataSettings) -> Trace:
    if _is_ours(row.data):
        return Trace.from_json(row.data)
    turns = conversations.turns_of(row.data, columns, settings.thinking, settings.system)
    check_turns(turns)
    return Trace(_id(row, columns, place), turns, provenance={"source": row.place})


def _labelled(row: Row, columns: Columns, place: str, settings: DataSettings) -> tuple[Trace, bool]:
    return _trace(row, columns, place, settings), _flag(row.data.get(columns.label), columns.label)


def _pair(row: Row, columns: Columns, place: str, settings: DataSettings) -> PreferencePair:
    data = row.data
    if _is_ours(data):
        return PreferencePair.from_json(data)
    better, worse = (_side(data.get(name), name, settings) for name in (columns.chosen, columns.rejected))
    # Whole conversations on both sides share the prompt; single responses have it in other columns.
    if len(better) > 1 or len(worse) > 1:
        prompt, chosen, rejected = _apart(better, worse)
    else:
        chosen, rejected = better[0], worse[0]
        if columns.messages and data.get(columns.messages) is not None:
            prompt = read_turns(data[columns.messages], columns.messages, settings.thinking)
        elif columns.prompt:
            prompt = conversations.prompt_of(data, columns, settings.thinking)
        else:
            raise ValueError(f"{columns.chosen} is a single response and no column holds its prompt")
    prompt = conversations.with_system(prompt, data, columns.system, settings.system)
    check_turns(prompt, answered=False)
    return PreferencePair(_id(row, columns, place), prompt, chosen, rejected, provenance={"source": row.place})


def _side(value: Any, name: str, settings: DataSettings) -> tuple[Message, ...]:
    if is_transcript(value):
        return conversations.transcript(value, settings.thinking)
    if isinstance(value, (list, tuple)):
        return read_turns(value, name, settings.thinking)
    if value is None:
        raise ValueError(f"{name} is empty: expected a response")
    return (read_turn(value, name, settings.thinking),)


def _apart(better: tuple[Message, ...], worse: tuple[Message, ...]) -> tuple[tuple[Message, ...], Message, Message]:
    """The common turns of two conversations, and the two last turns that follow them."""
    common = next(
        (i for i, (a, b) in enumerate(zip(better, worse, strict=False)) if a != b), min(len(better), len(worse))
    )
    if common == len(better) == len(worse):
        raise ValueError("chosen and rejected are equal")
    if len(better) != common + 1 or len(worse) != common + 1:
        raise ValueError(
            f"chosen and rejected part at turn {common + 1} and go on for {len(better) - common} and "
            f"{len(worse) - common} turns: expected one response each to one prompt"
        )
    return better[:common], better[common], worse[common]


def _flag(value: Any, name: str) -> bool:
    found = FLAGS.get(str(value).strip().lower()) if isinstance(value, (str, int, float)) else None
    if found is None:
        raise ValueError(f"{name} is {value!r}: expected true or false, 1 or 0")
    return found


def _id(row: Row, columns: Columns, place: str) -> str:
    value = row.data.get(columns.id) if columns.id else None
    return str(value) if isinstance(value, (str, int)) and str(value) else place

"""Rows of a data file, each with its place: JSON lines, a JSON array, CSV, TSV or Parquet, packed as .gz or .zst.

A row that cannot be read is a row with an `error`, so that the caller can name it and go on. What cannot be read past
raises, with the count of the rows that were read before: no row is ever lost without a word.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from r1kit.config.errors import UserError
from r1kit.tasks.packed import DAMAGE, PACKED, opened
from r1kit.tasks.tables import TableError, read_table

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
BATCH = 1024


class DataFileError(UserError):
    """A file that cannot be read at all, or not to its end; the message names it and says what was expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """`number` counts from 1: the line, or the row where a file has no lines. `place` is `file:line`."""

    number: int
    place: str
    data: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in order. Blank lines are left out; they count as lines."""
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in PACKED else ""
    form = suffixes[-1] if suffixes else ""
    if form not in FORMATS:
        raise DataFileError(f"{path}: expected a name that ends in {', '.join(FORMATS)}, and .gz or .zst behind it")
    read = 0
    try:
        for row in _rows(path, form, packed):
            yield row
            read += 1
    except DAMAGE as error:
        raise DataFileError(f"{path}: damaged or cut off: {error}. {_before(read)}: fetch or pack it again") from None
    except TableError as error:
        raise DataFileError(f"{path}:{error.line}: not CSV: {error}. {_before(read)}: mend the line") from None


def _before(read: int) -> str:
    return f"Read up to there: {read} row{'' if read == 1 else 's'}; what follows cannot be skipped, only lost"


def _rows(path: Path, form: str, packed: str) -> Iterator[Row]:
    if form == ".parquet":
        yield from _parquet(path, packed)
        return
    with opened(path, packed) as stream:
        wide = WIDE.get(stream.peek(2)[:2])
        if wide:
            raise DataFileError(f"{path}: {wide}, by its first bytes; expected UTF-8: save it as such")
        if form in (".csv", ".tsv"):
            for line, cells, error in read_table(stream, "," if form == ".csv" else "\t"):
                yield Row(line, f"{path}:{line}", dict(cells), error)
        elif form == ".json":
            yield from _json(path, stream)
        else:
            yield from _lines(path, stream)


def _lines(path: Path, stream: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield _parsed(number, f"{path}:{number}", line)


def _parsed(number: int, place: str, line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Row(number, place, error=f"not UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return Row(number, place, error=f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        return Row(number, place, error=f"not JSON that can be read: {error}")
    return _object(number, place, value)


def _object(number: int, place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(number, place, value)
    return Row(number, place, error=f"{type(value).__name__}: expected an object")


def _json(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """An array of objects, or one object; a file of the name .json that holds JSON lines is read as such."""
    content = stream.read()
    begun = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not begun.startswith(b"["):
        line = content.count(b"\n", 0, len(content) - len(begun)) + 1
        whole = _parsed(line, f"{path}:{line}", begun)
        yield from [whole] if not whole.error else _lines(path, io.BytesIO(content))
        return
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataFileError(f"{path}:{line}: not UTF-8: {error.reason}; an array is read whole or not at all") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
        raise DataFileError(f"{path}:{error.lineno}: not JSON: {found}; an array is read whole or not at all") from None
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: not JSON that can be read: {error}") from None
    for number, value in enumerate(values, start=1):
        yield _object(number, f"{path}:item {number}", value)


def _parquet(path: Path, packed: str) -> Iterator[Row]:
    """Row groups stand by themselves, and the footer counts their rows: those of a broken one are named, no others."""
    import pyarrow
    import pyarrow.parquet

    if packed:
        raise DataFileError(f"{path}: Parquet is packed inside; unpack the file first")
    try:
        table = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the disk's trouble, not the file's
            raise
        raise DataFileError(f"{path}: not Parquet, or cut off: {error}") from None
    number = 0
    with table:
        for group in range(table.num_row_groups):
            end = number + table.metadata.row_group(group).num_rows
            reason = f"row group {group} ends before this row"
            try:
                for batch in table.iter_batches(batch_size=BATCH, row_groups=[group]):
                    for data, wrong in _decoded(batch):
                        number += 1
                        yield Row(number, f"{path}:row {number}", data, wrong)
            except (pyarrow.ArrowException, OSError) as error:
                if getattr(error, "errno", None) is not None:
                    raise
                reason = f"row group {group} is damaged: {' '.join(str(error).split())}"
            for missing in range(number + 1, end + 1):
                yield Row(missing, f"{path}:row {missing}", error=reason)
            number = end


def _decoded(batch: Any) -> list[tuple[dict[str, Any], str]]:
    """The rows of a batch and what is wrong with each."""
    try:
        return [(data, "") for data in batch.to_pylist()]
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [({}, f"not UTF-8: {error.reason} at byte {error.start}")]
        return [_decoded(batch.slice(index, 1))[0] for index in range(batch.num_rows)]

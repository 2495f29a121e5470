"""Rows of a data file, each with its place: JSON lines, a JSON array, CSV, TSV or Parquet, packed as .gz or .zst.

A row that cannot be read is a row with an `error`, so that the caller can name it and go on.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from r1kit.config.errors import UserError

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = (".gz", ".zst")
MAX_CELL = 1 << 27


class DataFileError(UserError):
    """A file that cannot be read at all; the message names it and says what was expected."""


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
    try:
        if form == ".parquet":
            yield from _parquet(path, packed)
            return
        with _opened(path, packed) as stream:
            if form in (".csv", ".tsv"):
                yield from _table(path, stream, "," if form == ".csv" else "\t")
            elif form == ".json":
                yield from _json(path, stream)
            else:
                yield from _lines(path, stream)
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise DataFileError(f"{path}: damaged or cut off: {error}") from None


def _opened(path: Path, packed: str) -> BinaryIO:
    if packed == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if packed == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, reader)))
    return open(path, "rb")


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
    """An array of objects; a file of the name .json that holds JSON lines is read as such."""
    content = stream.read()
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _lines(path, io.BytesIO(content))
        return
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: not JSON: {error}") from None
    for number, value in enumerate(values, start=1):
        yield _object(number, f"{path}:item {number}", value)


def _table(path: Path, stream: BinaryIO, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(_decoded(path, stream), delimiter=delimiter, strict=True)
    start = 2
    try:
        for data in reader:
            place = f"{path}:{start}"
            if None in data or None in data.values():
                yield Row(
                    start, place, error=f"more or fewer cells than the {len(reader.fieldnames or ())} of the header"
                )
            else:
                yield Row(start, place, dict(data))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataFileError(f"{path}:{start}: not CSV: {error}") from None


def _decoded(path: Path, stream: BinaryIO) -> Iterator[str]:
    """The lines of a table as text; a reader of the whole could not tell in which line the bytes are wrong."""
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataFileError(f"{path}:{number}: not UTF-8: {error.reason} at byte {error.start}") from None


def _parquet(path: Path, packed: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    if packed:
        raise DataFileError(f"{path}: Parquet is packed inside; unpack the file first")
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for data in batch.to_pylist():
                    number += 1
                    yield Row(number, f"{path}:row {number}", data)
    except pyarrow.ArrowInvalid as error:
        raise DataFileError(f"{path}: not Parquet: {error}") from None

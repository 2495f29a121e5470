"""Rows of CSV and TSV with the line they begin in, and where reading may go on behind a broken one.

Cells may hold line breaks, so what follows a broken quote is either rows or the rest of a cell. Taking the one for the
other would train garbage, or lose rows without a word; the next quote mostly tells which it is: one that opens a cell
stands at the cell's start, one that closes it stands at its end. Where it does not tell, nothing after it is read.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

MAX_CELL = 1 << 27
QUOTE = '"'
# Lines looked at behind a broken row to find the next quote.
LOOKAHEAD = 1 << 14


class TableError(ValueError):
    """A table that cannot be read on from `line`."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class TableRow(NamedTuple):
    """`line` counts from 1; `cells` by the header's names, none where there is an `error`."""

    line: int
    cells: dict[str, str]
    error: str = ""


class _Line(NamedTuple):
    number: int
    text: str
    error: str = ""


class _Lines:
    """The lines of a stream as text; those of the record that is being read are kept and can be given back."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = (_decoded(number, line) for number, line in enumerate(stream, start=1))
        self._again: deque[_Line] = deque()
        self.record: list[_Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.record.append(self._again.popleft() if self._again else next(self._stream))
        return self.record[-1].text

    def ahead(self) -> Iterator[_Line]:
        """The lines behind the first of the record, which are read again afterwards."""
        self._again.extendleft(reversed(self.record[1:]))
        del self.record[1:]
        return chain(list(self._again), self._fetched())

    def _fetched(self) -> Iterator[_Line]:
        for line in self._stream:
            self._again.append(line)
            yield line


def read_table(stream: Iterable[bytes], delimiter: str) -> Iterator[TableRow]:
    """The rows below the header; blank lines are left out. Raises TableError."""
    csv.field_size_limit(MAX_CELL)
    lines = _Lines(stream)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        lines.record = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first = lines.record[0]
            if not header:
                raise TableError(first.number, f"its header is not CSV: {error}") from None
            if not _ends(first.text, islice(lines.ahead(), LOOKAHEAD), delimiter):
                raise TableError(first.number, f"{error}; it cannot be told where the next row begins") from None
            yield TableRow(first.number, {}, f"not CSV: {error}")
            continue
        first, last = lines.record[0], lines.record[-1]
        wrong = next((line for line in lines.record if line.error), None)
        if len(cells) < 2 and not "".join(cells).strip():
            continue
        if not header:
            header = _header(cells, wrong or first)
        elif wrong is not None:
            yield TableRow(first.number, {}, f"{'' if wrong is first else f'line {wrong.number}: '}{wrong.error}")
        elif len(cells) == len(header):
            yield TableRow(first.number, dict(zip(header, cells, strict=True)))
        elif not _closes(lines.record[1:], delimiter):
            expected = f"{_counted(cells)} down to line {last.number}, where the header has {len(header)}"
            raise TableError(first.number, f"{expected}; it cannot be told where the next row begins")
        else:
            yield TableRow(first.number, {}, f"{_counted(cells)}, where the header has {len(header)}")


def _decoded(number: int, line: bytes) -> _Line:
    """A line whose bytes are wrong keeps its delimiters and quotes."""
    coding = "utf-8-sig" if number == 1 else "utf-8"
    try:
        return _Line(number, line.decode(coding), "a NUL byte" if b"\0" in line else "")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: {error.reason} at byte {error.start}"
        return _Line(number, line.decode(coding, "surrogateescape"), reason)


def _header(cells: list[str], line: _Line) -> list[str]:
    if line.error:
        raise TableError(line.number, f"its header: {line.error}")
    twice = next((name for name in cells if name and cells.count(name) > 1), None)
    if twice is not None:
        raise TableError(line.number, f"its header names column {twice!r} twice; rename one")
    return cells


def _ends(broken: str, behind: Iterable[_Line], delimiter: str) -> bool:
    """A broken row ends with its first line: what is behind it can be rows and cannot be the rest of a cell."""
    if QUOTE not in broken:
        return True
    seen = 0
    for line in behind:
        seen += 1
        if QUOTE in line.text:
            opens, closes = _next_quote(line.text, delimiter)
            return opens and not closes
    # No quote follows that could close a cell: none is open, or the file is cut off.
    return not seen or (seen < LOOKAHEAD and broken.count(QUOTE) % 2 == 0)


def _closes(rest: Iterable[_Line], delimiter: str) -> bool:
    """The further lines of a row are the rest of a cell, and cannot be rows of their own."""
    for line in rest:
        if QUOTE in line.text:
            opens, closes = _next_quote(line.text, delimiter)
            return closes and not opens
    return True


def _next_quote(text: str, delimiter: str) -> tuple[bool, bool]:
    """Whether the first quote of a line may open a cell, and whether it may close one or be doubled inside of it."""
    at = text.index(QUOTE)
    return at == 0 or text[at - 1] == delimiter, text[at + 1 : at + 2] in ("", "\r", "\n", delimiter, QUOTE)


def _counted(cells: list[str]) -> str:
    return f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"

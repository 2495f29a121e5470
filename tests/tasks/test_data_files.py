"""Files of every format with a bad row or a damage in the middle, under both policies of bad rows.

Why this matters: a reader that ends early looks like a small data set, and one that goes on in the wrong place trains
the inside of a cell as a row. A bad row has to be named by its line in the file and cost that row only; where it cannot
be told what follows, reading has to end and say how far it came.

Not exercised here: what the rows mean (test_traces.py); changed bytes of uncompressed Parquet without checksums, which
nothing can see.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.config.data import DataSettings
from r1kit.tasks.data_files import DataFileError, Row, read_rows
from r1kit.tasks.traces import BadRowError, read_traces

PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
TEXT_FORMS = ("jsonl", "ndjson", "json", "csv", "tsv")
GOOD = ("a", "b")
BROKEN = '"x"y'  # a quote inside of a cell


def table(form: str, rows: Sequence[tuple[str, ...]]) -> bytes:
    delimiter = "," if form == "csv" else "\t"
    return "".join(delimiter.join(row) + "\n" for row in [("prompt", "completion"), *rows]).encode()


def with_a_bad_row(form: str) -> tuple[bytes, str]:
    """Three rows of which the middle one is bad, and where it stands."""
    good = json.dumps(dict(zip(("prompt", "completion"), GOOD, strict=True)))
    if form == "json":
        return f"[{good}, 3, {good}]".encode(), "item 2"
    if form.endswith("json") or form == "jsonl":
        return f"{good}\n{{oops\n{good}\n".encode(), "2"
    return table(form, [GOOD, (BROKEN, "z"), GOOD]), "3"


def one_is_bad(path: Path, place: str, reason: str) -> None:
    """Both policies on a file of three rows whose second is bad."""
    with pytest.raises(BadRowError) as caught:
        list(read_traces(DataSettings(path=str(path))))
    assert str(caught.value).startswith(f"{path}:{place}: {reason}")
    reading = read_traces(DataSettings(path=str(path), bad_rows="skip"))
    assert [trace.messages[0].content for trace in reading] == ["a", "a"]
    assert (reading.read, reading.skipped, reading.bad[0].place) == (3, 1, f"{path}:{place}")


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_bad_row_is_named_and_costs_itself(form: str, packed: str, tmp_path: Path) -> None:
    content, place = with_a_bad_row(form)
    path = tmp_path / f"mine.{form}{packed}"
    path.write_bytes(PACK[packed](content))
    one_is_bad(path, place, "")


def test_a_bad_row_of_parquet(tmp_path: Path) -> None:
    cells = [pyarrow.array(["a", "a", "a"]), pyarrow.array([b"b", b"\xff", b"b"]).view(pyarrow.string())]
    pyarrow.parquet.write_table(pyarrow.table(cells, names=["prompt", "completion"]), tmp_path / "mine.parquet")
    one_is_bad(tmp_path / "mine.parquet", "row 2", "not UTF-8: invalid start byte at byte 0")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"\xff", "not UTF-8: invalid start byte at byte 2"),
        (b"\0", "a NUL byte"),
        (b'"x\n\xff"', "line 4: not UTF-8: invalid start byte at byte 0"),
        (b"x,y", "3 cells, where the header has 2"),
        (b'"x"y', "not CSV: ',' expected after '\"'"),
        (b"x\ry", "not CSV: new-line character seen in unquoted field"),
    ],
)
def test_bad_rows_of_a_table(wrong: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"prompt,completion\na,b\nx," + wrong + b"\na,b\n")
    one_is_bad(tmp_path / "mine.csv", "3", reason)


@pytest.mark.parametrize(
    ("wrong", "reason"), [(b'{"prompt": "\xff"}', "not UTF-8: invalid start byte at byte 12"), (b"\0\0\0", "not JSON")]
)
def test_bad_bytes_of_a_line(wrong: bytes, reason: str, tmp_path: Path) -> None:
    good = b'{"prompt": "a", "completion": "b"}\r\n'
    (tmp_path / "mine.jsonl").write_bytes(b"\xef\xbb\xbf" + good + wrong + b"\r\n" + good)
    one_is_bad(tmp_path / "mine.jsonl", "2", reason)


@pytest.mark.parametrize("policy", ["fatal", "skip"])
@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_packed_file_that_was_cut_off_ends_the_reading(form: str, packed: str, policy: str, tmp_path: Path) -> None:
    generator = random.Random(0)
    rows = [("a", generator.randbytes(400).hex()) for _ in range(400)]
    records = [dict(zip(("prompt", "completion"), row, strict=True)) for row in rows]
    content = json.dumps(records).encode() if form == "json" else table(form, rows)
    if form in ("jsonl", "ndjson"):
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path, whole = tmp_path / f"mine.{form}{packed}", PACK[packed](content)
    data = DataSettings(path=str(path), bad_rows=policy)
    path.write_bytes(whole)
    assert len(list(read_traces(data))) == 400
    for cut, least in ((len(whole) // 2, 100), (len(whole) - 1, 300), (0, 0)):
        path.write_bytes(whole[:cut])
        read: list[Row] = []
        with pytest.raises(DataFileError, match=r"damaged or cut off: .*Read up to there: (\d+) rows") as caught:
            read.extend(read_rows(path))
        count = int(str(caught.value).partition("Read up to there: ")[2].split()[0])
        assert 400 > count >= (0 if form == "json" else least)
        with pytest.raises(DataFileError, match="damaged or cut off"):
            list(read_traces(data))


def test_packed_files_of_several_members_are_read_whole(tmp_path: Path) -> None:
    lines = [b'{"a": %d}\n' % i for i in range(4)]
    for packed, pack in PACK.items():
        path = tmp_path / f"mine.jsonl{packed}"
        path.write_bytes(b"".join(map(pack, lines)))
        assert [row.data["a"] for row in read_rows(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("where", [0.0, 0.5, 0.9])
def test_a_damaged_row_group_costs_its_rows_and_no_others(where: float, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    rows = [{"prompt": f"ask {i}", "completion": "b"} for i in range(30)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=10, write_page_checksum=True)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset + int(where * column.total_compressed_size)
    content[begin : begin + 4] = bytes(255 - byte for byte in content[begin : begin + 4])
    path.write_bytes(content)
    with pytest.raises(BadRowError, match=r"mine\.parquet:row 11: row group 1 is damaged: "):
        list(read_traces(DataSettings(path=str(path))))
    reading = read_traces(DataSettings(path=str(path), bad_rows="skip"))
    kept = [trace.messages[0].content for trace in reading]
    assert kept == [row["prompt"] for row in rows[:10] + rows[20:]]
    assert (reading.read, reading.skipped) == (30, 10)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match="not Parquet, or cut off"):
        list(read_traces(DataSettings(path=str(path), bad_rows="skip")))


def rows_of(content: bytes, form: str = "csv") -> list[Row]:
    """Every row up to a DataFileError, which becomes a last row of number 0."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mine.{form}"
        path.write_bytes(content)
        try:
            found.extend(read_rows(path))
        except DataFileError as error:
            found.append(Row(0, "", error=str(error)))
    return found


def test_lines_are_those_of_the_file() -> None:
    """A mark of byte order, line ends of two characters, blank lines and line breaks in cells, in the header too."""
    content = b'\xef\xbb\xbf\r\nask,"say\r\nthis"\r\n\r\n1,"a\r\nb\r\n\r\nc"\r\n \r\n2,x\r\nbad\r\n3,y'
    rows = rows_of(content)
    assert [row.number for row in rows] == [5, 10, 11, 12]
    assert rows[0].data == {"ask": "1", "say\r\nthis": "a\r\nb\r\n\r\nc"}
    assert [bool(row.error) for row in rows] == [False, False, True, False]


@pytest.mark.parametrize(
    ("content", "numbers", "reason"),
    [
        # An open quote, and then one that can only open a cell: one line is bad.
        (b'a,b\n1,2\n"x,y\n3,4\n"5",6\n7,8\n', [2, -3, 4, 5, 6], "',' expected"),
        (b'a,b\n1,2\n"x"y,z\n"5",6\n', [2, -3, 4], "',' expected"),
        # A cell of two lines with a stray quote in either: what follows may be the rest of it.
        (b'a,b\n1,2\n"x "y", and\nmore, of it",z\n5,6\n', [2, 0], "cannot be told where the next row begins"),
        (b'a,b\n1,2\n"x, and\nmore "of" it",z\n5,6\n', [2, 0], "cannot be told where the next row begins"),
        (b'a,b\n1,2\n"5" disk","two\nlines, x\n"\n5,6\n', [2, 0], "cannot be told where the next row begins"),
        # A quote that is never closed: cut off, or one line with rows behind it.
        (b'a,b\n1,2\n"x,y\n5,6\n', [2, 0], "Read up to there: 1 row;"),
        (b'a,b\n1,2\n5,"x', [2, -3], "unexpected end of data"),
        # Too many cells: in a cell's own lines, and where the lines may be rows that an open quote has joined.
        (b'a,b\n1,2\n"x\ny",z,z\n5,6\n', [2, -3, 5], "3 cells, where the header has 2"),
        (b'a,b\n1,2\n"x\n3,4\n"",z,z\n5,6\n', [2, 0], "cannot be told where the next row begins"),
        (b"a,b,a\n1,2,3\n", [0], "its header names column 'a' twice"),
        (b"a,\xff\n1,2\n", [0], "its header: not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), [0], "UTF-16, by its first bytes"),
    ],
)
def test_what_follows_a_broken_row(content: bytes, numbers: list[int], reason: str) -> None:
    """`numbers`: the rows, a bad one negative; 0 where reading ends."""
    rows = rows_of(content)
    assert [-row.number if row.error else row.number for row in rows] == numbers
    assert any(reason in row.error for row in rows)


CELL = st.text(alphabet='ab,"\n ', max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6),
    everything=st.booleans(),
    damaged=st.integers(0, 5),
)
def test_a_stray_quote_never_makes_a_row_up_or_away(
    cells: list[tuple[str, str]], everything: bool, damaged: int
) -> None:
    """In a table of any texts, one cell with a quote between two letters costs its row, or ends the reading."""
    damaged %= len(cells)

    def written(rows: list[tuple[str, str]]) -> str:
        stream = io.StringIO()
        csv.writer(stream, quoting=csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL, lineterminator="\n").writerows(
            rows
        )
        return stream.getvalue()

    broken = written([("aa, " + cells[damaged][0] + "MARK", cells[damaged][1])]).replace("MARK", 'b"b', 1)
    text = "n,m\n" + written(cells[:damaged]) + broken + written(cells[damaged + 1 :])
    rows = rows_of(text.encode())
    kept = [cell for i, cell in enumerate(cells) if i != damaged and "".join(cell).strip()]
    good = [tuple(row.data.values()) for row in rows if not row.error and "".join(row.data.values()).strip()]
    if rows[-1].number == 0:
        assert good == kept[: len(good)]
        assert len(good) == sum(bool("".join(cell).strip()) for cell in cells[:damaged])
    else:
        assert good == kept
        assert sum(bool(row.error) for row in rows) == 1

"""Why this matters: a gold that no verifier can read makes every right answer a wrong one, and training
believes it. The check has to find such rows, name them by line, and accept the real data sets as they are.

Not exercised: the verifiers themselves; compiled reference solutions.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from click.testing import Result
from typer.testing import CliRunner

from r1kit.cli.app import app
from r1kit.config import UserError
from r1kit.sandbox import SandboxError, shared_sandbox

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def wrong(path: Path, *options: object) -> list[tuple[int, str, str]]:
    """(row, check, message) of everything found; the exit code has to agree."""
    result = check(path, "--json", *options)
    assert isinstance(result.exception, SystemExit | None), result.exception
    report = json.loads(result.stdout)
    assert result.exit_code == int(bool(report["findings"])) == int(not report["ok"])
    return [(f["number"], f["check"], f["message"]) for f in report["findings"]]


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


ROWS = [
    {"problem": "What is 1+1?", "answer": "2"},
    {"problem": "what  is １+1?", "answer": "2"},
    {"problem": "What is 1+1?", "answer": "3"},
    {"problem": "Half?", "answer": "\\frac{1}{2}"},
    {"problem": "", "answer": "5"},
    {"problem": "Empty?", "answer": " "},
    {"problem": "Broken?", "answer": "\\frac{1}{"},
]
FOUND = [
    (2, "duplicate", "the problem of line 1"),
    (3, "duplicate", "the problem of line 1, with another answer"),
    (5, "empty", "the problem is empty"),
    (6, "empty", "the answer is empty"),
]


def test_everything_wrong_is_named_by_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", [*ROWS, "", "{oops"])
    found = wrong(path)
    assert found[:4] == FOUND
    assert [(number, name) for number, name, _ in found[4:]] == [(7, "gold"), (9, "row")]
    assert found[4][2].startswith("\\frac{1}{: ")
    result = check(path)
    assert result.exit_code == 1
    assert f"{path}:3: duplicate: the problem of line 1, with another answer" in result.stdout
    assert "something is wrong with 6 of 8 rows" in result.stderr


def as_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["problem", "answer"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "tsv.gz", "parquet"])
def test_every_format_is_read_alike(form: str, tmp_path: Path) -> None:
    path, text = tmp_path / f"mine.{form}", "".join(json.dumps(row) + "\n" for row in ROWS)
    if form.startswith("jsonl"):
        pack = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(form, bytes)
        path.write_bytes(pack(text.encode()))
    elif form == "json":
        path.write_text(json.dumps(ROWS), "utf-8")
    elif form == "csv":
        as_csv(path, ROWS)
    elif form == "tsv.gz":
        table = ["problem\tanswer", *(f"{row['problem']}\t{row['answer']}" for row in ROWS)]
        path.write_bytes(gzip.compress("\r\n".join(table).encode()))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    header = int(form in ("csv", "tsv.gz"))
    assert [(number - header, name) for number, name, _ in wrong(path)] == [(n, c) for n, c, _ in FOUND] + [(7, "gold")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": ["x", "y", "z"], "answer": 2}, None),
        ({"options": ["x", "y", "z"], "answer": "B"}, None),
        ({"options": ["x", "y", "z"], "answer": "y"}, None),
        ({"options": ["(A) x", "(B) y", "(C) z"], "label": "A C"}, None),
        ({"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}, None),
        ({"A": "x", "B": "y", "C": "z", "answer": "C"}, None),
        ({"options": ["x", "y", "z"], "answer": "D"}, "D: gold_invalid"),
        ({"options": ["x", "y", "z"], "answer": 3}, "gold is option 3, counted from 0: there are 3"),
        ({"options": ["x", "y", " X"], "answer": "A"}, "option 'x' is empty or there twice"),
        ({"options": "x, y", "answer": "A"}, "options is 'x, y': expected a list of options"),
    ],
)
def test_golds_of_choices(row: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    found = wrong(lines(tmp_path / "mine.jsonl", [{"question": "Which?", **row}]))
    assert len(found) == (message is not None)
    assert message is None or found[0][2].startswith(message)


def test_same_question_with_other_options_is_another_problem(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "options": texts, "answer": "A"} for texts in (["x", "y"], ["x", "z"], ["x", "y"])]
    assert wrong(lines(tmp_path / "mine.jsonl", rows)) == [(3, "duplicate", "the problem of line 1")]


def test_countdown_needs_a_way_to_the_target(tmp_path: Path) -> None:
    rows = [
        {"nums": [3, 5, 6], "target": 13},
        {"nums": [1, 1, 1], "target": 50},
        {"nums": [6, 3, 5], "target": 13},
        {"nums": [2, 3], "target": 6, "solution": "2*3"},
        {"nums": [2, 4], "target": 8, "solution": "2**3"},
        {"nums": "2", "target": 8},
    ]
    found = wrong(lines(tmp_path / "mine.jsonl", rows))
    assert [(number, name) for number, name, _ in found] == [(2, "gold"), (3, "duplicate"), (5, "gold"), (6, "gold")]
    assert "no way from [1, 1, 1] to 50" in found[0][2]


def test_other_kinds_are_checked_by_what_they_need(tmp_path: Path) -> None:
    puzzle = {"quiz": "who?", "names": ["Ava"], "statements": [["telling-truth", 0]], "solution": [True]}
    assert "2 solutions" in wrong(lines(tmp_path / "knights.jsonl", [puzzle]))[0][2]
    rules = {"prompt": "no commas", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    bad = {"prompt": "what?", "instruction_id_list": ["punctuation:none"], "kwargs": [{}]}
    assert [n for n, _, _ in wrong(lines(tmp_path / "rules.jsonl", [rules, bad]))] == [2]
    nameless = {**puzzle, "statements": [["not", ["telling-truth", 0]]], "names": 1}
    assert "lists names and statements" in wrong(lines(tmp_path / "none.jsonl", [nameless]))[0][2]
    patterns = [{"question": "a", "answer": "[0-9]+"}, {"question": "b", "answer": "["}]
    assert [n for n, _, _ in wrong(lines(tmp_path / "patterns.jsonl", patterns), "--kind", "regex")] == [2]


def test_test_suites_have_to_accept_their_reference(tmp_path: Path) -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    row = {
        "text": "Double.",
        "test_setup_code": "",
        "test_list": ["assert f(2) == 4"],
        "code": "def f(x): return 2 * x",
    }
    rows = [
        row,
        {**row, "text": "Square.", "code": "def f(x): return x + 1"},
        {**row, "text": "None.", "test_list": []},
    ]
    found = wrong(lines(tmp_path / "mine.jsonl", rows))
    assert [(n, name) for n, name, _ in found] == [(2, "reference"), (3, "gold")]
    assert "none of 1 reference solutions passes: wrong" in found[0][2]
    assert found[1][2] == "the problem has no tests"


def test_the_reference_beside_tests_of_ones_own_has_to_pass_too(tmp_path: Path) -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    tests = {"programs": [{"stdin": "1 2", "expected": "3"}]}
    right = "print(sum(map(int, input().split())))"
    rows = [
        {"question": "Add.", "tests of it": tests, "solution": right},
        {"question": "Sum.", "tests of it": json.dumps(tests), "solution": "print(4)"},
        {"question": "Sum up.", "tests of it": tests},
    ]
    found = wrong(lines(tmp_path / "mine.jsonl", rows), "--kind", "code", "--answer-column", "tests of it")
    assert [(n, name) for n, name, _ in found] == [(2, "reference")]
    # The records that a run keeps of such problems hold it as a response would state it.
    record = {"id": "a", "prompt": [{"role": "text", "content": "Add."}], "task": "code", "payload": {"gold": tests}}
    records = [
        {**record, "metadata": {"witness": f"```python\n{right}\n```"}},
        {**record, "id": "b", "prompt": [{"role": "text", "content": "Sum."}], "metadata": {"witness": "```\n0\n```"}},
    ]
    assert [(n, name) for n, name, _ in wrong(lines(tmp_path / "records.jsonl", records))] == [(2, "reference")]


@pytest.mark.parametrize(
    ("name", "content", "options", "part"),
    [
        ("a.jsonl", '{"statement": "1+1", "value": 2}', (), "which column is the problem?"),
        ("a.jsonl", '{"problem": "1+1", "value": 2}', (), "name it with --answer-column"),
        ("a.jsonl", '{"problem": "1+1", "value": 2}', ("--answer-column", "valu"), 'did you mean "value"?'),
        ("a.jsonl", '{"problem": "1+1", "answer": 2}', ("--kind", "maths"), 'did you mean "math"?'),
        ("a.jsonl", '{"problem": "1+1", "answer": 2}', ("--kind", "code"), "which column holds the tests?"),
        ("a.jsonl", "", (), "the file is empty"),
        ("a.jsonl", "nothing", (), "no row can be read"),
        ("a.txt", "1", (), "expected a name that ends in .jsonl"),
        ("a.json", "[1", (), "not JSON"),
        ("a.parquet", "x", (), "not Parquet"),
        ("a.jsonl.gz", "x", (), "damaged or cut off"),
        ("a.jsonl.zst", "x" * 20, (), "damaged or cut off"),
    ],
)
def test_what_cannot_be_checked_is_refused(name: str, content: str, options: Any, part: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    result = check(path, *options)
    assert isinstance(result.exception, UserError)
    assert part in str(result.exception)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", [{"statement": "1+1", "value": 2}, {"statement": "1+1", "value": 2}])
    named = ("--problem-column", "statement", "--answer-column", "value")
    assert [name for _, name, _ in wrong(path, *named)] == ["duplicate"]


@pytest.mark.parametrize(
    ("name", "rows"), [("aime24/test", 30), ("chmath_2024/test", 30), ("aqua/test", 254), ("countdown/test", 1024)]
)
def test_published_sets_pass(name: str, rows: int) -> None:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {name}: set R1KIT_DATA to a folder that holds it")
    result = check(path)
    assert result.exit_code == 0, result.stdout
    assert f"{rows} rows" in result.stdout

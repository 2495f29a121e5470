"""Why this matters: the README's picture is drawn from a real run by this, never by hand.

Does not exercise: how GitHub shows it.
"""

from __future__ import annotations

import shutil
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from r1kit.dashboard import ReportError, curve_svg, terminal_table

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_valid_and_says_what_it_shows(finished_run):
    picture = curve_svg(finished_run)
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{SVG}svg"
    title = root.findtext(f"{SVG}title")
    assert title.startswith("tinyzero, seed 0, against RL steps: pass@1 on held-out problems ")
    kinds = [node.get("class") for node in root.iter(f"{SVG}path")]
    assert kinds.count("band") == 1
    assert kinds.count("dots") == 2
    assert "prefers-color-scheme: dark" in root.findtext(f"{SVG}style")


def test_the_picture_loads_nothing(finished_run):
    picture = curve_svg(finished_run).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "http" not in picture
    assert "<script" not in picture
    assert "<image" not in picture


def test_without_evaluations_the_error_says_what_to_do(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ReportError, match=r"evaluate\.every"):
        curve_svg(run)


def test_the_table_of_the_terminal(finished_run, stopped_run):
    table = terminal_table(finished_run)
    assert [str(column.header) for column in table.columns] == ["", "base_eval", "final", "change"]
    assert str(table.title) == "tinyzero, seed 0"
    assert "512 problems × 8 samples" in str(table.caption)
    first = [next(iter(column.cells)) for column in table.columns]
    assert str(first[0]) == "pass@1"
    assert "[" in str(first[1])
    assert terminal_table(stopped_run).row_count > 0


def test_without_evaluations_the_table_is_one_line_and_not_one_letter_wide(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "evaluations")
    for record in (run / "stages").iterdir():
        record.unlink()
    console = Console(file=StringIO(), width=80)
    console.print(terminal_table(run))
    assert "tinyzero, seed 0" in console.file.getvalue()


def test_the_table_is_whole_on_80_columns(finished_run, monkeypatch):
    """With the widest cells there are: an evaluation that is sure of everything, and a great change."""
    wide = ("100.0 %", "[100.0, 100.0]")
    monkeypatch.setattr("r1kit.dashboard.comparison.ComparisonRow.cell", lambda row, side: wide)
    console = Console(file=StringIO(), width=80)
    console.print(terminal_table(finished_run))
    lines = console.file.getvalue().splitlines()
    assert not any("…" in line for line in lines)
    assert sum(line.count("[100.0, 100.0]") for line in lines) >= 20

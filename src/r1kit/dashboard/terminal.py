"""The table that the terminal shows at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from r1kit.dashboard.comparison import compare
from r1kit.dashboard.run_data import load_run

STYLES = {True: "green", False: "red", None: ""}


def terminal_table(run_directory: Path) -> Table:
    """Base against final with 95 % intervals. ReportError where `run_directory` is no run."""
    run = load_run(run_directory)
    comparison = compare(run)
    measured = comparison.final or comparison.base
    protocol = f"{measured.protocol()}; 95 % intervals" if measured else "no evaluation yet"
    title = f"{run.name}, seed {run.seed}"
    table = Table(
        title=title,
        caption=protocol,
        # Title and caption are folded to the width of the columns, and without an evaluation there is none.
        min_width=0 if measured else max(len(title), len(protocol)),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        # The widest rows just fit 80 columns: nothing is spent on edges.
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    sides = [(name, side) for name in ("base", "final") if (side := getattr(comparison, name))]
    for _, side in sides:
        table.add_column(Text(side.label), justify="right", no_wrap=True)
    if len(sides) == 2:
        table.add_column("change", justify="right", no_wrap=True)
    for row in comparison.rows():
        cells = [Text(row.label), *(_cell(*row.cell(name)) for name, _ in sides)]
        if len(sides) == 2:
            cells.append(Text(row.change, style=STYLES[row.better]))
        table.add_row(*cells)
    return table


def _cell(value: str, interval: str) -> Text:
    """The value, its interval dimmed beside it."""
    return Text.assemble(value, (f" {interval}" if interval else "", "dim"))

"""`r1kit report`: the page of a run, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, finished or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it.", show_default="RUN/report.html")
    ] = None,
) -> None:
    """Write a run's report.html (one file, opens offline) and print its table."""
    from rich.console import Console

    from r1kit.dashboard.report import write_report
    from r1kit.dashboard.terminal import terminal_table

    path = write_report(run, out)
    Console().print(terminal_table(run))
    typer.echo(f"report: {path}")

"""`r1kit data`: is a data file fit to train on?"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1kit.cli.options import AnswerColumnOption, KindOption, PolicyOption, ProblemColumnOption, progress_on_stderr

if TYPE_CHECKING:
    from r1kit.tasks.check_data import DataReport

data = typer.Typer(help="Check data before it is trained on.", no_args_is_help=True, rich_markup_mode=None)

SHOWN = 20


@data.callback()
def _root() -> None:
    """Keeps `check` a command of its own; more will follow."""


@data.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV, TSV or Parquet; .gz and .zst too.")],
    kind: KindOption = None,
    problem_column: ProblemColumnOption = None,
    answer_column: AnswerColumnOption = None,
    policy: PolicyOption = None,
    everything: Annotated[bool, typer.Option("--all", help=f"Name every wrong row, not the first {SHOWN}.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, every wrong row named.")] = False,
) -> None:
    """Check that golds parse and score 1 against themselves, references pass, nothing is empty or twice."""
    from r1kit.sandbox import use_sandbox
    from r1kit.tasks.check_data import check_data
    from r1kit.tasks.policies import read_policies

    use_sandbox(None, tell=partial(typer.echo, err=True))
    report = check_data(
        file,
        kind=kind,
        problem=problem_column or (),
        answer=answer_column,
        policies=read_policies(policy or [], kind),
        progress=progress_on_stderr(),
    )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print(report, None if everything else SHOWN)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: DataReport, most: int | None) -> None:
    from r1kit.tasks.check_data import CHECKS

    typer.echo(f"{report.path}: {report.rows} rows, {report.columns}; {report.seconds:.1f} s\n")
    typer.echo(f"{'check':<10} {'rows':>7} {'wrong':>7}")
    for name, meaning in CHECKS.items():
        if report.checked[name] or report.wrong(name):
            typer.echo(f"{name:<10} {report.checked[name]:>7} {report.wrong(name):>7}  {meaning}")
    if report.deciders:
        typer.echo("decided by " + ", ".join(f"{name} {count}" for name, count in report.deciders.most_common()))
    for finding in report.findings[:most]:
        typer.echo(f"{finding.place}: {finding.check}: {finding.message}")
    hidden = len(report.findings) - len(report.findings[:most])
    if hidden:
        typer.echo(f"... and {hidden} more (--all names them)")
    if report.findings:
        wrong = len({f.number for f in report.findings})
        typer.echo(f"error: something is wrong with {wrong} of {report.rows} rows", err=True)

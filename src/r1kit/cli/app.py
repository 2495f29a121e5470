"""The verbs under one command, and how errors leave it.

A verb's file imports nothing heavy before it is called, so that `r1kit --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from r1kit.cli.check import check
from r1kit.cli.data import data
from r1kit.cli.doctor import doctor
from r1kit.cli.evaluate import evaluate
from r1kit.cli.export import export
from r1kit.cli.recipes import recipes
from r1kit.cli.report import report
from r1kit.cli.run import run
from r1kit.cli.sample import sample
from r1kit.cli.verify import verify

app = typer.Typer(
    name="r1kit",
    help="DeepSeek-R1 and its open reproductions as one system. Start with: r1kit run tinyzero",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes would cost a third of the time `--help` takes.
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import r1kit

        typer.echo(f"r1kit {r1kit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


app.command("run")(run)
app.command("check")(check)
app.command("eval")(evaluate)
app.command("sample")(sample)
app.command("report")(report)
app.command("doctor")(doctor)
app.command("export")(export)
app.command("verify")(verify)
app.add_typer(data, name="data")
app.add_typer(recipes, name="recipes")


def run_app() -> None:
    """Run the command line; errors that are the user's to mend leave as one message and an exit code."""
    # Ours before the first import of Transformers: nothing here asks the network unless the user wants a hub
    # model.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sys.exit(explain(error))


def explain(error: Exception) -> int:
    """Print what went wrong; the exit code. Errors of r1kit's own classes carry a message for the user."""
    from r1kit.config.errors import UserError
    from r1kit.pipeline.files import is_disk_full

    if isinstance(error, UserError):
        return _fail(str(error), error.exit_code)
    if is_disk_full(error):
        return _fail(f"no space left on the disk: {error}", 1)
    if type(error).__module__.startswith("r1kit."):
        return _fail(str(error), 2)
    if isinstance(error, OSError) and error.filename:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    traceback.print_exception(error)
    typer.echo("\nThis is a defect of r1kit, not of your input: please report it with the lines above.", err=True)
    return 1


def _fail(message: str, code: int) -> int:
    typer.echo(f"error: {message}", err=True)
    return code

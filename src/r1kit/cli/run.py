"""`r1kit run`: a recipe from start to end; run again to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1kit.cli.options import RecipeArgument, SetOption


def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<recipe>")] = None,
    overrides: SetOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in the run directory first.")] = False,
    redo_changed: Annotated[
        bool,
        typer.Option(
            "--redo-changed", help="Do stages whose settings changed, and those behind them, again; keep the others."
        ),
    ] = False,
    processes: Annotated[
        str | None, typer.Option("--processes", help="Processes with one thread each, or auto.")
    ] = None,
    allow_new_code: Annotated[
        bool, typer.Option("--allow-new-code", help="Go on with a run that another version of r1kit began.")
    ] = False,
) -> None:
    """Run a recipe; the same command again goes on, or reports what is finished."""
    from r1kit.config import load_recipe
    from r1kit.pipeline.catalog import find_recipe
    from r1kit.pipeline.run import Options, run_recipe

    settings = list(overrides or []) + ([f"processes={processes}"] if processes is not None else [])
    loaded = load_recipe(find_recipe(recipe), settings)
    options = Options(
        fresh=fresh,
        redo_changed=redo_changed,
        allow_new_code=allow_new_code,
        source=recipe,
        overrides=settings,
    )
    result = run_recipe(loaded, out or Path("runs") / loaded.name, options)
    if not result.expect_ok:
        typer.echo("error: the run is finished and kept, but not everything it expects holds (see above)", err=True)
        raise typer.Exit(1)

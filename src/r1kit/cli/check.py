"""`r1kit check`: proves that a recipe can work before anything is spent."""

from __future__ import annotations

import typer

from r1kit.cli.options import RecipeArgument, SetOption


def check(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Check a recipe before spending: settings, template and reward, golds, split, memory."""
    from r1kit.config import load_recipe, resolve
    from r1kit.pipeline.catalog import find_recipe
    from r1kit.pipeline.preflight import preflight

    loaded = resolve(load_recipe(find_recipe(recipe), overrides or []))
    failed = 0
    for finding in preflight(loaded):
        failed += not finding.ok
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.found}")
        for line in finding.table:
            typer.echo(f"      {line}")
    if failed:
        typer.echo(f"error: {failed} of the checks failed; nothing was run", err=True)
        raise typer.Exit(2)

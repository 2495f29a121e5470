"""`r1kit recipes`: the recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1kit.cli.options import RecipeArgument

recipes = typer.Typer(
    help="List the packaged recipes, or copy one to edit.", no_args_is_help=True, rich_markup_mode=None
)


@recipes.command("list")
def list_recipes() -> None:
    """List the packaged recipes."""
    from r1kit.config import load_recipe
    from r1kit.pipeline.catalog import find_recipe, recipe_names

    names = recipe_names()
    width = max(len(name) for name in names)
    for name in names:
        typer.echo(f"{name:<{width}}  {load_recipe(find_recipe(name)).description}")


@recipes.command("copy")
def copy(
    recipe: RecipeArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A file, or a directory.")] = Path("."),
) -> None:
    """Copy a recipe to edit; then: r1kit run FILE."""
    from r1kit.pipeline.catalog import copy_recipe

    typer.echo(f"wrote {copy_recipe(recipe, destination)}")

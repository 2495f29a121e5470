"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: rl.steps=10, task=multiplication."),
]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A name (tinyzero), name/full, or a YAML file.")]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A checkpoint directory, or a run directory (its last model).")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32 or bfloat16.")]

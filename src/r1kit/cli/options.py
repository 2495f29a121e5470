"""Options that several verbs share, and how long ones say how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable
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
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
KindOption = Annotated[
    str | None, typer.Option("--kind", help="What answers are: math, choice, exact, countdown, code ...")
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="KEY=VALUE", help="Default rule of equality: units=drop, exact.case=true."),
]
ProblemColumnOption = Annotated[
    list[str] | None, typer.Option("--problem-column", help="Column of the problem; several are joined.")
]
AnswerColumnOption = Annotated[str | None, typer.Option("--answer-column", help="Column of the gold answer.")]


def progress_on_stderr(every: float = 10.0) -> Callable[[int, int], None]:
    """A function that is told (done, total) and says so on standard error every so many seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            typer.echo(f"{done} of {total}", err=True)

    return progress

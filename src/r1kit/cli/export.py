"""`r1kit export`: a checkpoint for plain Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1kit.cli.options import ModelArgument


def export(
    model: ModelArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A directory to make.")],
    stage: Annotated[
        str | None, typer.Option("--stage", help="Of a run directory: the stage whose model to take.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="What the model was trained from, where its run does not say or it is gone."),
    ] = None,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Of a stage trained with lora: its adapters alone, for PEFT.")
    ] = False,
) -> None:
    """Copy a model in Hugging Face layout and prove that plain Transformers computes the same."""
    from r1kit.pipeline.export import export_checkpoint, find_model

    source = find_model(model, stage)
    made = export_checkpoint(source, destination, find_model(base) if base else None, adapters=adapters)
    other = "PEFT" if adapters else "Transformers"
    typer.echo(f"{source} -> {destination}; {other} agrees within {made.gap:.1e} {made.unit}")
    for finding in made.findings:
        typer.echo(finding.sentence())

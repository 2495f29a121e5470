"""`r1kit eval`: measure a model on a task's held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1kit.cli.options import DeviceOption, DtypeOption, ModelArgument, SetOption


def evaluate(
    model: ModelArgument,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="A task by name, such as countdown, or math with --set task.test_data=FILE.",
            show_default="the run's task",
        ),
    ] = None,
    overrides: SetOption = None,
    problems: Annotated[int, typer.Option("--problems", help="At most so many held-out problems.")] = 512,
    samples: Annotated[int, typer.Option("--samples", help="Responses per problem.")] = 8,
    cap: Annotated[
        int | None,
        typer.Option("--cap", min=1, help="Most tokens of a response.", show_default="as the run evaluates, or 240"),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p")] = 1.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    processes: Annotated[str, typer.Option("--processes", help="A number, or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Write everything, examples too, as JSON.")] = None,
) -> None:
    """Measure a model on held-out problems: pass@k with intervals, length, format, behaviour."""
    from r1kit.pipeline.ask import default_cap
    from r1kit.pipeline.export import find_model
    from r1kit.pipeline.files import write_json
    from r1kit.pipeline.measure import describe_evaluation, measure_checkpoint, one_stage_recipe

    settings = {
        "problems": problems,
        "samples": samples,
        "max_tokens": cap or default_cap(model),
        "temperature": temperature,
        "top_p": top_p,
    }
    recipe = one_stage_recipe(
        find_model(model),
        task,
        settings,
        seed=seed,
        dtype=dtype,
        device=device,
        processes=processes,
        overrides=overrides or [],
    )
    evaluation = measure_checkpoint(recipe)
    typer.echo(describe_evaluation(evaluation))
    if out is not None:
        write_json(out, evaluation)

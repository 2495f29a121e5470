"""`r1kit sample`: ask a model and watch it think."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from r1kit.cli.options import DeviceOption, DtypeOption, ModelArgument


def sample(
    model: ModelArgument,
    problem: Annotated[
        str | None, typer.Option("--problem", help="3,5,6>13 (make 13 from 3, 5 and 6) or 12*34.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Any text, as it stands.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send --prompt through the chat template.")] = False,
    index: Annotated[int, typer.Option("--index", help="Without either: this held-out problem.")] = 0,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Responses.")] = 1,
    cap: Annotated[
        int | None,
        typer.Option("--cap", min=1, help="Most tokens of a response.", show_default="as the run evaluates, or 240"),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other responses.")] = 0,
    template: Annotated[
        str | None, typer.Option("--template", help="Prompt template.", show_default="the run's, or compact")
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Ask a model and print what it thinks and answers."""
    from r1kit.config import resolve_device, resolve_dtype
    from r1kit.engines.protocol import SamplingParams
    from r1kit.pipeline import ask
    from r1kit.pipeline.export import find_model
    from r1kit.pipeline.files import RunError
    from r1kit.records import prompt_text

    if problem is not None and prompt is not None:
        raise RunError("--problem and --prompt are both given: choose one")
    checkpoint, task = find_model(model), ask.recipe_task(model)
    if prompt is not None:
        question = ask.free_problem(prompt, chat=chat)
    elif problem is not None:
        question = ask.written_problem(problem, template or ask.written_template(task))
        task = task if task and task.name == question.task else ask.default_task(question.task)
    elif task is not None:
        question = ask.held_out_problem(task, index)
    else:
        raise RunError(f"{model} is not part of a run, so it has no held-out problems: give --problem or --prompt")
    cap = cap or ask.default_cap(model)
    params = SamplingParams(temperature=temperature, max_tokens=cap, seed=seed)
    options: dict[str, Any] = {"count": count, "dtype": resolve_dtype(dtype), "device": resolve_device(device)}
    typer.echo(prompt_text(question.prompt) + question.prefill)
    for answer in ask.ask(checkpoint, question, task, params, **options):
        verdicts = ", ".join(f"{name} {verdict.reason}" for name, verdict in answer.verdicts.items())
        typer.echo(answer.text)
        finish = f"cut at the cap of {cap}" if answer.finish == "length" else answer.finish
        typer.echo(f"-- {answer.tokens} tokens, {finish}{'; ' + verdicts if verdicts else ''}\n")

"""Ask a model one question: a problem written by hand, a held-out one, or any prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.graph import stage_order
from r1kit.config.load import parse_recipe
from r1kit.config.schema import EvaluateSettings, Recipe
from r1kit.config.suggest import nearest
from r1kit.config.tasks import TASK_KINDS, ArithmeticSettings, TaskSettings
from r1kit.pipeline.files import RunError
from r1kit.pipeline.run_directory import RunDirectory

if TYPE_CHECKING:
    from r1kit.engines.protocol import SamplingParams
    from r1kit.records import Problem, Verdict

_COUNTDOWN = re.compile(r"\s*(\d+(?:\s*,\s*\d+)+)\s*>\s*(\d+)\s*")
_PRODUCT = re.compile(r"\s*(\d+)\s*[*x]\s*(\d+)\s*")


@dataclass(frozen=True)
class Answer:
    """One response: its text, how it ended, and what the verifiers say (nothing for a free prompt)."""

    text: str
    tokens: int
    finish: str
    verdicts: dict[str, Verdict]


def run_recipe_of(path: Path) -> Recipe | None:
    """The recipe of the run that a checkpoint lies in (or is); None outside a run."""
    for folder in (path, *path.resolve().parents):
        run = RunDirectory(folder)
        if run.exists:
            return parse_recipe(run.recipe.read_text(encoding="utf-8"), str(run.recipe))
    return None


def recipe_task(path: Path) -> TaskSettings | None:
    """The task of the run that a checkpoint lies in (or is); None outside a run."""
    recipe = run_recipe_of(path)
    return recipe.task if recipe else None


def default_cap(path: Path) -> int:
    """Most tokens of a response where nobody says: as the run around `path` measures last, else the schema's."""
    recipe = run_recipe_of(path)
    stages = [recipe.stages[name] for name in stage_order(recipe)] if recipe else []
    caps = [stage.max_tokens for stage in stages if isinstance(stage, EvaluateSettings)]
    return caps[-1] if caps else int(EvaluateSettings.model_fields["max_tokens"].default)


def default_task(name: str) -> TaskSettings:
    """A task with its default settings, to judge with."""
    return TASK_KINDS[name](name=name)


def written_template(task: TaskSettings | None) -> str:
    """How a problem written by hand is asked: as the run's task asks its own, where that is one of numbers."""
    return task.template if isinstance(task, ArithmeticSettings) else "compact"


def written_problem(text: str, template: str) -> Problem:
    """A problem from `3,5,6>13` (make 13 from 3, 5 and 6) or `12*34`. Raises RunError for anything else."""
    from r1kit.records import Problem
    from r1kit.tasks.templates import TEMPLATES, countdown_prompt, multiplication_prompt

    if template not in TEMPLATES:
        raise RunError(f"--template {template!r}: expected one of {', '.join(TEMPLATES)}{nearest(template, TEMPLATES)}")
    payload: dict[str, Any]
    if match := _COUNTDOWN.fullmatch(text):
        numbers, target = [int(n) for n in match[1].split(",")], int(match[2])
        task, payload = "countdown", {"numbers": numbers, "target": target}
        prompt = countdown_prompt(template, numbers, target)
    elif match := _PRODUCT.fullmatch(text):
        a, b = int(match[1]), int(match[2])
        task, payload = "multiplication", {"a": a, "b": b, "product": a * b}
        prompt = multiplication_prompt(template, a, b)
    else:
        raise RunError(f"--problem {text!r}: expected 3,5,6>13 (make 13 from 3, 5 and 6) or 12*34")
    return Problem("written", prompt.messages, task, payload, prefill=prompt.prefill, source="written")


def free_problem(text: str, *, chat: bool) -> Problem:
    """Any text as a prompt: as it stands, or as the user's turn of a chat."""
    from r1kit.records import Message, Problem

    return Problem("written", (Message("user" if chat else "text", text),), "", {}, source="written")


def held_out_problem(task: TaskSettings, index: int) -> Problem:
    """The `index`-th held-out problem of a task. Raises RunError past the last."""
    from r1kit.tasks import make_task

    problems = make_task(task).problems("test")
    if not 0 <= index < len(problems):
        raise RunError(f"--index {index}: the task has held-out problems 0 to {len(problems) - 1}")
    return problems[index]


def ask(
    model: Path,
    problem: Problem,
    task: TaskSettings | None,
    params: SamplingParams,
    *,
    count: int,
    dtype: str,
    device: str = "cpu",
) -> Iterator[Answer]:
    """`count` responses of the checkpoint `model` to one problem, judged where it belongs to a task."""
    from dataclasses import replace

    from r1kit.engines.protocol import Request
    from r1kit.models.chat import encode_prompt, stop_token_ids
    from r1kit.models.loading import load_tokenizer
    from r1kit.pipeline.measure import open_engine
    from r1kit.tasks import make_task

    tokenizer = load_tokenizer(model)
    engine = open_engine(model, dtype=dtype, device=device, slots=count, deterministic=False)
    stops = stop_token_ids(tokenizer)
    params = replace(params, stop_token_ids=stops)
    prompt = tuple(encode_prompt(tokenizer, problem))
    judge = make_task(task) if task is not None and problem.task == task.name else None
    samples = engine.generate([Request(str(i), prompt, params, problem.id, i) for i in range(count)])
    for sample in samples:
        ids = [token for token in sample.token_ids if token not in stops]
        text = str(tokenizer.decode(ids, skip_special_tokens=False))
        verdicts = judge.verify(problem, text) if judge else {}
        yield Answer(text, len(sample.token_ids), sample.finish, verdicts)

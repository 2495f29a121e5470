"""The work itself: recipe, prompts and the queue, equal for ours and every peer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from r1kit.config.load import load_recipe
from r1kit.config.schema import Recipe, RLSettings
from r1kit.pipeline.catalog import find_recipe
from r1kit.records import Problem


def read_recipe(name_or_path: str) -> Recipe:
    """A recipe of the package by name, or a recipe file."""
    return load_recipe(find_recipe(name_or_path))


def stage_of(recipe: Recipe, kind: str) -> Any:
    """The recipe's first stage of a kind."""
    for stage in recipe.stages.values():
        if stage.kind == kind:
            return stage
    raise ValueError(f"recipe {recipe.name} has no stage of kind {kind!r}: this benchmark needs one")


def queue(problems: Sequence[Problem], count: int) -> list[tuple[Problem, int]]:
    """(problem, sample) of `count` requests: every problem once, then every problem again."""
    return [(problems[i % len(problems)], i // len(problems)) for i in range(count)]


def natural_tokens(rows: Iterable[Sequence[int]], stops: Iterable[int]) -> int:
    """Tokens up to and with the first stop token of each row; what padding follows it is not counted."""
    ends = set(stops)
    total = 0
    for row in rows:
        total += next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
    return total


def rl_settings(recipe: Recipe, *, problems: int, max_tokens: int, drop: bool) -> RLSettings:
    """The recipe's RL stage for a benchmark: exactly `problems` groups sampled a step, nothing evaluated or
    written.

    drop: leave groups without any advantage out of the update, as the recipe does; else train on every group.
    """
    stage = stage_of(recipe, "rl")
    return stage.model_copy(
        update={
            # Long enough that no step of the benchmark is the last, with constant learning rate.
            "steps": 1_000_000,
            "warmup_steps": 0,
            "decay": "constant",
            "problems_per_step": problems,
            "sampling": stage.sampling.model_copy(update={"max_tokens": max_tokens}),
            "dynamic_sampling": stage.dynamic_sampling.model_copy(
                update={"enabled": drop, "max_factor": 1.0, "carry": False}
            ),
            "evaluate": stage.evaluate.model_copy(update={"every": 0}),
            "rollouts_every": 0,
        }
    )

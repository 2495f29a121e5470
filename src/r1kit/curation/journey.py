"""Journeys and shortcuts: one search written down whole, and the same one without its wrong turns.

O1-Journey's comparison (part 1, section 4) needs pairs of texts that differ in nothing else. The exhaustive search of
countdown knows the right and the wrong expressions of a problem; the draws are keyed by seed and problem, the right
expression before all others, so both forms of a problem end in the same way.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from r1kit.curation.generate import TRACES, turns
from r1kit.records import Problem, Trace
from r1kit.tasks import Task
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.search import Node, expressions, random_expression, render, working
from r1kit.tasks.templates import thinking_opened
from r1kit.tasks.traces import write_jsonl
from r1kit.training.parallel import World
from r1kit.training.recorder import Recorder, StageOutcome

# All expressions of up to so many numbers are listed (four: hundreds); beyond, wrong ones are drawn.
LISTED_UP_TO = 4
DRAWS = 50


def write_journeys(
    settings: Any, *, stage: str, task: Task, seed: int, world: World, recorder: Recorder, directory: Path
) -> StageOutcome:
    """One trace for each training problem under `directory`/traces; the outcome's `data` is that directory."""
    assert isinstance(task, Countdown)  # config/schema.py refuses other tasks
    problems = task.problems("train")[: settings.problems]
    traces = [journey(problem, task, settings, seed) for problem in problems]
    if world.is_main:
        write_jsonl(directory / TRACES / f"{settings.form}.jsonl.zst", traces)
    world.barrier("journeys")
    trials = sum(trace.provenance["trials"] for trace in traces)
    recorder.note(stage, f"{len(traces)} answers, {trials / len(traces):.2f} wrong attempts in each in the mean")
    return StageOutcome(
        model=None,
        data=directory / TRACES,
        tokens={"sampled": 0, "trained": 0, "discarded": 0},
        metrics={"answers": float(len(traces)), "trials": float(trials)},
    )


def journey(problem: Problem, task: Countdown, settings: Any, seed: int) -> Trace:
    """The answer to one problem, in the form that the settings name."""
    rng = random.Random(f"journey {seed} {problem.id}")
    target, right, wrong = problem.payload["target"], *_leaves(problem, task, settings.trials[1], rng)
    tried = wrong[: rng.randint(*settings.trials)] if settings.form == "journey" else []
    lines = [f"{working(node)}?{target} no\n" for node in tried] + [f"{working(right)}?{target} yes"]
    retries = [line if rng.random() >= settings.wait else f"wait {line}" for line in lines[1:]]
    opening = "" if thinking_opened(problem) else "<think>"
    text = f"{opening}{''.join([lines[0], *retries])}</think><answer>{render(right)}</answer>"
    prompt, response = turns(problem, text)
    provenance = {"form": settings.form, "trials": len(tried), "seed": seed}
    return Trace(f"{problem.id}/{settings.form}", (*prompt, response), problem.id, provenance)


def _leaves(problem: Problem, task: Countdown, most: int, rng: random.Random) -> tuple[Node, list[Node]]:
    """A right expression of the problem, and wrong ones in the order in which they are tried, at most `most`."""
    numbers, target = tuple(sorted(problem.payload["numbers"])), problem.payload["target"]
    if len(numbers) <= LISTED_UP_TO:
        pool = expressions(numbers, task.max_value)
        right = rng.choice([node for node in pool if node.value == target])
        wrong = [node for node in pool if node.value != target]
        return right, rng.sample(wrong, min(most, len(wrong)))
    drawn = {render(node): node for node in (random_expression(numbers, task.max_value, rng) for _ in range(DRAWS))}
    return task.solution(numbers, target), [node for node in drawn.values() if node.value != target][:most]

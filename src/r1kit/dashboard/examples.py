"""Before and after on the same problem: one example of every kind of change, not a choice of the best."""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.dashboard.browser import MAX_CHARS, evaluation_groups, outcome_of, target_of
from r1kit.dashboard.comparison import Comparison, Measured
from r1kit.dashboard.run_data import RunData
from r1kit.dashboard.segments import Region, mark_response
from r1kit.records import Group, Problem, Rollout, prompt_text

SHOWN_CHARS = 3_000
MOST = 4


@dataclass(frozen=True)
class Side:
    """One response as the page shows it."""

    outcome: str
    length: int
    regions: tuple[Region, ...]
    cut: bool


@dataclass(frozen=True)
class Example:
    """The first sample of one problem under the base and under the final model; a side may be missing."""

    prompt: str
    base: Side | None
    final: Side | None


def make_examples(run: RunData, comparison: Comparison) -> list[Example]:
    """The first problem of each (outcome before, outcome after), in the evaluation's order."""
    before, after = _first_samples(run, comparison.base), _first_samples(run, comparison.final)
    shared = [key for key in before if key in after] or list(after or before)
    kinds: dict[tuple[str, str], str] = {}
    for key in shared:
        kinds.setdefault((_outcome(before, key), _outcome(after, key)), key)
    # Problems that changed sides first: wrong -> right is the story, right -> wrong its honest other half.
    ranked = sorted(kinds, key=lambda kind: (kind[0] == kind[1], kind[1] != "right"))
    return [_example(kinds[kind], before, after) for kind in ranked[:MOST]]


Samples = dict[str, tuple[Problem, Rollout]]


def _first_samples(run: RunData, measured: Measured | None) -> Samples:
    if measured is None or measured.stored is None:
        return {}
    groups: tuple[Group, ...] = evaluation_groups(run, measured.stored)
    return {group.problem.id: (group.problem, group.rollouts[0]) for group in groups}


def _outcome(samples: Samples, key: str) -> str:
    return outcome_of(samples[key][1]) if key in samples else ""


def _example(key: str, before: Samples, after: Samples) -> Example:
    problem = (after.get(key) or before[key])[0]
    prompt = prompt_text(problem.prompt) + problem.prefill
    return Example(prompt[:MAX_CHARS], _side(before.get(key)), _side(after.get(key)))


def _side(sample: tuple[Problem, Rollout] | None) -> Side | None:
    if sample is None:
        return None
    problem, rollout = sample
    regions = mark_response(
        rollout.text[:SHOWN_CHARS],
        target=target_of(problem),
        opened=problem.prefill.rstrip().endswith("<think>"),
    )
    return Side(outcome_of(rollout), rollout.response_length, tuple(regions), len(rollout.text) > SHOWN_CHARS)

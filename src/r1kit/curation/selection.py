"""Which of a problem's answers are kept, alone or in pairs; every other one is counted by the first reason that holds.

An answer that could not be judged is never taken for a wrong one: it stands on neither side of a pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from r1kit.records import Group, Rollout

REASONS = {
    "not_judged": "the engine or the verifier failed on it, or the problem cannot be judged",
    "unfit": "no conversation can hold it: it is empty, or its thought never ends",
    "unfinished": "it ran into the cap",
    "rejected": "a required verdict is below full marks",
    "duplicate": "the same text as another answer to its problem",
    "difficulty": "the share of its problem's answers that are right lies outside pass_rate",
    "unpaired": "no other answer to its problem goes with it in a pair",
    "surplus": "per_problem answers to its problem were kept already",
}
Pair = tuple[Rollout, Rollout]


def select(group: Group, settings: Any) -> tuple[list[Rollout], Counter[str]]:
    """The answers of one problem that are kept, in the order of sampling, and how many were not, by reason."""
    fitting, wrong, counts = _judged(group, settings)
    counts["rejected"] += len(wrong)
    kept = _preferred(fitting, settings.prefer)[: settings.per_problem]
    counts["surplus"] += len(fitting) - len(kept)
    return sorted(kept, key=lambda r: r.sample), counts


def select_pairs(group: Group, settings: Any) -> tuple[list[Pair], Counter[str]]:
    """(chosen, rejected) answers of one problem, each in one pair at most, and how many are in none, by reason.

    `pairs: verdict` sets a right answer beside a wrong one, `pairs: length` the shortest right answer beside the
    longest.
    """
    right, wrong, counts = _judged(group, settings)
    if settings.pairs == "length":
        ranked = _preferred(right, "shortest")
        counts["rejected"] += len(wrong)
        both = list(zip(ranked, reversed(ranked), strict=True))[: len(ranked) // 2]
        possible = [(short, long) for short, long in both if short.response_length < long.response_length]
        answers = len(right)
    else:
        possible = list(zip(_preferred(right, settings.prefer), wrong, strict=False))
        answers = len(right) + len(wrong)
    kept = possible[: settings.per_problem]
    counts["surplus"] += 2 * (len(possible) - len(kept))
    counts["unpaired"] += answers - 2 * len(possible)
    return kept, counts


def _judged(group: Group, settings: Any) -> tuple[list[Rollout], list[Rollout], Counter[str]]:
    """Right and wrong answers that are whole and differ, in the order of sampling; what became of the others."""
    counts: Counter[str] = Counter()
    right: list[Rollout] = []
    wrong: list[Rollout] = []
    seen: set[str] = set()
    marks = 0
    for rollout in group:
        reason = _reason(rollout, settings.require)
        marks += not reason
        if reason not in ("", "rejected"):
            counts[reason] += 1
        elif rollout.text in seen:
            counts[reason or "duplicate"] += 1
        else:
            seen.add(rollout.text)
            (wrong if reason else right).append(rollout)
    judged = len(group) - counts["not_judged"]
    if settings.pass_rate is not None and judged:
        low, high = settings.pass_rate
        if not low <= marks / judged <= high:
            counts["difficulty"] += len(right)
            counts["rejected"] += len(wrong)
            return [], [], counts
    return right, wrong, counts


def _preferred(rollouts: Sequence[Rollout], prefer: str) -> list[Rollout]:
    order = {"first": 0, "shortest": 1, "longest": -1}[prefer]
    return sorted(rollouts, key=lambda r: (order * r.response_length, r.sample))


def _reason(rollout: Rollout, require: Sequence[str]) -> str:
    """Why an answer cannot be kept; "" where it can."""
    verdicts = [rollout.verdicts.get(name) for name in require]
    if rollout.finish in ("aborted", "failed") or any(v is None or v.outcome != "score" for v in verdicts):
        return "not_judged"
    if rollout.truncated:
        return "unfinished"
    return "rejected" if any(v is not None and v.score != 1.0 for v in verdicts) else ""

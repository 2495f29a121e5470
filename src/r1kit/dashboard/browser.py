"""Choose the rollouts that the page carries, and pack them small.

A run may hold millions of tokens; the page holds a budget. Steps are thinned evenly, and groups are taken one
per step in turn until the budget is spent, those with mixed outcomes first. No group takes more than its step's
share of the budget, so early, middle and late are always represented.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from r1kit.dashboard.run_data import RunData, StoredEvaluation
from r1kit.dashboard.segments import mark_response
from r1kit.records import Group, Problem, RecordError, Rollout, prompt_text

MAX_STEPS = 16
MAX_BYTES = 1_600_000
MAX_TOKENS = 1_500  # of one response; a longer one shows its beginning
MAX_CHARS = 12_000
GROUPS_READ = 24  # candidates looked at in one step
OUTCOMES = ("right", "wrong", "truncated", "unjudged")
T = TypeVar("T")


@dataclass
class Bundle:
    """What the page's browser reads; packed rollouts index `words`, the vocabulary of the token strips."""

    words: list[str] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    moments: list[dict[str, Any]] = field(default_factory=list)
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    available: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "words": self.words,
            "problems": self.problems,
            "moments": self.moments,
            "rollouts": self.rollouts,
        }

    def outcomes(self) -> Counter[str]:
        return Counter(row["outcome"] for row in self.rollouts)


@dataclass(frozen=True, eq=False)
class Moment:
    """One step of which groups are known: sampled in training, or in a held-out evaluation."""

    stage: str
    step: int | None  # None: the evaluation of an evaluate stage
    source: str  # "training" | "held-out"
    groups: tuple[Group, ...]
    order: tuple[int, int]  # place in the run: stage, step

    @property
    def label(self) -> str:
        return self.stage if self.step is None else f"{self.stage} · step {self.step}"


def outcome_of(rollout: Rollout) -> str:
    """One of OUTCOMES: what the list filters by."""
    verdict = rollout.verdicts.get("accuracy")
    if verdict is not None and verdict.correct:
        return "right"
    if rollout.truncated:
        return "truncated"
    judged = verdict is not None and verdict.outcome == "score" and rollout.finish == "stopped"
    return "wrong" if judged else "unjudged"


def make_bundle(run: RunData, *, max_bytes: int = MAX_BYTES) -> Bundle:
    """The rollouts of a run that fit in `max_bytes` of JSON."""
    moments = [*_training_moments(run), *_evaluation_moments(run)]
    packer = _Packer(run.directory, max_bytes, max_bytes // max(1, len(moments)))
    for moment, group in _in_turn(moments):
        if not packer.add(moment, group):
            break
    packer.bundle.available = sum(len(group) for moment in moments for group in moment.groups)
    return packer.finish()


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of `items`, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _training_moments(run: RunData) -> Iterator[Moment]:
    place = {stage.name: i for i, stage in enumerate(run.stages)}
    stored = [item for stage in run.stages for item in stage.rollouts]
    for item in spread(stored, MAX_STEPS):
        groups = _most_telling(_groups(run, run.read_groups(item), f"rollouts/{item.stage}/{item.path.name}"))
        if groups:
            yield Moment(item.stage, item.step, "training", groups, (place[item.stage], item.step))


def _evaluation_moments(run: RunData) -> Iterator[Moment]:
    """Held-out evaluations ask the same problems every time: they show one problem through time."""
    for place, stage in enumerate(run.stages):
        for stored in spread(stage.evaluations, MAX_STEPS):
            groups = evaluation_groups(run, stored)
            if groups:
                yield Moment(stage.name, stored.step, "held-out", groups, (place, stored.step or 0))


def evaluation_groups(run: RunData, stored: StoredEvaluation) -> tuple[Group, ...]:
    """The examples kept with an evaluation, as groups."""
    rows = run.read_evaluation(stored).get("examples") or ()
    return tuple(_groups(run, rows, f"evaluations/{stored.stage}/{stored.path.name}"))


def _groups(run: RunData, rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Group]:
    for number, row in enumerate(rows, 1):
        try:
            group = Group.from_json(row)
        except (RecordError, KeyError, TypeError, ValueError) as error:
            run.notes.append(f"{name}, group {number} is not a group ({error}); it and the rest are left out")
            return
        if np.isfinite(group.rewards).all():
            yield group
        else:
            run.notes.append(f"{name}, group {number} has a reward that is not a number; it is left out")


def _most_telling(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Groups with several outcomes first (they are what RL learns from), in their order otherwise."""
    listed = [group for _, group in zip(range(GROUPS_READ), groups, strict=False)]
    return tuple(sorted(listed, key=lambda g: -len({outcome_of(r) for r in g})))


def _in_turn(moments: Sequence[Moment]) -> Iterator[tuple[Moment, Group]]:
    longest = max((len(m.groups) for m in moments), default=0)
    for i in range(longest):
        for moment in moments:
            if i < len(moment.groups):
                yield moment, moment.groups[i]


class _Packer:
    """Packs groups until the budget is spent; of a group larger than `share` only its first samples."""

    def __init__(self, directory: Path, max_bytes: int, share: int) -> None:
        self.bundle = Bundle()
        self.left = max_bytes
        self.share = share
        self.words = _Words(directory, self.bundle.words)
        self.problem_index: dict[str, int] = {}
        self.moment_index: dict[Moment, int] = {}

    def add(self, moment: Moment, group: Group) -> bool:
        """Pack one group; False once it no longer fits."""
        mean, cost = float(group.rewards.mean()), 0
        rows: list[dict[str, Any]] = []
        for rollout in group:
            row = {"group": len(group), **self._rollout(rollout, moment, group.problem, rollout.reward - mean)}
            size = len(json.dumps(row, separators=(",", ":")))
            if rows and cost + size > self.share:
                break
            rows.append(row)
            cost += size
        if cost > self.left and self.bundle.rollouts:
            return False
        self.left -= cost
        at = {"problem": self._problem(group.problem), "moment": self._moment(moment)}
        self.bundle.rollouts += [{**at, **row} for row in rows]
        return True

    def finish(self) -> Bundle:
        """Moments in the order of the run; problems and rollouts keep pointing at them."""
        bundle = self.bundle
        keys = list(self.moment_index)
        order = sorted(range(len(keys)), key=lambda i: (keys[i].order, keys[i].source))
        place = {old: new for new, old in enumerate(order)}
        bundle.moments = [bundle.moments[i] for i in order]
        for row in bundle.rollouts:
            row["moment"] = place[row["moment"]]
        bundle.rollouts.sort(key=lambda row: (row["moment"], row["problem"], row["sample"]))
        return bundle

    def _problem(self, problem: Problem) -> int:
        if problem.id not in self.problem_index:
            self.problem_index[problem.id] = len(self.bundle.problems)
            prompt = prompt_text(problem.prompt) + problem.prefill
            row = {
                "id": problem.id,
                "prompt": prompt[:MAX_CHARS],
                "task": problem.task,
                "split": problem.split,
            }
            self.bundle.problems.append(row)
        return self.problem_index[problem.id]

    def _moment(self, moment: Moment) -> int:
        if moment not in self.moment_index:
            self.moment_index[moment] = len(self.bundle.moments)
            self.bundle.moments.append({"label": moment.label, "source": moment.source})
        return self.moment_index[moment]

    def _rollout(self, rollout: Rollout, moment: Moment, problem: Problem, advantage: float) -> dict[str, Any]:
        regions = mark_response(
            rollout.text[:MAX_CHARS],
            target=target_of(problem),
            opened=problem.prefill.rstrip().endswith("<think>"),
        )
        row = {
            "sample": rollout.sample,
            "outcome": outcome_of(rollout),
            "finish": rollout.finish,
            "length": rollout.response_length,
            "reward": round(rollout.reward, 4),
            "advantage": round(advantage, 4),
            "parts": {name: round(value, 4) for name, value in rollout.rewards.items()},
            "verdicts": {name: _verdict(v.to_json()) for name, v in rollout.verdicts.items()},
            "regions": [[r.kind, [list(p) if p[2] else list(p[:2]) for p in r.pieces]] for r in regions],
            "left_out": max(0, len(rollout.text) - MAX_CHARS),
        }
        words = self.words.of_stage(moment.stage, rollout.token_ids[rollout.prompt_length :][:MAX_TOKENS])
        if words is not None:
            row["tokens"] = words
            row["logprobs"] = [round(100 * float(p)) for p in rollout.logprobs[rollout.prompt_length :][:MAX_TOKENS]]
        return row


def target_of(problem: Problem) -> int | None:
    """The value that a countdown verdict is about."""
    target = problem.payload.get("target")
    return target if isinstance(target, int) else None


def _verdict(row: Mapping[str, Any]) -> list[Any]:
    extracted = row.get("extracted")
    return [
        row["outcome"],
        row["score"],
        row["reason"],
        extracted[:200] if isinstance(extracted, str) else None,
    ]


class _Words:
    """Token texts, from the tokenizer beside a complete checkpoint; `words` collects those that occur."""

    def __init__(self, directory: Path, words: list[str]) -> None:
        self.files = [p.parent / "tokenizer.json" for p in sorted((directory / "checkpoints").glob("*/*/COMPLETE"))]
        self.words = words
        self.tokenizers: dict[str, Tokenizer | None] = {}
        self.place: dict[tuple[str, int], int] = {}

    def of_stage(self, stage: str, tokens: Iterable[int]) -> list[int] | None:
        """Indices of the tokens in `words`; None where the run has no tokenizer.

        An evaluation samples from the checkpoint of another stage: the run's last tokenizer stands in.
        """
        if stage not in self.tokenizers:
            own = [f for f in self.files if f.is_file() and f.parent.parent.name == stage]
            found = (own or [f for f in self.files if f.is_file()])[-1:]
            self.tokenizers[stage] = Tokenizer.from_file(str(found[0])) if found else None
        tokenizer = self.tokenizers[stage]
        if tokenizer is None:
            return None
        return [self._place(stage, int(token), tokenizer) for token in tokens]

    def _place(self, stage: str, token: int, tokenizer: Tokenizer) -> int:
        if (stage, token) not in self.place:
            self.place[stage, token] = len(self.words)
            self.words.append(tokenizer.decode([token], skip_special_tokens=False))
        return self.place[stage, token]

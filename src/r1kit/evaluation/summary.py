"""Rows of scored responses to one Evaluation: a pure function, whatever shards the rows came in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1kit import __version__
from r1kit.evaluation.metrics import (
    Estimate,
    FamilyBootstrap,
    decoding_error,
    pass_at_k,
    powers_of_two,
    problem_error,
)
from r1kit.evaluation.sampling import EvaluationError, Scored, Shard
from r1kit.records import Group

# Behaviour every evaluation names, so that reports can rely on the key; null where nothing of it was seen.
STATISTICS = (
    "attempts",
    "backtracking",
    "verification",
    "verdict_right",
    "arithmetic_right",
    "numbers_right",
    "repeats",
)
COUNTED = ("attempts",)  # the statistics that are counts, not shares


@dataclass(frozen=True)
class Evaluation:
    """What was measured, with intervals and provenance.

    `n` problems, `k` samples of each, `cap` tokens at most. `pass_k` holds pass@k by k, 1 among them; `means`
    every mean per response by name (None where there was nothing to measure). `decoding_error` and
    `problem_error` are the two parts of pass@1's standard error (None where one cannot be told). `counts`:
    responses (judged, errors, skips), problems without a judged response, tokens sampled. `reasons`: responses
    by the reason of their verdict. `provenance`: all that must be equal for two evaluations to be compared.
    """

    benchmark: str
    n: int
    k: int
    cap: int
    pass_k: Mapping[int, Estimate]
    decoding_error: float | None
    problem_error: float | None
    means: Mapping[str, Estimate | None]
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    provenance: Mapping[str, Any]
    examples: tuple[Group, ...] = field(default=(), repr=False)

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """The `eval` object of summary.json and more: plain numbers by name, intervals under `intervals`."""
        values = {name: None if mean is None else mean.value for name, mean in self.means.items()}
        intervals = {name: mean.to_json() for name, mean in self.means.items() if mean is not None}
        result = {
            "benchmark": self.benchmark,
            "n": self.n,
            "k": self.k,
            "cap": self.cap,
            "pass@1": self.pass_k[1].to_json(),
            "pass@k": {str(k): estimate.value for k, estimate in self.pass_k.items()},
            **values,
            "decoding_error": self.decoding_error,
            "problem_error": self.problem_error,
            **self.counts,
            "reasons": dict(self.reasons),
            **self.provenance,
            "intervals": intervals | {f"pass@{k}": e.to_json() for k, e in self.pass_k.items()},
        }
        return result | ({"examples": [group.to_json() for group in self.examples]} if examples else {})


def summarise(
    shards: Sequence[Shard],
    *,
    benchmark: str,
    problems: int,
    settings: Any,
    seed: int,
    policy_version: int = 0,
    examples: int = 16,
) -> Evaluation:
    """All shards of one evaluation of `problems` problems to its result. Pure: the order of shards and rows
    is nothing to it.

    EvaluationError where a response is missing, comes twice, or none could be judged at all.
    """
    rows = sorted((row for shard in shards for row in shard.rows), key=lambda row: (row.index, row.sample))
    _check_complete(rows, problems, settings.samples)
    judged = _by_problem(rows)
    if not judged:
        found = Counter(f"{row.outcome}: {row.reason}" for row in rows).most_common(3)
        raise EvaluationError(f"{benchmark}: none of {len(rows)} responses could be judged ({found})")
    bootstrap = FamilyBootstrap([row.family for row in rows])
    pass_k = _pass_at_ks(judged, settings.samples, bootstrap)
    decoding = decoding_error([p.samples for p in judged], [p.right for p in judged])
    outcomes = Counter(row.outcome for row in rows)
    return Evaluation(
        benchmark=benchmark,
        n=problems,
        k=settings.samples,
        cap=settings.max_tokens,
        pass_k=pass_k,
        decoding_error=decoding,
        problem_error=problem_error(pass_k[1].error, decoding),
        means=_means(rows, bootstrap),
        counts={
            "responses": len(rows),
            "judged": outcomes["score"],
            "errors": outcomes["error"],
            "skips": outcomes["skip"],
            "problems_unjudged": problems - len(judged),
            "tokens_sampled": sum(row.tokens for row in rows),
        },
        reasons=dict(sorted(Counter(row.reason for row in rows).items())),
        provenance={
            "seed": seed,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": getattr(settings, "top_k", 0),  # the short evaluations during training have no such knob
            "policy_version": policy_version,
            "problems_hash": _digest(sorted({row.problem_id for row in rows})),
            "prompts_hash": _digest([f"{i}={d}" for s in shards for i, d in s.prompts.items()]),
            "harness": f"r1kit {__version__}",
        },
        examples=_examples(shards, rows, examples),
    )


@dataclass(frozen=True)
class _Problem:
    """The judged responses of one problem."""

    family: str
    samples: int
    right: int


def _check_complete(rows: Sequence[Scored], problems: int, samples: int) -> None:
    found = [(row.index, row.sample) for row in rows]
    twice = [pair for pair, count in Counter(found).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"summarise: response {twice[0][1]} of problem {twice[0][0]} comes twice (and {len(twice) - 1} "
            "others): two shards measured the same problems; give each its own rank"
        )
    missing = sorted({(i, s) for i in range(problems) for s in range(samples)} - set(found))
    if missing or len(found) != problems * samples:
        raise EvaluationError(
            f"summarise: expected {problems} problems x {samples} samples, found {len(found)} responses; "
            f"missing (problem, sample): {missing[:3]}; is a shard missing?"
        )


def _by_problem(rows: Sequence[Scored]) -> list[_Problem]:
    """Problems with at least one judged response, in order."""
    grouped: dict[int, list[Scored]] = {}
    for row in rows:
        if row.right is not None:
            grouped.setdefault(row.index, []).append(row)
    return [_Problem(r[0].family, len(r), sum(bool(x.right) for x in r)) for r in grouped.values()]


def _pass_at_ks(judged: Sequence[_Problem], samples: int, bootstrap: FamilyBootstrap) -> dict[int, Estimate]:
    """pass@k for every power of two up to the samples, over the problems with at least k judged responses."""
    found = {}
    for k in powers_of_two(samples):
        able = [p for p in judged if p.samples >= k]
        values = [pass_at_k(p.samples, p.right, k) for p in able]
        estimate = bootstrap.mean([p.family for p in able], values, share=True)
        if estimate is not None:
            found[k] = estimate
    return found


def _means(rows: Sequence[Scored], bootstrap: FamilyBootstrap) -> dict[str, Estimate | None]:
    """Means over responses, each over those that have the quantity; a response the engine lost has none."""
    whole = [row for row in rows if row.sampled]

    def mean(value: Callable[[Scored], float | None], *, share: bool = True) -> Estimate | None:
        pairs = [(row.family, value(row)) for row in whole]
        present = [(family, float(v)) for family, v in pairs if v is not None]
        return bootstrap.mean([f for f, _ in present], [v for _, v in present], share=share)

    def statistic(name: str) -> Callable[[Scored], float | None]:
        return lambda row: row.statistics.get(name)

    extra = sorted({name for row in whole for name in row.statistics} - set(STATISTICS))
    return {
        "tokens_mean": mean(lambda row: row.tokens, share=False),
        "truncated": mean(lambda row: row.finish == "length"),
        "format": mean(lambda row: row.format),
        "format_finished": mean(lambda row: row.format if row.finish == "stopped" else None),
        "right_finished": mean(lambda row: row.right if row.finish == "stopped" else None),
        **{
            name: mean(statistic(name), share=name not in COUNTED and name not in extra)
            for name in (*STATISTICS, *extra)
        },
    }


def _examples(shards: Sequence[Shard], rows: Sequence[Scored], count: int) -> tuple[Group, ...]:
    """The first `count` problems, then the first problem of each kind of response that these do not show."""
    kept = {index: group for shard in shards for index, group in shard.examples.items()}
    chosen = sorted(index for index in kept if index < count)
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(row.kind, row.index)
    chosen += sorted({index for index in first.values() if index not in chosen and index in kept})
    return tuple(kept[index] for index in chosen)


def _digest(parts: Sequence[str]) -> str:
    """A short fingerprint of a set of strings, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(parts)).encode(), digest_size=8).hexdigest()

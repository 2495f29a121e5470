"""The math verifier beside math-verify: the exact tier on integer golds, all tiers on mixed MATH golds, error counts.

Pure functions for `verifiers.py`: each measures one side on given pairs and returns a `Rate`. math-verify runs as its
users run it (`parse` of both sides, `verify`), in this process, with its own timeouts, warmed. Both sides get the same
pairs: half of them right (the gold written another way), half wrong (another gold of the same data set).
"""

from __future__ import annotations

import gzip
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from r1kit.verifiers.math import decide, judge_math

Pair = tuple[str, str]  # gold, prediction
_INTEGER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Rate:
    """Pairs judged, wall and CPU seconds of this process, how many were said to be equal."""

    pairs: int
    seconds: float
    cpu_seconds: float
    equal: int

    @property
    def per_second(self) -> float:
        return self.pairs / self.seconds

    @property
    def microseconds(self) -> float:
        return 1e6 * self.seconds / self.pairs


def math_golds(data: Path) -> list[str]:
    """The golds of MATH (train), in order, repetitions included."""
    with gzip.open(data / "math" / "train.jsonl.gz", "rt") as file:
        return [gold for line in file if (gold := json.loads(line)["answer"].strip())]


def mixed_pairs(golds: Sequence[str], count: int, seed: int = 0) -> list[Pair]:
    """Golds as they come: half against themselves respelled, half against another gold."""
    rng = random.Random(seed)
    pairs = []
    for gold in rng.sample(list(golds), count):
        other = rng.choice(golds)
        pairs.append((gold, respelled(gold) if rng.random() < 0.5 else other))
    return pairs


def integer_pairs(golds: Sequence[str], count: int, seed: int = 0) -> list[Pair]:
    """The same with integer golds only."""
    return mixed_pairs([g for g in golds if _INTEGER.fullmatch(g)], count, seed)


def respelled(gold: str) -> str:
    """Spaces and \\dfrac: never the same string, always the same answer."""
    return " " + re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", re.sub(r"(?<!\\)([=+<>])", r" \1 ", gold)) + " "


def measure(judge: Callable[[str, str], bool], pairs: Iterable[Pair]) -> Rate:
    """One after the other, in this thread."""
    todo = list(pairs)
    start, cpu = time.perf_counter(), time.process_time()
    equal = sum(judge(gold, prediction) for gold, prediction in todo)
    return Rate(len(todo), time.perf_counter() - start, time.process_time() - cpu, equal)


def exact_tier(gold: str, prediction: str) -> bool:
    return decide(prediction, gold).kind == "yes"


def all_tiers(gold: str, prediction: str) -> bool:
    return judge_math(prediction, gold).correct


def all_tiers_concurrent(pairs: Sequence[Pair], threads: int = 2) -> Rate:
    """As a trainer calls it: several threads, so that both workers of the pool can be busy."""
    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        equal = sum(pool.map(lambda pair: all_tiers(*pair), pairs))
    return Rate(len(pairs), time.perf_counter() - start, time.process_time() - cpu, equal)


def math_verify_serial(gold: str, prediction: str) -> bool:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return verify(parse(f"${gold}$"), parse(f"${prediction}$"))


def warm_up(pairs: Sequence[Pair]) -> None:
    """Grammars, caches of imports, the pool: nothing of it belongs to a rate."""
    judge_math(r"\int_0^1 2x dx", "1")
    for gold, prediction in pairs:
        math_verify_serial(gold, prediction)


def errors(judge: Callable[[str, str], bool], rows: Iterable[dict[str, object]]) -> tuple[int, int, int, int]:
    """(false negatives, positives, false positives, negatives) of a judge on labelled rows under the default policy."""
    found = [0, 0, 0, 0]
    for row in rows:
        if row.get("policy"):
            continue
        said = judge(str(row["gold"]), str(row["prediction"]))
        found[1 if row["label"] else 3] += 1
        found[0] += bool(row["label"]) and not said
        found[2] += not row["label"] and said
    return found[0], found[1], found[2], found[3]

"""Why this matters: a pool that forgets a problem, or cannot be drawn from again after a resume, changes what a run
learns without a trace; with nothing preferred it has to be the plain stream, or every older result would move.

Not exercised here: whether preferring problems pays (that is a matter of the recipe).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from r1kit.algorithms.pass_rates import PassRate
from r1kit.config.errors import ConfigError
from r1kit.config.pools import PoolSettings
from r1kit.records import Group, Verdict
from r1kit.training.exchange import SampledGroup
from r1kit.training.pools import ProblemPool
from r1kit.training.sampling import problem_at

from .helpers import problem, random_group

PROBLEMS = [replace(problem(f"p{i}"), source="easy" if i % 4 else "hard") for i in range(40)]
OFF, ON = PoolSettings(), PoolSettings(enabled=True)


def judged(name: str, right: int, samples: int = 4, *, failed: bool = False) -> SampledGroup:
    drawn = random_group(name, np.random.default_rng(0), samples=samples)
    lost = Verdict("error", None, "worker_lost")
    rollouts = tuple(
        r.scored({"accuracy": lost if failed else Verdict.scored(i < right, "correct" if i < right else "wrong")}, {})
        for i, r in enumerate(drawn)
    )
    return SampledGroup(Group(drawn.problem, rollouts))


def test_with_nothing_preferred_it_is_the_plain_stream() -> None:
    pool = ProblemPool(PROBLEMS, 3, {})
    drawn = [p.id for _ in range(5) for p in pool.draw(7, OFF)]
    assert drawn == [problem_at(PROBLEMS, i, 3).id for i in range(35)]
    assert pool.state() == {"cursor": 35}
    pool.observe([judged("p1", 2)], OFF)
    assert pool.state() == {"cursor": 35}


def test_known_problems_are_asked_less_often() -> None:
    """One always right, one never, one in between, all else as untouched."""
    pool = ProblemPool(PROBLEMS, 0, {})
    for _ in range(8):
        pool.observe([judged("p1", 8, 8), judged("p2", 0, 8), judged("p3", 4, 8)], ON)
    counts = Counter(p.id for _ in range(600) for p in pool.draw(4, ON))
    assert set(counts) == {p.id for p in PROBLEMS}  # the floor: none is lost
    assert counts["p3"] > 4 * counts["p1"]
    assert counts["p3"] > 4 * counts["p2"]
    others = np.mean([counts[f"p{i}"] for i in range(4, 40)])
    assert counts["p3"] > 1.2 * others > 1.2 * counts["p1"]


def test_draws_are_distinct_and_resume_where_they_were() -> None:
    whole = ProblemPool(PROBLEMS, 1, {})
    first = []
    for i in range(12):
        drawn = whole.draw(8, ON)
        assert len({p.id for p in drawn}) == 8
        first.append([p.id for p in drawn])
        whole.observe([judged(p.id, i % 5) for p in drawn], ON)
        if i == 5:
            state = whole.state()
    again = ProblemPool(PROBLEMS, 1, state)
    for i in range(6, 12):
        drawn = again.draw(8, ON)
        assert [p.id for p in drawn] == first[i]
        again.observe([judged(p.id, i % 5) for p in drawn], ON)
    assert again.state() == whole.state()


def test_failed_groups_teach_nothing_of_a_problem() -> None:
    pool = ProblemPool(PROBLEMS, 0, {})
    pool.observe([judged("p1", 0, failed=True)], ON)
    assert pool.rates == {}
    pool.observe([judged("p1", 3)], ON)
    assert pool.rates == {"p1": PassRate(3.0, 1.0)}


def test_a_mix_comes_out_as_wished() -> None:
    """10 of 40 problems are hard; half of what is asked is to be."""
    pool = ProblemPool(PROBLEMS, 0, {})
    wished = PoolSettings(mix={"hard": 0.5, "easy": 0.5})
    counts = Counter(p.source for _ in range(500) for p in pool.draw(4, wished))
    assert counts["hard"] / 2000 == pytest.approx(0.5, abs=0.04)
    only = PoolSettings(mix={"hard": 1.0})
    assert {p.source for _ in range(20) for p in pool.draw(4, only)} == {"hard"}
    with pytest.raises(ConfigError, match=r"'hrad' \(did you mean \"hard\"\?\).*come from"):
        pool.draw(1, PoolSettings(mix={"hrad": 1.0}))


def test_more_than_there_are_ends() -> None:
    """Distinct problems run out before the batch is full: a smaller batch, no endless search."""
    pool = ProblemPool(PROBLEMS[:3], 0, {})
    assert sorted(p.id for p in pool.draw(10, ON)) == ["p0", "p1", "p2"]


def test_metrics_say_where_the_problems_stand() -> None:
    pool = ProblemPool(PROBLEMS, 0, {})
    assert pool.metrics(ON) == {}
    pool.observe([judged("p1", 16, 16), judged("p2", 0, 16), judged("p3", 8, 16), judged("p4", 7, 16)], ON)
    found = pool.metrics(ON)
    assert found == {"pool_asked": 0.1, "pool_hard": 0.25, "pool_band": 0.5, "pool_easy": 0.25}
    assert pool.metrics(OFF) == {}


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        PoolSettings(low=0.9)
    with pytest.raises(ValueError, match="share of 0"):
        PoolSettings(mix={"a": 0.0})

"""Why this matters: every claim of the project is one of these numbers. An estimator that is biased in k,
or an interval that treats related problems as independent, makes noise look like progress.

Does not exercise: sampling and judging (test_evaluate), comparison of two models.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.evaluation.metrics import (
    FamilyBootstrap,
    decoding_error,
    pass_at_k,
    powers_of_two,
    problem_error,
    wilson_interval,
)


def oracle_pass_at_k(samples: int, right: int, k: int) -> float:
    """Every way to draw k of the responses, counted."""
    responses = [i < right for i in range(samples)]
    draws = list(itertools.combinations(responses, k))
    return sum(any(draw) for draw in draws) / len(draws)


def test_pass_at_k_by_hand() -> None:
    """4 responses, 1 right: one draw 1/4; of the 6 pairs 3 hold it; of the 4 triples 3."""
    assert [pass_at_k(4, 1, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_the_oracle(case: tuple[int, int, int]) -> None:
    assert pass_at_k(*case) == pytest.approx(oracle_pass_at_k(*case), abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """Its mean over all outcomes of 6 draws with chance p is 1 - (1 - p)^k, exactly; the naive plug-in is
    not."""
    p, n = 0.3, 6
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in (1, 2, 4):
        mean = sum(w * pass_at_k(n, c, k) for c, w in enumerate(chance))
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_k_of_large_counts_is_exact_and_bad_counts_are_refused() -> None:
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="k = 5"):
        pass_at_k(4, 1, 5)


def test_powers_of_two() -> None:
    assert [powers_of_two(k) for k in (1, 3, 8, 16)] == [(1,), (1, 2), (1, 2, 4, 8), (1, 2, 4, 8, 16)]


def test_decoding_error_by_hand() -> None:
    """p = 1/2 of 4 and p = 1 of 4: variances (1/4)/3 and 0, so sqrt(1/12) / 2."""
    assert decoding_error([4, 4], [2, 4]) == pytest.approx(math.sqrt(1 / 12) / 2)
    assert decoding_error([4, 1], [2, 1]) is None


def test_decoding_error_is_the_spread_of_repeated_evaluations() -> None:
    random = np.random.default_rng(0)
    chances, k = random.random(30), 8
    right = random.binomial(k, chances, size=(4000, 30))
    spread = (right / k).mean(axis=1).std()
    estimated = np.mean([decoding_error([k] * 30, list(row)) for row in right[:300]])
    assert estimated == pytest.approx(spread, rel=0.05)


def oracle_interval(groups: list[list[float]], seed: int) -> tuple[float, float]:
    """Draw whole families with replacement, one by one, many times."""
    random = np.random.default_rng(seed)
    means = []
    for _ in range(2000):
        drawn = [groups[i] for i in random.integers(len(groups), size=len(groups))]
        means.append(np.mean(np.concatenate(drawn)))
    return tuple(np.quantile(means, [0.025, 0.975]))


def flatten(groups: list[list[float]]) -> tuple[list[str], list[float]]:
    return (
        [f"family-{i}" for i, group in enumerate(groups) for _ in group],
        [value for group in groups for value in group],
    )


def test_interval_equals_the_oracle_with_families_of_unequal_size() -> None:
    random = np.random.default_rng(1)
    groups = [list(random.normal(random.normal(), 0.1, random.integers(1, 9))) for _ in range(40)]
    families, values = flatten(groups)
    got = FamilyBootstrap(families).mean(families, values, share=False)
    want = oracle_interval(groups, seed=7)
    assert got is not None
    assert got.value == pytest.approx(np.mean(values))
    assert (got.low, got.high) == pytest.approx(want, abs=0.03)


def test_interval_covers_the_truth_and_single_problems_would_not() -> None:
    """Problems of a family agree: drawing families covers the true mean about 95 times in 100, problems far
    less often."""
    random = np.random.default_rng(2)
    hits = {"family": 0, "problem": 0}
    for _ in range(100):
        chances = np.repeat(random.random(40), 10)  # 40 families of 10 equal problems, mean 1/2
        values = list(chances)
        families = [str(i // 10) for i in range(400)]
        for name, units in (("family", families), ("problem", [str(i) for i in range(400)])):
            found = FamilyBootstrap(units, replicates=300).mean(units, values, share=True)
            assert found is not None
            hits[name] += found.low < 0.5 < found.high
    assert hits["family"] >= 88
    assert hits["problem"] <= 60


@settings(max_examples=20)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=6), st.randoms())
def test_order_changes_nothing_and_the_interval_holds_the_mean(groups, random) -> None:
    families, values = flatten(groups)
    first = FamilyBootstrap(families, replicates=200).mean(families, values, share=True)
    pairs = list(zip(families, values, strict=True))
    random.shuffle(pairs)
    other_families, other_values = map(list, zip(*pairs, strict=True))
    second = FamilyBootstrap(other_families, replicates=200).mean(other_families, other_values, share=True)
    assert first is not None
    assert second is not None
    assert first.value == second.value
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
    assert first.low - 1e-9 <= first.value <= first.high + 1e-9


def test_no_spread_is_not_certainty() -> None:
    """All of 20 families right: not [1, 1]. Wilson's lower bound is 20 / (20 + z^2)."""
    families = [str(i) for i in range(20)]
    found = FamilyBootstrap(families).mean(families, [1.0] * 20, share=True)
    assert found is not None
    assert found.high == 1.0
    assert found.low == pytest.approx(20 / (20 + 1.96**2), abs=1e-4)
    lengths = FamilyBootstrap(families).mean(families, [240.0] * 20, share=False)
    assert lengths is not None
    assert (lengths.value, lengths.low, lengths.high, lengths.error) == (240.0, None, None, None)


def test_a_metric_few_problems_have() -> None:
    plan = FamilyBootstrap(["a", "b", "c", "d"])
    assert plan.mean([], [], share=True) is None
    found = plan.mean(["a", "b"], [0.0, 1.0], share=True)
    assert found is not None
    assert found.value == 0.5


def test_wilson_by_hand() -> None:
    """5 of 10: centre 1/2, half width z sqrt(0.025 + z^2 / 400) / (1 + z^2 / 10) = 0.2634."""
    assert wilson_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_problem_error_is_what_decoding_leaves() -> None:
    assert problem_error(0.05, 0.03) == pytest.approx(0.04)
    assert problem_error(0.02, 0.03) == 0.0
    assert problem_error(0.05, None) is None
    assert problem_error(None, 0.03) is None

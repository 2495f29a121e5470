"""From right and wrong to numbers with an interval: pass@k, decoding error, bootstrap over families.

Two things are uncertain in a pass@1: which responses were drawn (decoding error; more samples shrink it)
and which problems were asked (problem error; only more problems do). Problems that share content (for
countdown: the same numbers) are not independent, so whole families are drawn again, never single problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 2000
CONFIDENCE = 0.95
Z_95 = 1.959963984540054  # the normal quantile of CONFIDENCE


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval and its standard error; None where they cannot be told."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased estimate of pass@k from `samples` responses of one problem, `right` of them right.

    1 - C(n - c, k) / C(n, k), the chance that k of the n responses, drawn without replacement, hold a right
    one (Chen et al. 2021, arXiv:2107.03374, eq. 1). Computed in exact integers. ValueError where k exceeds
    the samples.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass_at_k: {right} right of {samples} samples, k = {k}: expected 1 <= k <= samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to `limit`: the ks for which pass@k is reported."""
    return tuple(1 << i for i in range(limit.bit_length()))


def decoding_error(samples_P: Sequence[int], right_P: Sequence[int]) -> float | None:
    """Standard error of pass@1 with the problems held fixed, from the spread among the samples of each
    problem.

    sqrt(sum_i p_i (1 - p_i) / (k_i - 1)) / P with p_i = right_i / k_i, the unbiased variance of each
    problem's mean. None where a problem has a single sample: its spread cannot be seen.
    """
    if not samples_P or min(samples_P) < 2:
        return None
    variances = [(c / k) * (1 - c / k) / (k - 1) for k, c in zip(samples_P, right_P, strict=True)]
    return math.sqrt(math.fsum(variances)) / len(variances)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share seen in `count` independent draws; never of zero width."""
    z2 = Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


class FamilyBootstrap:
    """Draws families with replacement, once, and gives any metric its interval under these same draws.

    Percentile bootstrap of clusters (Efron & Tibshirani 1993, chapters 8 and 13): a replicate's mean is the
    sum over the drawn families divided by their count of units, so families of many problems weigh as they
    do in the mean itself. The draws depend on `seed` and on the number of families only; families are
    numbered in sorted order, so neither the order of the problems nor the number of shards changes an
    interval.
    """

    def __init__(self, families: Sequence[str], *, seed: int = 0, replicates: int = REPLICATES) -> None:
        names = sorted(set(families))
        if not names:
            raise ValueError("FamilyBootstrap: no family to draw from")
        self._place = {name: i for i, name in enumerate(names)}
        generator = np.random.Generator(np.random.PCG64(seed))
        # How often each replicate holds each family; small integers, so that large benchmarks fit.
        self._draws_BF = np.empty((replicates, len(names)), dtype=np.uint16)
        for draw_F in self._draws_BF:
            draw_F[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))

    def mean(self, families: Sequence[str], values: Sequence[float], *, share: bool) -> Estimate | None:
        """The mean of one value per unit (a problem or a response; `families` parallel), None without a unit.

        Where all families agree (all right, all wrong, a single family) resampling sees no spread, and an
        interval of no width would be a lie: a `share` (values in [0, 1]) then gets Wilson's with one draw
        per family, others none.
        """
        if len(values) == 0:
            return None
        value = math.fsum(values) / len(values)
        place = [self._place[name] for name in families]
        count_F = np.bincount(place, minlength=len(self._place)).astype(np.float64)
        sum_F = np.bincount(place, weights=np.asarray(values, dtype=np.float64), minlength=len(self._place))
        present = count_F > 0
        if present.sum() < 2 or np.ptp(sum_F[present] / count_F[present]) < 1e-12:
            bounds = wilson_interval(min(max(value, 0.0), 1.0), int(present.sum())) if share else (None, None)
            return Estimate(value, *bounds)
        counts_B, sums_B = self._totals(count_F), self._totals(sum_F)
        means_B = sums_B[counts_B > 0] / counts_B[counts_B > 0]
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(means_B, [tail, 1 - tail])
        return Estimate(value, float(low), float(high), float(means_B.std(ddof=1)))

    def _totals(self, value_F: np.ndarray) -> np.ndarray:
        """The sum of a per-family value over each replicate's families, float64 [B].

        Not a matrix product: its rounding would depend on the number of threads.
        """
        blocks = np.array_split(self._draws_BF, max(1, self._draws_BF.size // 2**20))
        return np.concatenate([(block * value_F).sum(axis=1) for block in blocks])


def problem_error(total: float | None, decoding: float | None) -> float | None:
    """What of a total standard error the choice of problems explains: sqrt(total^2 - decoding^2), at least 0.

    None where either is unknown.
    """
    if decoding is None or total is None:
        return None
    return math.sqrt(max(0.0, total**2 - decoding**2))

"""How often the policy solves a problem, as a Beta posterior, and how much such a problem is worth asking.

With a prior Beta(a, b) and r right of n responses the pass rate is distributed as Beta(a + r, b + n - r) (the
conjugate update; Gelman et al., Bayesian Data Analysis, section 2.4). The policy changes, so older responses fade: at
each new observation what was known beyond the prior is multiplied by `memory`.

A group teaches most where responses differ. `preference` is the probability, under the posterior, that the pass rate
lies in a band such as [0.2, 0.8] (PRIME trains on that band, arXiv:2502.01456; POLARIS drops problems above 0.9
between stages; Skywork-OR1 those never or always solved), so a problem that was asked once and missed is not written
off: its posterior is still wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PassRate:
    """Counts seen of one problem, faded: right and wrong responses beyond the prior."""

    right: float = 0.0
    wrong: float = 0.0

    def observe(self, right: int, samples: int, *, memory: float) -> PassRate:
        """The counts after `right` of `samples` new responses. ValueError where that is impossible."""
        if not 0 <= right <= samples:
            raise ValueError(f"PassRate: {right} right of {samples} responses is impossible")
        return PassRate(self.right * memory + right, self.wrong * memory + samples - right)

    def mean(self, prior: tuple[float, float] = (1.0, 1.0)) -> float:
        """Posterior mean of the pass rate."""
        a, b = prior[0] + self.right, prior[1] + self.wrong
        return a / (a + b)


def preference(rate: PassRate, *, low: float, high: float, floor: float, prior: tuple[float, float]) -> float:
    """How likely a problem is taken when its turn comes, in [floor, 1]: floor + (1 - floor) * P(low <= p <= high).

    P is under Beta(prior[0] + right, prior[1] + wrong). Raises ValueError on bounds that are no band, on a floor
    outside (0, 1], and on a prior that is not positive.
    """
    if not 0 <= low < high <= 1 or not 0 < floor <= 1 or min(prior) <= 0:
        raise ValueError(f"preference: low={low}, high={high}, floor={floor}, prior={prior}: cannot be")
    a, b = prior[0] + rate.right, prior[1] + rate.wrong
    inside = beta_cdf(high, a, b) - beta_cdf(low, a, b)
    return floor + (1.0 - floor) * min(1.0, max(0.0, inside))


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) of Beta(a, b): the regularised incomplete beta function, by its continued fraction.

    Lentz's algorithm on the fraction of Abramowitz & Stegun 26.5.8, on the side of x where it converges quickly;
    accurate to about 1e-12. ValueError for a or b not positive.
    """
    if a <= 0 or b <= 0:
        raise ValueError(f"beta_cdf: a={a}, b={b}: both have to be positive")
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float, *, tiny: float = 1e-300, close: float = 1e-14) -> float:
    """1 + d1/(1 + d2/(1 + ...)), the continued fraction of the incomplete beta function."""
    value = c = 1.0
    d = 0.0
    for i in range(1, 1000):
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + term * d or tiny)
        c = 1.0 + term / c or tiny
        value *= c * d
        if abs(1.0 - c * d) < close:
            break
    return value

"""How far the probabilities of a model that judges can be believed: accuracy, calibration, ranking.

Pure functions over plain arrays. A probability that is right as often as it says is calibrated; a table of reliability
shows where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 10
# Probabilities nearer to 0 or 1 count as this far away in the log loss, which would else be infinite.
FLOOR = 1e-12


@dataclass(frozen=True)
class Bin:
    """Predictions between `low` and `high`: how many, their mean probability, and the mean outcome."""

    low: float
    high: float
    count: int
    probability: float
    outcome: float


@dataclass(frozen=True)
class Calibration:
    """`accuracy` counts a probability of exactly one half as half right; `auc` is None where all outcomes are alike."""

    count: int
    accuracy: float
    log_loss: float
    brier: float
    ece: float
    auc: float | None
    table: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def numbers(self) -> dict[str, float]:
        """All but the table."""
        found = {"accuracy": self.accuracy, "log_loss": self.log_loss, "brier": self.brier, "ece": self.ece}
        return found if self.auc is None else {**found, "auc": self.auc}


def calibration(probabilities: Sequence[float], outcomes: Sequence[float], *, bins: int = BINS) -> Calibration:
    """Probabilities and outcomes in [0, 1], of equal length N > 0, compared.

    The expected calibration error is sum over bins of (count / N) |mean outcome - mean probability|, over `bins` bins
    of equal width (Guo et al. 2017, arXiv:1706.04599, eq. 3). Outcomes may be shares; accuracy and `auc` (the chance
    that a good one gets the higher probability, ties counted half) call them good above one half. Raises ValueError on
    unequal or no numbers and on any outside [0, 1].
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"calibration: probabilities {p.shape}, outcomes {y.shape}: expected one shape [N], N > 0")
    if not (np.all((p >= 0) & (p <= 1)) and np.all((y >= 0) & (y <= 1))):
        raise ValueError("calibration: a probability or an outcome lies outside [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.digitize(p, edges[1:-1], right=False), 0, bins - 1)
    table = tuple(
        Bin(float(edges[b]), float(edges[b + 1]), int(inside.sum()), float(p[inside].mean()), float(y[inside].mean()))
        for b in range(bins)
        if (inside := place == b).any()
    )
    clipped = np.clip(p, FLOOR, 1 - FLOOR)
    good = y > 0.5
    return Calibration(
        count=len(p),
        accuracy=float(np.mean(np.where(p == 0.5, 0.5, (p > 0.5) == good))),
        log_loss=float(-np.mean(y * np.log(clipped) + (1 - y) * np.log(1 - clipped))),
        brier=float(np.mean((p - y) ** 2)),
        ece=float(sum(b.count * abs(b.outcome - b.probability) for b in table) / len(p)),
        auc=_auc(p, good),
        table=table,
    )


def pair_calibration(margins: Sequence[float], *, bins: int = BINS) -> Calibration:
    """Of pairs, from the score of the better response less that of the worse: is the preferred one the better?

    The probability is that of the response the model prefers, sigma(|margin|) >= 1/2, and the outcome whether it is the
    better one: which response a pair names first plays no part. Pairs of equal scores count half.
    """
    m = np.asarray(margins, dtype=np.float64)
    confidence = 1.0 / (1.0 + np.exp(-np.abs(m)))
    right = np.where(m == 0, 0.5, m > 0)
    found = calibration(confidence.tolist(), right.tolist(), bins=bins)
    chosen = np.where(m >= 0, confidence, 1 - confidence)
    log_loss = float(-np.mean(np.log(np.clip(chosen, FLOOR, 1.0))))
    return Calibration(len(m), float(right.mean()), log_loss, found.brier, found.ece, None, found.table)


def _auc(p: np.ndarray, good: np.ndarray) -> float | None:
    """Mann-Whitney's statistic from ranks, ties at their mean rank."""
    positives, negatives = int(good.sum()), int((~good).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[inverse]
    return float((ranks[good].sum() - positives * (positives + 1) / 2) / (positives * negatives))

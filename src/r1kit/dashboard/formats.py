"""Numbers as people read them. Missing values are a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MISSING = "–"
Unit = Literal["share", "count", "tokens", "number", "seconds", "small"]


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval, where one was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, raw: Any) -> Estimate | None:
        """From a plain number or from `{"value", "low", "high"}`; None where there is no finite value."""
        if isinstance(raw, Mapping):
            value = finite(raw.get("value"))
            return None if value is None else cls(value, finite(raw.get("low")), finite(raw.get("high")))
        value = finite(raw)
        return None if value is None else cls(value)

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None


def finite(raw: Any) -> float | None:
    """`raw` as a finite float; None for anything else (booleans are not numbers here)."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    return float(raw) if math.isfinite(raw) else None


def number(value: float | None, unit: Unit = "number") -> str:
    """One value in its unit: shares in per cent with one decimal, counts with thousands separators."""
    if value is None:
        return MISSING
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "seconds":
        return duration(value)
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "tokens":
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
    if unit == "small" or (value and abs(value) < 0.01):
        return f"{value:.2g}" if value else "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def interval(estimate: Estimate | None, unit: Unit) -> str:
    """`[61.9, 66.4]` in the unit of the value beside it; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = number(estimate.low, unit), number(estimate.high, unit)
    return f"[{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def change(base: float | None, final: float | None, unit: Unit) -> str:
    """How far a value moved: points for shares, a factor for the rest."""
    if base is None or final is None:
        return ""
    if unit == "share":
        return f"{100 * (final - base):+.1f} pts".replace("-", "−")
    return f"×{final / base:.2g}" if base > 0 and final > 0 else f"{final - base:+.2g}".replace("-", "−")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def compact(value: float | None) -> str:
    """Large counts in three figures: 3.90M, 12.4k."""
    if value is None:
        return MISSING
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def memory(count: float | None) -> str:
    if count is None:
        return MISSING
    for size, letter in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f} B"

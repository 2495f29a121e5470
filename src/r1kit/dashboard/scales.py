"""The geometry under every chart: round axis ends, ticks at round numbers, SVG path data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r1kit.dashboard.formats import Unit, compact

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
TINY = 1e-9  # no quantity shown here is smaller: such a range is one point


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with its ticks; `at` maps a value to [0, 1] along it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def round_step(span: float, intervals: int) -> float:
    """The smallest step of the form 1, 2, 2.5 or 5 times a power of ten that covers `span` in `intervals`."""
    raw = span / intervals
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in ROUND_STEPS if step * power >= raw * (1 - 1e-9))


def y_scale(values: Sequence[float], unit: Unit, *, intervals: int = 4) -> Scale:
    """An axis around `values`.

    It starts at zero unless that would flatten the curve (smallest value above 60 % of the largest); shares
    never go past 100 %.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    if high - low < max(TINY, 1e-9 * max(abs(low), abs(high))):
        low, high = _around(high, unit)
    step = round_step(high - low, intervals)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if unit == "share" and high <= 1:
        stop = min(stop, math.floor(1 / step + 1e-9)) if start * step < 1 else stop
    ticks = tuple(round(i * step, 12) for i in range(start, max(stop, start + 1) + 1))
    top = max(ticks[-1], high) if unit == "share" else ticks[-1]
    return Scale(ticks[0], top, ticks)


def _around(value: float, unit: Unit) -> tuple[float, float]:
    """The ends of an axis for a curve that never moves."""
    if abs(value) < TINY:
        return 0.0, 0.1 if unit == "share" else 1.0
    if unit == "share" and 0 < value <= 1:
        return 0.0, 1.0
    return min(0.0, 2 * value), max(0.0, 2 * value)


def x_scale(values: Sequence[float], *, intervals: int = 5) -> Scale:
    """An axis that ends where the data end, ticks inside; it starts at zero where the data begin near it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 < low < 0.2 * high:
        low = 0.0
    if high <= low:
        high = low + 1
    step = round_step(high - low, intervals)
    if high - low >= intervals:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, tuple(round(i * step, 12) for i in range(first, last + 1)))


def tick_label(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{100 * value:.3g}%"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return compact(value) if abs(value) >= 1000 else f"{value:g}"


def line_path(points: Iterable[tuple[float, float]]) -> str:
    """`M x,y L x,y ...` with one decimal: finer than any screen."""
    return "".join(f"{'L' if i else 'M'}{x:.1f},{y:.1f}" for i, (x, y) in enumerate(points))


def band_path(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]]) -> str:
    """The closed area between two lines over the same x."""
    return line_path([*upper, *reversed(lower)]) + "Z" if upper else ""


def dots_path(points: Iterable[tuple[float, float]]) -> str:
    """Points as zero-length strokes: round caps keep them round however the picture is stretched."""
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in points)

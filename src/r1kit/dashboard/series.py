"""From logged rows to lines: one metric over one axis, thinned for long runs and smoothed for noisy ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.dashboard.formats import finite

MAX_POINTS = 400
SMOOTHING_SHARE = 0.05  # width of the running mean, as a share of the points


@dataclass(frozen=True)
class Series:
    """Points (x, y) in ascending x; `low` and `high` are the interval of each point, or both empty.

    `bucket` is how many logged rows one point stands for (1: nothing was thinned).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    bucket: int = 1

    def __bool__(self) -> bool:
        return bool(self.x)

    def scaled(self, factor: float) -> Series:
        def by(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(v * factor for v in values)

        return Series(self.x, by(self.y), by(self.low), by(self.high), self.bucket)


def value_of(row: Mapping[str, Any], key: str) -> float | None:
    """A metric of a row, whether it is a plain value, `{"value": ...}`, or a field of its clock."""
    raw = row.get(key)
    if isinstance(raw, Mapping):
        raw = raw.get("value")
    if raw is None and isinstance(row.get("clock"), Mapping):
        raw = row["clock"].get(key)
    return finite(raw)


def read_series(rows: Sequence[Mapping[str, Any]], key: str, *, axis: str = "step") -> Series:
    """The values of `key` over `axis`, with the interval `<key>_low`, `<key>_high`; other rows are left."""
    points: dict[float, tuple[float, float | None, float | None]] = {}
    for row in rows:
        x, y = value_of(row, axis), value_of(row, key)
        if x is not None and y is not None:
            points[x] = (
                y,
                value_of(row, f"{key}_low"),
                value_of(row, f"{key}_high"),
            )  # a redone step replaces
    xs = sorted(points)
    lows = [points[x][1] for x in xs]
    highs = [points[x][2] for x in xs]
    complete = bool(xs) and None not in lows and None not in highs
    return thin(
        Series(
            tuple(xs),
            tuple(points[x][0] for x in xs),
            tuple(v for v in lows if v is not None) if complete else (),
            tuple(v for v in highs if v is not None) if complete else (),
        )
    )


def thin(series: Series, limit: int = MAX_POINTS) -> Series:
    """At most `limit` points, each the mean of a run of neighbours: no stretch of the run goes unseen."""
    size = -(-len(series.x) // limit)
    if size <= 1:
        return series

    def means(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size)))

    return Series(means(series.x), means(series.y), means(series.low), means(series.high), size)


def smooth(series: Series) -> Series:
    """A centred running mean; the ends use what neighbours there are. Short series come back unchanged."""
    half = round(len(series.x) * SMOOTHING_SHARE / 2)
    if half < 1:
        return series
    y = series.y
    windows = (y[max(0, i - half) : i + half + 1] for i in range(len(y)))
    return Series(series.x, tuple(sum(w) / len(w) for w in windows), bucket=series.bucket)


def with_tokens(rows: Sequence[Mapping[str, Any]], clock_rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with a `tokens` axis: their own, or the count that `clock_rows` had reached at their step."""
    steps = read_series(clock_rows, "tokens")
    out = []
    for row in rows:
        if value_of(row, "tokens") is None:
            step = value_of(row, "step")
            row = {**row, "tokens": None if step is None else _reached(steps, step)}
        out.append(dict(row))
    return out


def _reached(series: Series, x: float) -> float | None:
    """`series` at `x`, linear between its points and proportional before the first."""
    if not series or x < 0:
        return None
    at = bisect_right(series.x, x)
    if at == 0:
        return series.y[0] * x / series.x[0] if series.x[0] else series.y[0]
    if at == len(series.x):
        return series.y[-1]
    share = (x - series.x[at - 1]) / (series.x[at] - series.x[at - 1])
    return series.y[at - 1] + share * (series.y[at] - series.y[at - 1])

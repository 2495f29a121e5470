"""A chart spec and logged rows become a plot: plain values that the template draws.

Geometry is in a square of 1000 x 1000 (y downwards) that the page stretches to its own width; texts and tick
labels are placed in per cent outside of it, so they keep their size from a phone to a poster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.dashboard.chart_specs import ChartGroup, ChartSpec, Curve, groups_for
from r1kit.dashboard.formats import Estimate, Unit, interval, number
from r1kit.dashboard.glossary import Entry, entry_of
from r1kit.dashboard.run_data import StageData
from r1kit.dashboard.scales import Scale, band_path, dots_path, line_path, tick_label, x_scale, y_scale
from r1kit.dashboard.series import Series, read_series, smooth, with_tokens

SIDE = 1000.0
AXIS_TITLES = {"step": "step", "tokens": "training tokens"}


@dataclass(frozen=True)
class Line:
    """One drawn curve. `faint` is the raw line behind a smoothed one; `value` is the last point in words."""

    label: str
    colour: int
    dashed: bool
    path: str
    faint: str
    band: str
    dots: str
    value: str


@dataclass(frozen=True)
class Plot:
    """One drawn chart. Ticks are (position in per cent, label); `data` is what the page's cursor reads."""

    id: str
    spec: ChartSpec
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    axis: str
    description: str
    terms: tuple[Entry, ...]
    data: dict[str, Any]
    bucket: int


@dataclass(frozen=True)
class PlotGroup:
    title: str
    plots: tuple[Plot, ...]


def stage_plots(stage: StageData) -> list[PlotGroup]:
    """Every chart of a stage that has data, on one shared x axis."""
    axis = "tokens" if stage.kind == "pretrain" and any("tokens" in row for row in stage.train) else "step"
    evals = with_tokens(stage.evals, stage.train) if axis == "tokens" else stage.evals
    rows = {"train": stage.train, "eval": evals}
    groups: list[tuple[ChartGroup, list[tuple[ChartSpec, list[tuple[Curve, Series]]]]]] = []
    for group in groups_for(stage):
        charts = []
        for spec in group.charts:
            curves = [(c, read_series(rows[c.source], c.key, axis=axis)) for c in spec.curves]
            charts.append((spec, [(c, s) for c, s in curves if s]))
        groups.append((group, [(spec, curves) for spec, curves in charts if curves]))
    xs = [x for _, charts in groups for _, curves in charts for _, series in curves for x in series.x]
    scale = x_scale(xs)
    plots: list[PlotGroup] = []
    for group, charts in groups:
        drawn = tuple(
            draw(f"{stage.name}-{len(plots)}-{i}", spec, curves, scale, axis) for i, (spec, curves) in enumerate(charts)
        )
        if drawn:
            plots.append(PlotGroup(group.title, drawn))
    return plots


def draw(plot_id: str, spec: ChartSpec, curves: Sequence[tuple[Curve, Series]], xs: Scale, axis: str = "step") -> Plot:
    """Draw `curves` (each with at least one point) over the axis `xs`."""
    ys = y_scale([v for _, s in curves for v in (*s.y, *s.low, *s.high)], spec.unit)
    lines = tuple(_line(curve, series, xs, ys, spec.unit) for curve, series in curves)
    terms = {entry.name: entry for curve, _ in curves if (entry := entry_of(curve.key))}
    return Plot(
        id=plot_id,
        spec=spec,
        lines=lines,
        x_ticks=tuple((round(100 * xs.at(t), 2), tick_label(t, "number")) for t in xs.ticks),
        y_ticks=tuple((round(100 * (1 - ys.at(t)), 2), tick_label(t, spec.unit)) for t in ys.ticks),
        axis=AXIS_TITLES[axis],
        description=_description(spec, curves, axis),
        terms=tuple(terms.values()),
        data={
            "axis": AXIS_TITLES[axis],
            "x0": xs.low,
            "x1": xs.high,
            "lines": [{"x": list(s.x), "text": _texts(s, spec.unit)} for _, s in curves],
        },
        bucket=max(series.bucket for _, series in curves),
    )


def _line(curve: Curve, series: Series, xs: Scale, ys: Scale, unit: Unit) -> Line:
    def place(values: Sequence[float]) -> list[tuple[float, float]]:
        return [(SIDE * xs.at(x), SIDE * (1 - ys.at(y))) for x, y in zip(series.x, values, strict=True)]

    measured = curve.source == "eval" or len(series.x) < 3
    smoothed = series if measured else smooth(series)
    return Line(
        label=curve.label,
        colour=curve.colour,
        dashed=curve.dashed,
        path=line_path(place(smoothed.y)),
        faint="" if smoothed is series else line_path(place(series.y)),
        band=band_path(place(series.high), place(series.low)) if series.low else "",
        dots=dots_path(place(series.y)) if measured and len(series.x) <= 60 else "",
        value=_texts(series, unit)[-1],
    )


def _texts(series: Series, unit: Unit) -> list[str]:
    estimates = (
        [Estimate(y, low, high) for y, low, high in zip(series.y, series.low, series.high, strict=True)]
        if series.low
        else [Estimate(y) for y in series.y]
    )
    return [f"{number(e.value, unit)} {interval(e, unit)}".strip() for e in estimates]


def _description(spec: ChartSpec, curves: Sequence[tuple[Curve, Series]], axis: str) -> str:
    parts = [f"{curve.label} from {number(s.y[0], spec.unit)} to {number(s.y[-1], spec.unit)}" for curve, s in curves]
    first, last = min(s.x[0] for _, s in curves), max(s.x[-1] for _, s in curves)
    span = f"{AXIS_TITLES[axis]} {number(first, 'count')} to {number(last, 'count')}"
    return f"{spec.title}, {span}: {'; '.join(parts)}."

"""The README's picture: held-out pass@1 and response length against RL steps, as one standalone SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from r1kit.dashboard.assets import read_asset
from r1kit.dashboard.formats import Unit, number
from r1kit.dashboard.run_data import ReportError, RunData, StageData, load_run
from r1kit.dashboard.scales import Scale, band_path, dots_path, line_path, tick_label, x_scale, y_scale
from r1kit.dashboard.series import Series, read_series, smooth

WIDTH, HEIGHT = 880, 340
TOP, BOTTOM, LEFT, RIGHT, GAP = 84, 48, 64, 28, 88
PLOT_HEIGHT = HEIGHT - TOP - BOTTOM


@dataclass(frozen=True)
class Panel:
    """One of the two plots: what is measured on held-out problems, and in training behind it."""

    title: str
    unit: Unit
    held_out: Series
    training: Series


def curve_svg(run_directory: Path) -> str:
    """The picture as SVG text; it follows the reader's light or dark scheme and loads nothing.

    ReportError where no stage of the run was evaluated on held-out problems while it trained.
    """
    run = load_run(run_directory)
    stage = _learning_stage(run)
    panels = (
        _panel(stage, "pass@1 on held-out problems", "share", "pass@1", "accuracy"),
        _panel(stage, "tokens per response", "tokens", "response_tokens", "response_tokens"),
    )
    width = (WIDTH - LEFT - RIGHT - GAP) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-labelledby="t">',
        f'<title id="t">{escape(_title(run, panels))}</title>',
        f"<style>{read_asset('curve.css')}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
    ]
    for i, panel in enumerate(panels):
        parts.append(_draw(panel, LEFT + i * (width + GAP), width))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _learning_stage(run: RunData) -> StageData:
    candidates = [*run.of_kind("rl"), *run.stages]
    for stage in candidates:
        if read_series(stage.evals, "pass@1"):
            return stage
    raise ReportError(
        f"{run.directory} has no held-out evaluation during training to draw: run an rl stage with "
        "evaluate.every and evaluate.problems set"
    )


def _panel(stage: StageData, title: str, unit: Unit, held_out: str, training: str) -> Panel:
    return Panel(title, unit, read_series(stage.evals, held_out), smooth(read_series(stage.train, training)))


def _title(run: RunData, panels: tuple[Panel, ...]) -> str:
    told = [f"{p.title} {_span(p)}" for p in panels if p.held_out]
    return f"{run.name}, seed {run.seed}, against RL steps: {'; '.join(told)}"


def _span(panel: Panel) -> str:
    return f"{number(panel.held_out.y[0], panel.unit)} → {number(panel.held_out.y[-1], panel.unit)}"


def _draw(panel: Panel, x0: float, width: float) -> str:
    """One panel with its title, axes, band, lines and legend, its left edge at x0."""
    held_out, training = panel.held_out, panel.training
    series = [s for s in (held_out, training) if s]
    xs = x_scale([x for s in series for x in s.x], intervals=4)
    ys = y_scale([v for s in series for v in (*s.y, *s.low, *s.high)], panel.unit)

    def place(s: Series, values: Sequence[float]) -> list[tuple[float, float]]:
        return [(x0 + width * xs.at(x), TOP + PLOT_HEIGHT * (1 - ys.at(y))) for x, y in zip(s.x, values, strict=True)]

    out = [_text("title", x0 - 36, 34, panel.title), *_axes(xs, ys, panel.unit, x0, width)]
    if training:
        out.append(f'<path class="training" d="{line_path(place(training, training.y))}"/>')
    if held_out.low:
        band = band_path(place(held_out, held_out.high), place(held_out, held_out.low))
        out.append(f'<path class="band" d="{band}"/>')
    if held_out:
        points = place(held_out, held_out.y)
        out.append(f'<path class="line" d="{line_path(points)}"/>')
        out.append(f'<path class="dots" d="{dots_path(points)}"/>')
        out.append(_text("span", x0 - 36, 58, _span(panel)))
    return "\n".join([*out, *_legend(x0 + width, bool(training))])


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _axes(xs: Scale, ys: Scale, unit: Unit, x0: float, width: float) -> Iterator[str]:
    """Grid lines, tick labels and the name of the x axis."""
    foot = TOP + PLOT_HEIGHT
    for tick in ys.ticks:
        y = TOP + PLOT_HEIGHT * (1 - ys.at(tick))
        yield f'<path class="grid" d="M{x0:.1f},{y:.1f}h{width:.1f}"/>'
        yield _text("tick", x0 - 10, y + 4, tick_label(tick, unit), "end")
    for tick in xs.ticks:
        yield _text("tick", x0 + width * xs.at(tick), foot + 18, tick_label(tick, "number"), "middle")
    yield _text("tick", x0 + width / 2, foot + 37, "RL step", "middle")


def _legend(right: float, training: bool) -> Iterator[str]:
    """Short samples of line with their names, above the plot's right end."""
    names = (("line", "held-out"), ("training", "training")) if training else (("line", "held-out"),)
    for i, (kind, name) in enumerate(names):
        y = 30 + 20 * i
        yield f'<path class="{kind}" d="M{right - 92:.1f},{y}h16"/>'
        yield _text("tick", right - 70, y + 4, name)

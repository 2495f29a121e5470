"""Progress of a stage: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_EVERY = 10.0


class StageProgress:
    """Shows one stage at a time. `update` may be called as often as a step ends; it is cheap."""

    def __init__(self, console: Console, plain_every: float = PLAIN_EVERY) -> None:
        self.console = console
        self.plain_every = plain_every
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain = 0.0
        self._begin("")

    def __enter__(self) -> StageProgress:
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[info]}"),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, stage: str, step: int, total: int, fields: dict[str, float]) -> str:
        """Show that `stage` has done `step` of `total` steps; returns the line shown."""
        now = time.monotonic()
        if stage != self._stage:
            self._begin(stage)
            self._first_step, self._first_time = step, now
        info = describe(fields)
        left = self._time_left(step, total, now)
        if left:
            info = f"{info}  {left} left" if info else f"{left} left"
        line = f"{stage} {step}/{total}  {info}".rstrip()
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(stage, total=total, info="")
            self._bar.update(self._task, completed=step, total=total, info=info)
        elif step >= total or now - self._last_plain >= self.plain_every:
            self._last_plain = now
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        return line

    def end(self, stage: str) -> None:
        """The stage is over: take its bar away."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._begin("")

    def _begin(self, stage: str) -> None:
        self._stage = stage
        self._task = None
        self._first_step, self._first_time = 0, time.monotonic()
        self._last_plain = 0.0

    def _time_left(self, step: int, total: int, now: float) -> str:
        done = step - self._first_step
        if done <= 0 or step >= total:
            return ""
        return duration((now - self._first_time) / done * (total - step))


def describe(fields: dict[str, float]) -> str:
    """`loss 0.71  18.2k tok/s`: the fields a stage reports, short."""
    parts = []
    for name, value in fields.items():
        if name in ("tokens_per_s", "tokens_per_second"):
            parts.append(f"{count(value)} tok/s")
        elif name == "tokens":
            parts.append(f"{count(value)} tokens")
        elif isinstance(value, float) and not value.is_integer():
            parts.append(f"{name} {value:.3g}")
        else:
            parts.append(f"{name} {value:g}")
    return "  ".join(parts)


def count(value: float) -> str:
    """1234567 as 1.23M."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """125 as 2:05, 4000 as 1:06:40."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / (1 << 30):.2f} GiB"

"""Why this matters: people decide by the progress line whether to wait; in a log it must not drown everything else.

Not exercised: how the live bar looks on a terminal.
"""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from r1kit.pipeline import progress
from r1kit.pipeline.doctor import estimate, matmul_gflops
from r1kit.pipeline.progress import StageProgress, count, describe, duration


def test_plain_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    console = Console(file=StringIO(), width=80)
    with StageProgress(console, plain_every=10) as shown:
        for step in range(1, 41):
            shown.update("rl", step, 40, {"reward": 0.25, "tokens_per_s": 12_345.0})
    lines = console.file.getvalue().splitlines()
    assert 3 <= len(lines) <= 8
    assert lines[-1] == "rl 40/40  reward 0.25  12.3k tok/s"
    assert all("left" in line for line in lines[1:-1])


def test_time_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = StageProgress(Console(file=StringIO()))
    shown.update("rl", 10, 100, {})
    now[0] = 20.0
    assert shown.update("rl", 20, 100, {}) == "rl 20/100  2:40 left"


def test_live_bar_on_a_terminal_leaves_no_line_behind() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80)
    with StageProgress(console) as shown:
        shown.update("base", 1, 2, {"loss": 1.0})
        shown.end("base")
        shown.update("rl", 1, 2, {})
    assert "base" in console.file.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (125, "2:05"), (4000, "1:06:40")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12"), (1234, "1.23k"), (2_500_000, "2.5M")])
def test_count(value: float, text: str) -> None:
    assert count(value) == text


def test_fields_are_short() -> None:
    assert describe({"loss": 0.71234, "tokens": 4096, "step": 3.0}) == "loss 0.712  4.1k tokens  step 3"


def test_doctor_measures_and_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.pipeline.doctor.SECONDS", 0.01)
    assert matmul_gflops("float32") > 0.1
    slow, fast = ({"float32": rate, "bfloat16": rate} for rate in (100.0, 200.0))
    assert estimate(fast) == pytest.approx(estimate(slow) / 2)

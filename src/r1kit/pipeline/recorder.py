"""What rank 0 writes while a stage runs: metrics, rollouts, evaluations, progress and the log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from r1kit.pipeline.files import plain, write_json
from r1kit.pipeline.interrupts import StopFlag
from r1kit.pipeline.metrics import MetricsLog
from r1kit.pipeline.progress import StageProgress
from r1kit.pipeline.run_directory import RunDirectory, write_rollouts
from r1kit.pipeline.trackers import Tracker
from r1kit.records import Group

HEARTBEAT = 5.0


class RunRecorder:
    """Implements `r1kit.training.recorder.Recorder` over a run directory.

    `heartbeat` is called at most every few seconds, so that the ledger knows what a killed attempt had cost.
    """

    def __init__(
        self, run: RunDirectory, progress: StageProgress, stop: StopFlag, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.run = run
        self.log_file = MetricsLog(run.metrics)
        self.show = progress
        self.stop = stop
        self.trackers = list(trackers)
        self.heartbeat: Any = lambda: None
        self._last_beat = time.monotonic()

    def metrics(
        self,
        stage: str,
        step: int,
        values: Mapping[str, float],
        clock: Mapping[str, float],
        kind: str = "train",
    ) -> None:
        row = self.log_file.append(stage, kind, step, values, {**clock, "wall": round(time.time(), 3)})
        for tracker in self.trackers:
            tracker.log(row)
        self._beat()

    def rollouts(self, stage: str, step: int, groups: Iterable[Group]) -> None:
        write_rollouts(self.run.rollouts(stage, step), groups)

    def evaluation(self, stage: str, step: int, evaluation: Mapping[str, Any]) -> None:
        write_json(self.run.evaluation(stage, step), plain(evaluation))

    def progress(self, stage: str, step: int, total: int, **fields: float) -> None:
        self.show.update(stage, step, total, fields)
        self._beat()

    def note(self, stage: str, text: str) -> None:
        self.say(f"{stage}: {text}")

    def should_stop(self) -> bool:
        return self.stop.requested

    def truncate(self, stage: str, step: int) -> None:
        dropped = self.log_file.truncate(stage, step)
        self.run.forget_after(stage, step)
        if dropped:
            self.log(f"{stage}: goes on from step {max(step, 0)}; {dropped} later rows are done again")

    def log(self, text: str) -> None:
        """One line of run.log, with the time."""
        with open(self.run.log, "a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")

    def say(self, text: str) -> None:
        """One line for the terminal and for run.log."""
        self.show.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self.log(text)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last_beat >= HEARTBEAT:
            self._last_beat = now
            self.heartbeat()

"""metrics.jsonl: one row per logged step of every stage.

A row is `{"stage", "kind", "step", ...values, "clock": {...}}`; everything outside `clock` is the same, bit
for bit, in two runs with one seed. A process killed in the middle of a line leaves a tail without a newline,
which readers ignore and the next writer cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from r1kit.pipeline.files import plain, write_atomic


class MetricsLog:
    """Appends rows; one writer at a time (the run directory is locked)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_unfinished_line(path)

    def append(
        self, stage: str, kind: str, step: int, values: Mapping[str, Any], clock: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write one row and return it. Raises ValueError where a value would hide a row's own key."""
        taken = {"stage", "kind", "step", "clock"} & set(values)
        if taken:
            raise ValueError(f"metrics of stage {stage}: {sorted(taken)} are keys of the row itself: rename the metric")
        row = {"stage": stage, "kind": kind, "step": step, **plain(values), "clock": plain(clock)}
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")
        return row

    def truncate(self, stage: str, step: int) -> int:
        """Drop the rows of `stage` after `step`, which a resumed run writes again; how many were dropped."""
        return self._keep(lambda row: row["stage"] != stage or row["step"] <= step)

    def drop(self, stages: Collection[str]) -> int:
        """Drop every row of `stages`; how many were dropped."""
        return self._keep(lambda row: row["stage"] not in stages)

    def _keep(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        rows = list(read_metrics(self.path))
        kept = [row for row in rows if wanted(row)]
        if len(kept) < len(rows):
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        return len(rows) - len(kept)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole row, in order; nothing where the file does not exist yet."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def _cut_unfinished_line(path: Path) -> None:
    if not path.is_file():
        return
    with open(path, "rb+") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)
            os.fsync(stream.fileno())

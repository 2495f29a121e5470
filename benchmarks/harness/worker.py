"""One measuring process: waits for orders on stdin, runs them, answers in JSON lines.

Started by `harness.team`. The target class is named as "module:Class"; it is made once with (options, rank,
size), then each order is `prepare`d outside the clock and `run` inside it. Whatever libraries print goes to
stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, Protocol

from r1kit.pipeline.process import tune_process
from r1kit.pipeline.usage import reset_peak, resident_bytes
from r1kit.pipeline.worker import die_with_parent


class Target(Protocol):
    """What a measuring process runs."""

    def prepare(self, order: dict[str, Any]) -> None:
        """Get ready for `order`; not timed."""
        ...

    def run(self) -> dict[str, Any]:
        """Do the prepared order; timed. Figures for the caller, plain JSON.

        A target that times itself (its work does not start where `run` does) answers with its own "started"
        and "ended" (`time.perf_counter`, one clock for all processes of the machine) and "cpu_seconds".
        """
        ...


def load_target(name: str) -> Any:
    """The class named "module:Class"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def timed_run(target: Target) -> dict[str, Any]:
    """`target.run()` with "started", "ended", "cpu_seconds" and "peak_bytes" beside its figures."""
    reset_peak()
    cpu, started = time.process_time(), time.perf_counter()
    figures = target.run()
    clock = {"started": started, "ended": time.perf_counter(), "cpu_seconds": time.process_time() - cpu}
    return {**clock, "peak_bytes": resident_bytes("VmHWM"), **figures}


def main() -> None:
    spec = json.loads(sys.argv[1])
    die_with_parent(spec["parent"])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tune_process()
    target: Target = load_target(spec["target"])(spec["options"], spec["rank"], spec["size"])
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        target.prepare(json.loads(line))
        print(json.dumps({"ready": True}), file=answers)
        # The other processes may still prepare; nobody starts before all of them are here.
        if not sys.stdin.readline():
            return
        print(json.dumps(timed_run(target)), file=answers)


if __name__ == "__main__":
    main()

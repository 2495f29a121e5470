"""The options all benchmarks share, and their way out when something is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from harness.team import BenchmarkError
from r1kit.config.errors import ConfigError
from r1kit.models.checkpoint import CheckpointError
from r1kit.pipeline.files import RunError
from r1kit.training.checkpoints import complete_checkpoints


def shared_parser(manual: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with the options of every benchmark."""
    made = argparse.ArgumentParser(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--checkpoint", type=Path, help="model to measure (default: the last one of --run's RL)")
    made.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="run whose checkpoints are taken")
    made.add_argument("--recipe", default="tinyzero", help="recipe (name or file) with the task and the settings")
    made.add_argument("--max-tokens", type=int, default=240, help="cap on a response")
    made.add_argument("--repeats", type=int, default=3, help="rounds; figures are medians over them")
    made.add_argument("--seed", type=int, default=0)
    return made


def newest_checkpoint(run: Path, stage: str) -> Path:
    """The last finished checkpoint of a stage of a run."""
    found = complete_checkpoints(run / "checkpoints" / stage)
    if not found:
        raise BenchmarkError(
            f"{run}/checkpoints/{stage}: no finished checkpoint; `make quickstart` makes one, or give --checkpoint"
        )
    return found[-1][1]


def run(main: Callable[[], None]) -> None:
    """`main`, with the errors a user can mend as one message instead of a traceback."""
    try:
        main()
    except (BenchmarkError, CheckpointError, ConfigError, RunError, ValueError) as error:
        sys.exit(f"error: {error}")

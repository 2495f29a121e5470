"""Going back to an earlier checkpoint of a stage, so that a crash in the middle leaves a state that does it again.

A rollback is a resume from an edited checkpoint: what came later is deleted, and the checkpoint's plain state is
replaced. As long as that has not happened, the newest checkpoint is one from which the stage comes, step by step, to
the same alarm; afterwards it is the edited one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from r1kit.training.checkpoints import COMPLETE, checkpoint_path, complete_checkpoints, file_digest, flush

STATE = "trainer.json"


def roll_back(directory: Path, step: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Make the checkpoint of `step` the newest in `directory`, its plain state replaced by `change` of it."""
    target = checkpoint_path(directory, step)
    state = change(json.loads((target / STATE).read_text()))
    # Newest first: what is newest at any moment still leads to the same place.
    for later, path in reversed(complete_checkpoints(directory)):
        if later > step:
            shutil.rmtree(path)
    temporary = directory / f".tmp-{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    manifest = json.loads((target / COMPLETE).read_text())
    for name in manifest:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        if name != STATE:
            _link(target / name, temporary / name)
    (temporary / STATE).write_text(json.dumps(state))
    manifest[STATE] = file_digest(temporary / STATE)
    flush(temporary / STATE)
    (temporary / COMPLETE).write_text(json.dumps(manifest, indent=1))
    flush(temporary / COMPLETE)
    flush(temporary)
    shutil.rmtree(target)
    temporary.rename(target)
    flush(directory)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, which costs nothing; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class GoodSteps:
    """Saved steps that a rollback may go back to: no alarm held when they were saved, nor within a window after.

    An alarm after step t has looked at `window` rows, the first of which was sampled by the policy of step t - window:
    that policy is under suspicion, and the checkpoint has to be older.
    """

    def __init__(self, window: int, state: Iterable[int] = ()) -> None:
        self.window = window
        self.steps = list(state)

    def saved(self, step: int, *, quiet: bool) -> None:
        """A checkpoint is being written; only the newest that is old enough, and younger ones, are still of use."""
        if quiet:
            self.steps.append(step)
        old = [s for s in self.steps if s < step - self.window]
        self.steps = [*old[-1:], *(s for s in self.steps if s >= step - self.window)]

    def before(self, step: int) -> int | None:
        """The step to go back to from an alarm after `step`; the oldest where none is old enough, None without any."""
        good = [s for s in self.steps if s < step - self.window]
        return good[-1] if good else (self.steps[0] if self.steps else None)

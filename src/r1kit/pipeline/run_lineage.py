"""lineage.json of a run: where its results come from, kept up as the run begins, and as each stage of it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import r1kit
from r1kit.config.graph import edge_output, stage_paths
from r1kit.config.schema import Recipe
from r1kit.pipeline.changes import code_version, user_functions
from r1kit.pipeline.files import read_json, write_json
from r1kit.pipeline.lineage import (
    code_hashes,
    git_commit,
    hash_functions,
    hash_model,
    hash_path,
    library_versions,
    machine,
)
from r1kit.pipeline.run_directory import RunDirectory


class RunLineage:
    """What lineage.json of `run` says, from what it said before; `kept` is its content."""

    def __init__(self, run: RunDirectory, recipe: Recipe) -> None:
        self.run, self.recipe = run, recipe
        self.kept: dict[str, Any] = read_json(run.lineage) or {}

    def begin(self, source: str, overrides: Sequence[str]) -> None:
        """Note the recipe, its inputs, and this start of the run."""
        version = code_version()
        self.kept.setdefault("code", {})[version] = code_hashes()
        self.kept |= {
            "recipe": {"name": self.recipe.name, "source": source, "overrides": list(overrides)},
            "seed": self.recipe.seed,
            "inputs": self._external_inputs(),
        }
        self.kept.setdefault("stages", {})
        self.kept.setdefault("history", []).append(
            {
                "started": _now(),
                "command": shlex.join(sys.argv),
                "directory": str(Path.cwd()),
                "code": version,
                "git": git_commit(),
                "r1kit": r1kit.__version__,
                "libraries": library_versions(),
                "machine": machine(self.recipe.device),
            }
        )
        write_json(self.run.lineage, self.kept)

    def finish(self, name: str, fingerprint: str, inputs: Mapping[str, Path], model: Path | None) -> None:
        """Note a finished stage: the weights that it read, and `model`, which it made."""
        others = {
            key: self._described(path) for key, path in inputs.items() if key != "model" and edge_output(key) == "model"
        }
        self.kept["stages"][name] = {
            "fingerprint": fingerprint,
            "code": self.kept["history"][-1]["code"],
            "finished": _now(),
            "input": self._described(inputs.get("model")),
            **({"inputs": others} if others else {}),
            "output": self._described(model),
        }
        write_json(self.run.lineage, self.kept)

    def discard(self, name: str) -> None:
        """Forget a stage that is done again; written when the run begins."""
        self.kept.get("stages", {}).pop(name, None)

    def _external_inputs(self) -> dict[str, str]:
        """Content hash by path of models and data that no stage of this recipe makes, and of the user's functions."""
        inputs = {path: hash_path(path) or "not on this machine" for path in self.recipe.task.data_files}
        for name, stage in self.recipe.stages.items():
            inputs |= hash_functions(user_functions(self.recipe, name))
            inputs |= {text: hash_path(text) or "not on this machine" for text in stage_paths(stage).values()}
        return inputs

    def _described(self, model: Path | None) -> dict[str, str] | None:
        if model is None:
            return None
        root = self.run.root.resolve()
        inside = model.resolve().is_relative_to(root)
        return {
            "path": model.resolve().relative_to(root).as_posix() if inside else str(model),
            "sha256": hash_model(model),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

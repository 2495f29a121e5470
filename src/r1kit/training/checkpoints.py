"""Checkpoints: the Hugging Face layout plus the trainer's state, written so that a crash leaves the last one whole.

A checkpoint directory holds what plain Transformers loads (model.safetensors, config.json, the tokenizer,
generation_config.json) and what training needs to go on bit for bit (trainer.safetensors, trainer.json). It is
written under a temporary name, flushed to disk, its manifest COMPLETE last, and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from r1kit.models.checkpoint import CheckpointError, read_safetensors

COMPLETE = "COMPLETE"
_STEP = re.compile(r"step-(\d+)")


def checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:06d}"


def save_checkpoint(
    directory: Path,
    step: int,
    *,
    write_model: Any,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
    protected: Collection[int] = (),
) -> Path:
    """Write step `step` under `directory`, drop all but the newest `keep` checkpoints and the `protected` steps.

    `write_model(path)` writes model and tokenizer; `tensors` and `state` (plain JSON) are the trainer's own.
    """
    target = checkpoint_path(directory, step)
    temporary = directory / f".tmp-{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_model(temporary)
        on_cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(on_cpu, temporary / "trainer.safetensors")
        (temporary / "trainer.json").write_text(json.dumps({"step": step, **state}))
        # Some tokenizers write a folder of their own, for further chat templates.
        written = sorted(temporary.rglob("*"))
        manifest = {path.relative_to(temporary).as_posix(): file_digest(path) for path in written if path.is_file()}
        for path in written:
            flush(path)
        (temporary / COMPLETE).write_text(json.dumps(manifest, indent=1))
        flush(temporary / COMPLETE)
        flush(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        flush(directory)
    except BaseException:
        # A full disk must not be left fuller, and the last good checkpoint stays as it is.
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old_step, old in complete_checkpoints(directory)[:-keep]:
        if old_step not in protected:
            shutil.rmtree(old)
    return target


def complete_checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """(step, path) of every finished checkpoint, oldest first."""
    if not directory.is_dir():
        return []
    found = [(int(m[1]), p) for p in directory.iterdir() if (m := _STEP.fullmatch(p.name)) and (p / COMPLETE).is_file()]
    return sorted(found)


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest finished checkpoint, checked against its manifest; None where there is none.

    A damaged file raises CheckpointError: training never goes on silently from something else than it saved.
    """
    found = complete_checkpoints(directory)
    if not found:
        return None
    path = found[-1][1]
    verify_checkpoint(path)
    return path


def verify_checkpoint(path: Path, remedy: str = "") -> None:
    """Compare every file with the manifest; raises CheckpointError naming the first that differs.

    `remedy` says what to do about it; by default how training goes on without this checkpoint.
    """
    remedy = remedy or (
        f"Delete the directory {path} to go on from the checkpoint before it, or start over with --fresh"
    )
    manifest_path = path / COMPLETE
    if not manifest_path.is_file():
        raise CheckpointError(f"{path}: no {COMPLETE} file; this checkpoint was never finished")
    try:
        manifest = json.loads(manifest_path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{manifest_path}: is damaged or truncated ({error}). {remedy}") from error
    for name, digest in manifest.items():
        file = path / name
        if not file.is_file() or file_digest(file) != digest:
            what = "is missing" if not file.is_file() else "is damaged or truncated"
            raise CheckpointError(f"{file}: {what} (its content does not match {COMPLETE}). {remedy}")


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The trainer's tensors and plain state of a checkpoint."""
    return read_safetensors(path / "trainer.safetensors"), json.loads((path / "trainer.json").read_text())


def file_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

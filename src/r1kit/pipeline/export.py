"""`r1kit export`: a checkpoint as plain Transformers loads it, and the proof that it does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from r1kit.config.graph import stage_order
from r1kit.config.load import parse_recipe
from r1kit.pipeline.files import RunError
from r1kit.pipeline.run_directory import RunDirectory

TRAINER_FILES = ("trainer.safetensors", "trainer.json", "COMPLETE")
TOLERANCE = 1e-4


def find_model(path: str | Path, stage: str | None = None) -> Path:
    """The checkpoint directory meant by a path: itself, or the newest model of a run. Raises RunError."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    run = RunDirectory(path)
    if not run.exists:
        raise RunError(f"{path}: expected a checkpoint directory (with config.json) or a run directory")
    recipe = parse_recipe(run.recipe.read_text(encoding="utf-8"), str(run.recipe))
    if stage is not None and stage not in recipe.stages:
        raise RunError(f"{path} has no stage {stage!r}; it has {', '.join(recipe.stages)}")
    for name in [stage] if stage else reversed(stage_order(recipe)):
        record = run.finished(name)
        if record and "model" in record["outputs"]:
            return run.root / record["outputs"]["model"]
    raise RunError(f"{path}: no finished stage {stage or ''} made a model yet; run it to its end first")


def export_checkpoint(source: Path, destination: Path) -> float:
    """Copy the Hugging Face files of `source` and compare its log-probs in Transformers with our own.

    Returns the largest difference in nats. Raises RunError where the destination is taken or the two
    disagree.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RunError(f"{destination} exists and is not empty: choose another destination")
    destination.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in TRAINER_FILES:
            shutil.copy2(file, destination / file.name)
    gap = compare_with_transformers(destination)
    if not gap < TOLERANCE:
        raise RunError(
            f"{destination}: Transformers and r1kit differ by {gap:.2g} nats in log-probs (expected: at most "
            f"{TOLERANCE:g}): do not use this export, and report it"
        )
    return gap


def compare_with_transformers(directory: Path, tokens: int = 64) -> float:
    """Largest difference in log-probs, in nats, between plain Transformers and our model on random tokens."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from r1kit.models.attention import Segment, packed_attention, positions
    from r1kit.models.loading import load_model

    logging.disable_progress_bar()
    ours = load_model(directory)
    theirs: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, trust_remote_code=False)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(ours.config.vocab_size, (tokens,), generator=generator)
    with torch.no_grad():
        segments = [Segment(1, tokens)]
        hidden = ours(ids, positions(segments), packed_attention(segments))
        mine = torch.log_softmax(ours.logits(hidden).float(), dim=-1)
        plain = torch.log_softmax(theirs(ids[None]).logits[0].float(), dim=-1)
    return float((mine - plain).abs().max())

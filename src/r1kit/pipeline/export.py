"""`r1kit export`: a checkpoint as plain Transformers loads it, and the proof that it is what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from r1kit.config.graph import stage_inputs, stage_order, stage_paths
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
    """Copy the Hugging Face files of `source`, and prove that what was written is what was trained.

    The copy's weights must be the trainer's, bit for bit, and must not be those of the model that training started
    from; its log-probs in plain Transformers must be those of our own model. Returns the largest difference in nats.
    Raises RunError where one of this does not hold, or where the destination is taken.
    """
    from r1kit.training.checkpoints import COMPLETE, verify_checkpoint

    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RunError(f"{destination} exists and is not empty: choose another destination")
    if (source / COMPLETE).is_file():
        verify_checkpoint(source, "Export another checkpoint")
    destination.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in TRAINER_FILES:
            shutil.copy2(file, destination / file.name)
    _refuse_other_weights(source, destination)
    _refuse_base(source, destination)
    gap = compare_with_transformers(destination)
    if not gap < TOLERANCE:
        raise RunError(
            f"{destination}: Transformers and r1kit differ by {gap:.2g} nats in log-probs (expected: at most "
            f"{TOLERANCE:g}): do not use this export, and report it"
        )
    return gap


def base_of(checkpoint: Path) -> Path | None:
    """The model that training of this checkpoint started from; None where it is in no run, or started from nothing."""
    run = RunDirectory(checkpoint.resolve().parents[2]) if len(checkpoint.resolve().parents) > 2 else None
    if run is None or not run.exists or checkpoint.resolve().parents[1] != run.root / "checkpoints":
        return None
    recipe = parse_recipe(run.recipe.read_text(encoding="utf-8"), str(run.recipe))
    stage = recipe.stages.get(checkpoint.resolve().parent.name)
    if stage is None:
        return None
    upstream = stage_inputs(stage).get("model")
    record = run.finished(upstream) if upstream else None
    given = stage_paths(stage).get("model")
    found = run.root / record["outputs"]["model"] if record else Path(given).expanduser() if given else None
    return found if found is not None and (found / "config.json").is_file() else None


def _refuse_base(source: Path, destination: Path) -> None:
    base = base_of(source)
    if base is not None and not _differing(base, destination):
        raise RunError(
            f"{destination}: its weights equal those of {base}, from which {source} was trained: nothing was learned, "
            "or the wrong weights were saved; look at the run's gradient norm and learning rate"
        )


def _refuse_other_weights(source: Path, destination: Path) -> None:
    """The copy against the checkpoint, and against the float32 weights that the trainer goes on from."""
    import torch

    from r1kit.models.checkpoint import read_config
    from r1kit.models.loading import load_model
    from r1kit.training.checkpoints import load_state

    differing = _differing(source, destination)
    if differing:
        raise RunError(
            f"{destination}: {', '.join(differing[:3])} differ from {source}: the disk or the copy is at fault; "
            "export again"
        )
    master = load_state(source)[0].get("master") if (source / "trainer.safetensors").is_file() else None
    if master is None:
        return
    raw = read_config(destination)
    model = load_model(destination, dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"))
    written = torch.cat([p.detach().flatten() for p in model.parameters()])
    if written.shape != master.shape or not torch.equal(written, master.to(written.dtype)):
        raise RunError(
            f"{destination}: its weights are not those that the trainer of {source} holds: do not use this export, "
            "and report it"
        )


def _differing(one: Path, other: Path) -> list[str]:
    """Names of the tensors that are not equal bit for bit, or that only one of the two has."""
    from r1kit.models.checkpoint import read_hf_state

    a, b = read_hf_state(one), read_hf_state(other)
    return sorted(
        n for n in {*a, *b} if n not in a or n not in b or a[n].shape != b[n].shape or bool((a[n] != b[n]).any())
    )


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

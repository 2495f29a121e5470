"""`r1kit export`: a checkpoint as plain Transformers loads it, and the proof that it is what was trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import r1kit
from r1kit.config.graph import stage_order
from r1kit.config.load import parse_recipe
from r1kit.pipeline.files import RunError, write_json
from r1kit.pipeline.lineage import hash_file, hash_model
from r1kit.pipeline.run_directory import RunDirectory

if TYPE_CHECKING:
    from r1kit.pipeline.export_origin import Made
    from r1kit.pipeline.export_proofs import Finding

LINEAGE = "lineage.json"
# The trainer's own, and what an earlier export said of itself.
LEFT_OUT = ("trainer.safetensors", "trainer.json", "COMPLETE", LINEAGE)
# Some tokenizers have more than one template.
TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class Export:
    """What was shown of an export. `gap`: the largest difference between Transformers and r1kit, in nats, of a reward
    model in values."""

    gap: float
    unit: str
    findings: tuple[Finding, ...]


def find_model(path: str | Path, stage: str | None = None) -> Path:
    """The checkpoint directory meant by a path: itself, or the newest model of a run. Raises RunError."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    if (path / "adapter_config.json").is_file():
        raise RunError(
            f"{path} holds adapters of PEFT, not a model: merge them into their base with peft (PeftModel, "
            "merge_and_unload, save_pretrained) and give the directory of the result"
        )
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


def export_checkpoint(source: Path, destination: Path, base: Path | None = None, *, adapters: bool = False) -> Export:
    """Copy the Hugging Face files of `source`, and prove that what was written is what was trained.

    The copy is the checkpoint's, bit for bit, and that is the trainer's; it is not the model that training started from
    (`base`; None: as the run says); plain Transformers loads all of it and computes the same. `adapters`: write those
    of a stage trained with `lora`, for PEFT, in place of the model that they make. What was shown, and what could not
    be, stands in lineage.json of the export. Raises RunError or CheckpointError where one of this does not hold, or
    where the destination is taken; nothing is left there.
    """
    from r1kit.models.loading import is_value_model
    from r1kit.pipeline.export_origin import made
    from r1kit.training.checkpoints import COMPLETE, verify_checkpoint

    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RunError(f"{destination} exists and is not empty: choose another destination")
    if (source / COMPLETE).is_file():
        verify_checkpoint(source, "Export another checkpoint")
    about, new = made(source, base), not destination.exists()
    try:
        destination.mkdir(parents=True, exist_ok=True)
        gap, findings = (_export_adapters if adapters else _export_model)(source, destination, about)
        _write_lineage(source, destination, about, findings)
    except BaseException:
        # What could not be shown to be right must not be taken for an export, nor fill a disk.
        shutil.rmtree(destination, ignore_errors=True)
        if not new:
            destination.mkdir(exist_ok=True)
        raise
    return Export(gap, "in values" if is_value_model(source) else "nats", tuple(findings))


def _export_model(source: Path, destination: Path, about: Made) -> tuple[float, list[Finding]]:
    from r1kit.pipeline.export_proofs import Finding, beside_origin, beside_trainer, beside_transformers

    files = [path for path in source.iterdir() if path.is_file() and path.name not in LEFT_OUT]
    count = _copy(source, destination, [*files, *_templates(source)])
    found = [Finding("files", f"{count} copied and read again, equal to the checkpoint's")]
    found.append(beside_trainer(source, about))
    if about.unknown:
        found.append(Finding("base", about.unknown, made=False))
    found += [beside_origin(source, destination, origin) for origin in about.origins]
    gap, loaded = beside_transformers(source, destination)
    return gap, [*found, *loaded, *_carry_reference(source, destination)]


def _export_adapters(source: Path, destination: Path, about: Made) -> tuple[float, list[Finding]]:
    if find_spec("peft") is None:
        raise RunError("adapters are read back with peft, which is not installed: pip install peft")
    from r1kit.pipeline.export_adapters import beside_peft, trained_adapters, write_adapters
    from r1kit.pipeline.export_proofs import Finding, beside_origin

    adapted, origin = trained_adapters(source, about)
    tokenizer = [path for path in source.iterdir() if path.name.startswith(("tokenizer", "chat_template"))]
    _copy(source, destination, [*tokenizer, *_templates(source)])
    write_adapters(adapted, origin.path, destination)
    found = [Finding("trainer", f"its adapters on {origin.path} make the weights of {source}")]
    found.append(beside_origin(source, source, origin))
    gap, loaded = beside_peft(adapted, origin, destination)
    return gap, [*found, loaded]


def _templates(source: Path) -> list[Path]:
    return [path for path in (source / TEMPLATES).rglob("*") if path.is_file()]


def _copy(source: Path, destination: Path, files: Sequence[Path]) -> int:
    """Copy `files` of `source`; how many. RunError where what was written is something else."""
    for file in sorted(files):
        copy = destination / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy2(file, copy)
        if hash_file(copy) != hash_file(file):
            raise RunError(f"{copy} differs from {file}: the disk or the copy is at fault; export again")
    return len(files)


def _carry_reference(source: Path, destination: Path) -> list[Finding]:
    """Let an implicit reward model name its reference from where it lies now."""
    from r1kit.models.reward_model import SPEC, RewardModelSpec, weight_files_sha256
    from r1kit.pipeline.export_proofs import Finding

    spec = RewardModelSpec.read(source)
    if spec is None or spec.reference is None:
        return []
    path = (source / spec.reference).resolve()
    moved = replace(spec, reference=os.path.relpath(path, destination.resolve()))
    (destination / SPEC).write_text(json.dumps(asdict(moved), indent=1))
    if not path.is_dir():
        return [Finding("reference", f"{path} is gone; RewardModel.load(..., reference=...) takes a copy", made=False)]
    if spec.reference_sha256 not in (None, weight_files_sha256(path)):
        raise RunError(f"{path} is not the reference that {source} was trained with: restore it, and export again")
    return [Finding("reference", f"{path} is not copied; scores are read against it")]


def _write_lineage(source: Path, destination: Path, about: Made, findings: Sequence[Finding]) -> None:
    files = [path for path in sorted(destination.rglob("*")) if path.is_file()]
    origins = [
        {"setting": origin.setting, "path": str(origin.path.resolve()), "sha256": hash_model(origin.path)}
        for origin in about.origins
    ]
    content = {
        "source": str(source.resolve()),
        "run": str(about.run.resolve()) if about.run else None,
        "stage": about.name or None,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "r1kit": r1kit.__version__,
        "files": {path.relative_to(destination).as_posix(): hash_file(path) for path in files},
        "made_from": origins,
        "checks": [asdict(finding) for finding in findings],
    }
    write_json(destination / LINEAGE, content)

"""What is exported is what was trained, or there is no export.

Why this matters: weights that are the base's, or half written, load without a word in every other program; the loss of
weeks of training shows as "the model got no better".

Not exercised here: the command line (tests/cli/test_model_verbs.py); parity of architectures (tests/models).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from rich.console import Console
from tests.training.judged import pair_rows, write_rows
from transformers import AutoModelForCausalLM

from r1kit.config import parse_recipe
from r1kit.models.checkpoint import CheckpointError
from r1kit.pipeline import export
from r1kit.pipeline.export import export_checkpoint, find_model
from r1kit.pipeline.export_origin import made
from r1kit.pipeline.export_proofs import TOLERANCE
from r1kit.pipeline.files import RunError
from r1kit.pipeline.run import Options, run_recipe
from r1kit.training import checkpoints

RECIPE = """
name: two stages
task: {{name: countdown, high: 6}}
dtype: {dtype}
processes: 1
stages:
  base:
    kind: pretrain
    model: {{hidden: 16, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, intermediate: 16}}
    tokens: 512
    tokens_per_step: 256
    warmup_steps: 0
  sft:
    kind: sft
    model: ${{base}}
    data: [{{path: {rows}}}]
    epochs: 1
    batch_size: 2
    max_tokens: 64
    optimizer: {{lr: 1e-2}}
  preferred:
    kind: preference
    model: ${{sft}}
    data: [{{path: {pairs}}}]
    max_tokens: 64
    lora: {{rank: 2, alpha: 4}}
    epochs: 2
    optimizer: {{lr: 1e-2}}
"""


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a base and its fine-tuning; tests copy what they spoil."""
    folder = tmp_path_factory.mktemp("export")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Q:{n}", "completion": str(n)}) + "\n" for n in range(4)))
    pairs = write_rows(folder / "pairs.jsonl", pair_rows(4))
    recipe = parse_recipe(RECIPE.format(dtype=request.param, rows=rows, pairs=pairs), "recipe.yaml")
    return run_recipe(recipe, folder / "run", Options(check=False, console=Console(quiet=True))).root


def spoiled(run: Path, tmp_path: Path, *, base_weights: bool) -> Path:
    """A copy of the run whose fine-tuned checkpoint holds other weights, with a manifest that fits them."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    source = find_model(copy, "sft")
    weights = source / "model.safetensors"
    if base_weights:
        shutil.copy2(find_model(copy, "base") / "model.safetensors", weights)
    else:
        tensors = dict(checkpoints.read_safetensors(weights))
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
        checkpoints.save_file(tensors, weights, metadata={"format": "pt"})
    manifest = json.loads((source / "COMPLETE").read_text())
    manifest["model.safetensors"] = checkpoints.file_digest(weights)
    (source / "COMPLETE").write_text(json.dumps(manifest))
    return source


def test_what_was_trained_is_exported(run: Path, tmp_path: Path) -> None:
    source = find_model(run, "sft")
    assert [origin.path for origin in made(source).origins] == [find_model(run, "base")]
    export_made = export_checkpoint(source, tmp_path / "plain")
    assert export_made.gap < TOLERANCE
    # Nothing was left out.
    assert [(f.check, f.made) for f in export_made.findings] == [
        ("files", True),
        ("trainer", True),
        ("model", True),
        ("transformers", True),
    ]
    assert not (tmp_path / "plain" / "trainer.safetensors").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.arange(3, 9)[None]
    assert torch.isfinite(plain(ids).logits).all()


def test_adapters_are_exported_as_the_model_they_make(run: Path, tmp_path: Path) -> None:
    source = find_model(run, "preferred")
    assert "adapters" in checkpoints.load_state(source)[0]
    found = {f.check: f.sentence() for f in export_checkpoint(source, tmp_path / "plain").findings}
    base = find_model(run, "sft")
    assert found["trainer"] == f"trainer: its adapters on {base} make these weights"
    assert found["model"].endswith(f"tensors differ from {base}")
    plain, trained = (checkpoints.read_safetensors(p / "model.safetensors") for p in (tmp_path / "plain", source))
    assert plain.keys() == trained.keys()
    assert all(torch.equal(plain[name], trained[name]) for name in plain)


def test_the_bases_weights_are_no_export(run: Path, tmp_path: Path) -> None:
    source = spoiled(run, tmp_path, base_weights=True)
    # In bfloat16 the trainer keeps its weights beside, and those differ already.
    with pytest.raises(RunError, match=r"nothing was learned|are not those that the trainer"):
        export_checkpoint(source, tmp_path / "plain")


def test_other_weights_than_the_trainers_are_no_export(run: Path, tmp_path: Path) -> None:
    source = spoiled(run, tmp_path, base_weights=False)
    if not (source / "trainer.safetensors").is_file() or "master" not in checkpoints.load_state(source)[0]:
        pytest.skip("in float32 the checkpoint's weights are the trainer's own")
    with pytest.raises(RunError, match="are not those that the trainer"):
        export_checkpoint(source, tmp_path / "plain")


def test_a_copy_that_differs_is_no_export(run: Path, tmp_path: Path) -> None:
    real = shutil.copy2

    def failing(source: Path, destination: Path) -> None:
        real(source, destination)
        if Path(source).name == "model.safetensors":
            tensors = dict(checkpoints.read_safetensors(Path(destination)))
            tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
            checkpoints.save_file(tensors, destination, metadata={"format": "pt"})

    with (
        patch.object(export.shutil, "copy2", failing),
        pytest.raises(RunError, match=r"model\.safetensors differs from"),
    ):
        export_checkpoint(find_model(run, "sft"), tmp_path / "plain")


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "step-000002"
    shutil.copytree(find_model(run, "sft"), copy)
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: is damaged or truncated.*Export another checkpoint"
    ):
        export_checkpoint(copy, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_a_bare_checkpoint_has_no_base(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(find_model(run, "sft"), bare)
    assert made(bare).unknown.startswith("it lies in no run")
    assert export_checkpoint(bare, tmp_path / "plain").gap < TOLERANCE


def test_other_adapters_than_the_trainers_are_no_export(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    source = find_model(copy, "preferred")
    state = source / "trainer.safetensors"
    tensors = checkpoints.read_safetensors(state)
    tensors["adapters"] *= 1.5
    checkpoints.save_file(tensors, state)
    (source / "COMPLETE").unlink()
    with pytest.raises(RunError, match="with the adapters that the trainer of this checkpoint holds"):
        export_checkpoint(source, tmp_path / "plain")
    shutil.rmtree(find_model(copy, "sft"))
    trainer = export_checkpoint(source, tmp_path / "plain").findings[1]
    assert not trainer.made
    assert "is gone" in trainer.found


def test_adapters_alone_make_the_same_model_in_peft(run: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    source, base = find_model(run, "preferred"), find_model(run, "sft")
    assert export_checkpoint(source, tmp_path / "adapters", adapters=True).gap < TOLERANCE
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapters")).merge_and_unload().state_dict()
    trained = checkpoints.read_safetensors(source / "model.safetensors")
    for name, tensor in trained.items():
        room = 2e-2 if tensor.dtype == torch.bfloat16 else 1e-5
        assert torch.allclose(merged[name], tensor.float(), atol=room * tensor.abs().max().item(), rtol=room), name


def test_what_has_no_adapters_exports_none(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was not trained with adapters"):
        export_checkpoint(find_model(run, "sft"), tmp_path / "adapters", adapters=True)
    bare = tmp_path / "bare"
    shutil.copytree(find_model(run, "preferred"), bare)
    with pytest.raises(RunError, match="under its adapters is not at hand: it lies in no run"):
        export_checkpoint(bare, tmp_path / "adapters", adapters=True)
    assert not (tmp_path / "adapters").exists()

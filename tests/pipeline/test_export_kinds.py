"""Exports of reward models, of other architectures, and of what cannot be exported: the right class, the same numbers.

Why this matters: Transformers draws what it does not find in a checkpoint at random and says so in a log that nobody
reads; a judge without its head then scores noise.

Not exercised here: what a checkpoint was made from (test_export_origin.py), trained runs (test_export.py).
"""

from __future__ import annotations

import errno
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests.models.families import random_model, saved
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from r1kit.config import ModelSettings
from r1kit.models.checkpoint import CheckpointError, read_config
from r1kit.models.heads import ValueModel
from r1kit.models.loading import load_model, write_model
from r1kit.models.lora import LoRAModel
from r1kit.models.reward_model import RewardModel, RewardModelSpec, weight_files_sha256, write_reward_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline import export_proofs
from r1kit.pipeline.export import export_checkpoint, find_model
from r1kit.pipeline.export_adapters import beside_peft, write_adapters
from r1kit.pipeline.export_origin import Origin
from r1kit.pipeline.export_proofs import TOLERANCE, beside_transformers, spread_tokens
from r1kit.pipeline.files import RunError
from r1kit.records import Message
from r1kit.training.checkpoints import read_safetensors, save_file
from r1kit.training.optim import FlatParameters

SHAPE = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=16)
ITEM = ((Message("text", "Q:3 4>7\n"),), Message("assistant", "3+4=7 yes"))


def language_model(directory: Path, seed: int = 0, family: str = "tiny") -> Path:
    tokenizer = build_tiny_tokenizer()
    if family == "tiny":
        write_model(make_tiny(SHAPE, tokenizer, seed=seed), tokenizer, directory)
    else:
        sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "head_dim": 8} if family == "qwen3_moe" else {}
        experts = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16} if sizes else {}
        made = random_model(family, seed, **{"vocab_size": len(tokenizer), **sizes, **experts})
        saved(made, directory)
        tokenizer.save_pretrained(directory)
    return directory


def judge(directory: Path, method: str, family: str = "tiny") -> Path:
    trunk = load_model(language_model(directory.parent / "trunk", family=family))
    head = ValueModel(trunk, bias=method == "process").draw_head(3)
    if head.bias is not None:
        torch.nn.init.constant_(head.bias, 0.4)
    write_reward_model(head, build_tiny_tokenizer(), directory, RewardModelSpec(method))  # type: ignore[arg-type]
    return directory


@pytest.mark.parametrize("family", ["tiny", "gpt_neox", "qwen3_moe"])
@pytest.mark.parametrize(
    ("method", "kind"),
    [("pairwise", AutoModelForSequenceClassification), ("process", AutoModelForTokenClassification)],
)
def test_judges_are_exported_as_classifiers(method: str, kind: Any, family: str, tmp_path: Path) -> None:
    source = judge(tmp_path / "judge", method, family)
    made = export_checkpoint(source, tmp_path / "plain")
    assert made.gap < TOLERANCE
    assert made.unit == "in values"
    plain = kind.from_pretrained(tmp_path / "plain")
    assert any(f.found.startswith(f"{type(plain).__name__} loads all") for f in made.findings)
    one, other = (RewardModel.load(path) for path in (source, tmp_path / "plain"))
    assert one.score([ITEM]) == other.score([ITEM])
    head = plain.score if hasattr(plain, "score") else plain.classifier
    assert torch.equal(head.weight, one.model.weight)


@pytest.mark.parametrize("kind", ["olmo2", "judge of gpt_neox", "judge"])
def test_the_trainers_weights_are_held_against_any_kind(kind: str, tmp_path: Path) -> None:
    family, source = kind.rpartition(" ")[2].replace("judge", "tiny"), tmp_path / "source"
    model: Any = load_model(language_model(tmp_path / "trunk", family=family), dtype="bfloat16")
    if "judge" in kind:
        model = ValueModel(model).draw_head(3)
        write_reward_model(model, build_tiny_tokenizer(), source, RewardModelSpec("pairwise"))
    else:
        write_model(model, build_tiny_tokenizer(), source)
    # An eighth of a step of bfloat16 away: rounded they are the same.
    master = FlatParameters(model).master * (1 + 2**-12)
    save_file({"master": master}, source / "trainer.safetensors")
    findings = export_checkpoint(source, tmp_path / "plain").findings
    assert "trainer: its float32 weights, rounded to bfloat16, are these bit for bit" in [
        finding.sentence() for finding in findings
    ]
    master[-1] += 1
    save_file({"master": master}, source / "trainer.safetensors")
    with pytest.raises(RunError, match="are not those that the trainer of this checkpoint holds"):
        export_checkpoint(source, tmp_path / "other")


def test_a_judge_without_its_head_is_no_export(tmp_path: Path) -> None:
    source = judge(tmp_path / "judge", "pairwise")
    tensors = read_safetensors(source / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no tensor 'score\.weight'"):
        export_checkpoint(source, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_an_implicit_judge_finds_its_reference_from_where_it_lies_now(tmp_path: Path) -> None:
    reference = language_model(tmp_path / "reference", seed=5)
    source = tmp_path / "runs" / "judge"
    spec = RewardModelSpec("implicit", reference=str(reference), reference_sha256=weight_files_sha256(reference))
    write_reward_model(make_tiny(SHAPE, build_tiny_tokenizer(), seed=1), build_tiny_tokenizer(), source, spec)
    made = export_checkpoint(source, tmp_path / "plain")
    assert made.unit == "nats"
    one, other = (RewardModel.load(path) for path in (source, tmp_path / "plain"))
    np.testing.assert_array_equal(one.score([ITEM]), other.score([ITEM]))
    reference.rename(tmp_path / "away")
    gone = [f for f in export_checkpoint(source, tmp_path / "second").findings if f.check == "reference"]
    assert "is gone" in gone[0].sentence()
    language_model(reference, seed=6)
    with pytest.raises(RunError, match="not the reference that"):
        export_checkpoint(source, tmp_path / "third")


@pytest.mark.parametrize("family", ["olmo2", "gpt_neox", "qwen3_moe"])
def test_other_architectures_are_compared_as_strongly(family: str, tmp_path: Path) -> None:
    source = language_model(tmp_path / "source", family=family)
    made = export_checkpoint(source, tmp_path / "plain")
    assert made.gap < TOLERANCE
    name = read_config(source)["architectures"][0]
    assert any(f.found.startswith(f"{name} loads all") for f in made.findings)


@pytest.mark.parametrize("family", ["tiny", "olmo2"])
@pytest.mark.parametrize("matrix", ["get_input_embeddings", "get_output_embeddings"])
def test_one_row_of_the_vocabulary_is_enough_to_be_found(family: str, matrix: str, tmp_path: Path) -> None:
    source = language_model(tmp_path / "source", family=family)
    load, rows = export_proofs._plain, len(build_tiny_tokenizer())

    def check(row: int) -> None:
        def other(ours: Any, directory: Path) -> Any:
            model, loading = load(ours, directory)
            with torch.no_grad():
                getattr(model, matrix)().weight[row] += 0.1
            return model, loading

        with patch.object(export_proofs, "_plain", other):
            beside_transformers(source, source)

    for row in (0, rows // 2, rows - 1):
        with pytest.raises(RunError, match="differ between Transformers and the trainer"):
            check(row)
        with (
            patch.object(export_proofs, "_same_tensors", lambda *_: 0),
            pytest.raises(RunError, match="in log-probs"),
        ):
            check(row)


@pytest.mark.parametrize(("vocabulary", "length"), [(48, 64), (203, 64), (151_936, 64), (5, 8)])
def test_the_text_reaches_over_the_whole_vocabulary(vocabulary: int, length: int) -> None:
    ids = sorted(set(spread_tokens(vocabulary, length).flatten().tolist()))
    assert (ids[0], ids[-1]) == (0, vocabulary - 1)
    widest = max(b - a for a, b in pairwise(ids))
    assert widest <= -(-vocabulary // (8 * length - 1))


def test_what_transformers_would_draw_at_random_is_named(tmp_path: Path) -> None:
    source, name = language_model(tmp_path / "source", family="olmo2"), "model.layers.1.mlp.up_proj.weight"
    damaged = shutil.copytree(source, tmp_path / "damaged")
    tensors = read_safetensors(source / "model.safetensors")
    del tensors[name]
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=rf"finds no {name} \(1 missing\)"):
        beside_transformers(source, damaged)
    with pytest.raises(CheckpointError, match=f"no tensor '{name}'"):
        export_checkpoint(damaged, tmp_path / "plain")


def test_what_transformers_leaves_unread_is_said(tmp_path: Path) -> None:
    source = language_model(tmp_path / "source", family="olmo2")
    tensors = read_safetensors(source / "model.safetensors")
    save_file(tensors | {"extra": torch.ones(1)}, source / "model.safetensors", metadata={"format": "pt"})
    made = export_checkpoint(source, tmp_path / "plain")
    assert any("leaves extra (1 tensors) unread" in finding.found for finding in made.findings)


def test_an_architecture_that_cannot_be_run_here_is_a_message(tmp_path: Path) -> None:
    language_model(tmp_path / "tiny")
    source = saved(random_model("granite", logits_scaling=8.0), tmp_path / "granite")
    for file in (tmp_path / "tiny").glob("tokenizer*"):
        shutil.copy2(file, source)
    with pytest.raises(CheckpointError, match="choose another architecture"):
        export_checkpoint(source, tmp_path / "plain")


def test_adapters_alone_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match="holds adapters of PEFT, not a model: merge them"):
        find_model(tmp_path)


@pytest.mark.parametrize("family", ["tiny", "olmo2"])
def test_a_truncated_file_leaves_nothing(family: str, tmp_path: Path) -> None:
    source = language_model(tmp_path / "source", family=family)
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[:-40])
    (tmp_path / "plain").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        export_checkpoint(source, tmp_path / "plain")
    # An empty directory of the user's own stays, and is empty.
    assert list((tmp_path / "plain").iterdir()) == []


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    source, tokenizer = language_model(tmp_path / "source"), build_tiny_tokenizer()
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(source)
    for name in source.glob("tokenizer_fingerprint.json"):
        name.unlink()
    with pytest.raises(CheckpointError, match="this is not the model's tokenizer"):
        export_checkpoint(source, tmp_path / "plain")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    source, real = language_model(tmp_path / "source"), shutil.copy2

    def full(file: Path, copy: Path) -> None:
        if file.name == "tokenizer.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(copy))
        real(file, copy)

    with patch("r1kit.pipeline.export.shutil.copy2", full), pytest.raises(OSError, match="No space left"):
        export_checkpoint(source, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_an_export_of_an_export_is_its_own(tmp_path: Path) -> None:
    source = language_model(tmp_path / "source")
    templates = source / "additional_chat_templates"
    templates.mkdir()
    (templates / "tools.jinja").write_text("{{ messages }}")
    export_checkpoint(source, tmp_path / "first")
    export_checkpoint(tmp_path / "first", tmp_path / "second")
    lineage = json.loads((tmp_path / "second" / "lineage.json").read_text())
    assert lineage["source"] == str(tmp_path / "first")
    assert "additional_chat_templates/tools.jinja" in lineage["files"]
    with pytest.raises(RunError, match="choose another destination"):
        export_checkpoint(source, tmp_path / "first")


def test_adapters_of_another_architecture_load_in_peft(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    base = language_model(tmp_path / "base", family="olmo2")
    adapted = LoRAModel(load_model(base), rank=2, alpha=3.0)
    for parameter in adapted.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    (tmp_path / "adapters").mkdir()
    write_adapters(adapted, base, tmp_path / "adapters")
    gap, finding = beside_peft(adapted, Origin("model", base), tmp_path / "adapters")
    assert gap < TOLERANCE
    assert finding.found.startswith("it loads 14 adapted matrices")


def test_rounding_of_a_model_that_is_sure_of_itself_is_no_difference(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    model = make_tiny(SHAPE, tokenizer, seed=0)
    with torch.no_grad():
        model.final_norm.mul_(1000.0)  # log-probs of hundreds of nats
    write_model(model, tokenizer, tmp_path / "sure")
    gap, _ = beside_transformers(tmp_path / "sure", tmp_path / "sure")
    assert TOLERANCE < gap < 0.01
    shutil.copytree(tmp_path / "sure", tmp_path / "other")
    config = read_config(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(
        json.dumps({**config, "rope_theta": 500.0, "rope_parameters": None})
    )
    with pytest.raises(RunError, match="Transformers and r1kit differ by"):
        beside_transformers(tmp_path / "sure", tmp_path / "other")

"""An export is held against every model that it was made from, wherever that lies now, or says that it was not.

Why this matters: a check that is silently left out is taken for one that passed. A base behind a variable, one with
fewer tokens, one of another precision, and the models that went into a merge all have to be found and compared.

Not exercised here: runs that were really trained (test_export.py), what Transformers makes of a copy
(test_export_kinds.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1kit.config import ModelSettings
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.merge_methods import Recipe, sole_model
from r1kit.models.merging import merge_checkpoints
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.models.vocabulary import add_tokens, fit_vocabulary
from r1kit.pipeline.export import LINEAGE, Export, export_checkpoint
from r1kit.pipeline.export_origin import Origin, made
from r1kit.pipeline.export_proofs import beside_origin
from r1kit.pipeline.files import RunError, plain
from r1kit.pipeline.lineage import hash_model

SHAPE = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=16)
SFT = "sft: {{kind: sft, model: '{}', data: [{{path: /d.jsonl}}]}}"


def model(seed: int, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    tokenizer = build_tiny_tokenizer()
    write_model(make_tiny(SHAPE, tokenizer, seed=seed).to(dtype), tokenizer, directory)
    return directory


def run_of(root: Path, stage: str, lineage: dict[str, Any] | None = None) -> Path:
    """A run of one stage, which made a checkpoint; the directory for that."""
    name = stage.partition(":")[0]
    root.mkdir(parents=True)
    (root / "recipe.resolved.yaml").write_text(f"name: a\ntask: countdown\nstages:\n  {stage}\n")
    (root / LINEAGE).write_text(json.dumps(lineage or {}))
    return root / "checkpoints" / name / "step-000001"


def said(export: Export, check: str) -> str:
    (sentence,) = [f.sentence() for f in export.findings if f.check == check]
    return sentence


@pytest.mark.parametrize("text", ["$BASES/base", "${BASES}/base", "~/base", "base", "HERE/base"])
def test_a_base_is_found_as_the_stage_found_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model(0, tmp_path / "base")
    monkeypatch.setenv("BASES", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    lineage = {"history": [{"directory": str(tmp_path)}]}
    untrained = model(0, run_of(tmp_path / "run", SFT.format(text.replace("HERE", str(tmp_path))), lineage))
    assert [origin.path for origin in made(untrained).origins] == [base]
    with pytest.raises(RunError, match="nothing was learned"):
        export_checkpoint(untrained, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_a_variable_that_is_unset_today_is_in_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model(0, tmp_path / "base")
    monkeypatch.delenv("BASES", raising=False)
    noted = {"stages": {"sft": {"input": {"path": str(base), "sha256": hash_model(base)}}}}
    checkpoint = model(0, run_of(tmp_path / "run", SFT.format("$BASES/base"), noted))
    (origin,) = made(checkpoint).origins
    assert (origin.path, origin.unusable) == (base, "")


@pytest.mark.parametrize(
    ("sha256", "there", "why"),
    [("0" * 64, True, "has changed since stage sft read it"), (None, False, "is gone")],
    ids=["changed", "gone"],
)
def test_a_base_that_cannot_be_compared_is_said(sha256: str | None, there: bool, why: str, tmp_path: Path) -> None:
    base = model(0, tmp_path / "base") if there else tmp_path / "base"
    noted = {"stages": {"sft": {"input": {"path": str(base), "sha256": sha256}}}}
    checkpoint = model(0, run_of(tmp_path / "run", SFT.format(base), noted))
    assert said(export_checkpoint(checkpoint, tmp_path / "plain"), "model").startswith(
        f"model: not compared: {base} {why}; --base DIR"
    )
    checks = json.loads((tmp_path / "plain" / LINEAGE).read_text())["checks"]
    assert [check["made"] for check in checks if check["check"] == "model"] == [False]
    with pytest.raises(RunError, match="nothing was learned"):
        export_checkpoint(checkpoint, tmp_path / "other", model(0, tmp_path / "copy"))


def test_outside_a_run_no_base_is_known_until_it_is_named(tmp_path: Path) -> None:
    base, bare = model(0, tmp_path / "base"), model(1, tmp_path / "bare")
    assert "not compared: it lies in no run" in said(export_checkpoint(bare, tmp_path / "plain"), "base")
    named = export_checkpoint(bare, tmp_path / "named", base)
    # Gains are 1 in both.
    assert said(named, "model") == f"model: 8 of 11 tensors differ from {base}"
    lineage = json.loads((tmp_path / "named" / LINEAGE).read_text())
    assert lineage["made_from"] == [{"setting": "model", "path": str(base), "sha256": hash_model(base)}]


def test_a_base_in_another_precision_is_the_same_base(tmp_path: Path) -> None:
    base, rounded = model(0, tmp_path / "base"), model(0, tmp_path / "rounded", torch.bfloat16)
    with pytest.raises(RunError, match="nothing was learned"):
        export_checkpoint(rounded, tmp_path / "plain", base)


@pytest.mark.parametrize("spare", [0, 4], ids=["the vocabulary grew", "spare rows"])
def test_new_tokens_are_no_learning(spare: int, tmp_path: Path) -> None:
    base = model(0, tmp_path / "base")
    tokenizer = load_tokenizer(base)
    grown = load_model(base)
    assert isinstance(grown, Decoder)
    if spare:
        rows = len(tokenizer) + spare
        grown.embedding = torch.nn.Parameter(torch.cat([grown.embedding, torch.zeros(spare, 16)]).detach())
        grown.config = replace(grown.config, vocab_size=rows)
        write_model(grown, tokenizer, base)
    fit_vocabulary(grown, tokenizer, add_tokens(tokenizer, ["<new>"]))
    write_model(grown, tokenizer, tmp_path / "grown")
    with pytest.raises(RunError, match="nothing was learned"):
        export_checkpoint(tmp_path / "grown", tmp_path / "plain", base)
    with torch.no_grad():
        grown.embedding[5] += 1
    write_model(grown, tokenizer, tmp_path / "grown")
    found = said(export_checkpoint(tmp_path / "grown", tmp_path / "plain", base), "model")
    assert found == f"model: 1 of 11 tensors differ from {base}, the rows of 1 new tokens left out"


def test_a_base_saved_without_prefixes_is_compared(tmp_path: Path) -> None:
    from r1kit.training.checkpoints import read_safetensors, save_file

    base, trained = model(0, tmp_path / "base"), model(0, tmp_path / "trained")
    tensors = read_safetensors(base / "model.safetensors")
    bare = {name.removeprefix("model."): tensor.clone() for name, tensor in tensors.items()}
    save_file(bare | {"rotary.inv_freq": torch.ones(2)}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match="nothing was learned"):
        beside_origin(trained, trained, Origin("model", base))
    save_file({"other": torch.ones(2)}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match="no tensor in common"):
        beside_origin(trained, trained, Origin("model", base))


def test_another_tokenizer_than_the_bases_is_refused(tmp_path: Path) -> None:
    base, trained = model(0, tmp_path / "base"), model(1, tmp_path / "trained")
    text = (trained / "tokenizer.json").read_text()
    a, b = (load_tokenizer(base).convert_tokens_to_ids(token) for token in "34")
    swapped = text.replace(f'"3": {a}', f'"3": {b}', 1).replace(f'"4": {b}', f'"4": {a}', 1)
    assert swapped != text
    (trained / "tokenizer.json").write_text(swapped)
    # A checkpoint of others has none; with it the exchange is found sooner.
    (trained / "tokenizer_fingerprint.json").unlink(missing_ok=True)
    with pytest.raises(RunError, match=rf"gives '3' the id {b}, that of .*base {a} \(2 tokens differ\)"):
        export_checkpoint(trained, tmp_path / "plain", base)
    assert not (tmp_path / "plain").exists()


def merged(tmp_path: Path, recipe: Recipe, parts: Sequence[Path], base: Path | None = None) -> Path:
    """The checkpoint of a run's merge stage, as pipeline/merge.py writes it."""
    stage = (
        f"m: {{kind: merge, method: {recipe.method}, models: [{', '.join(map(str, parts))}], base: {base or 'null'}}}"
    )
    checkpoint = run_of(tmp_path / "run", stage)
    merge_checkpoints(parts, checkpoint, recipe, base=base)
    (checkpoint / "trainer.json").write_text(json.dumps({"merged": [*map(str, parts)], **plain(vars(recipe))}))
    return checkpoint


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [model(i, tmp_path / f"part-{i}") for i in range(3)]


def test_a_merge_differs_from_every_model_that_went_in(parts: list[Path], tmp_path: Path) -> None:
    export = export_checkpoint(merged(tmp_path, Recipe("ties", scale=0.5), parts[:2], parts[2]), tmp_path / "plain")
    for check, path in {"models[0]": parts[0], "models[1]": parts[1], "base": parts[2]}.items():
        assert said(export, check).endswith(f"tensors differ from {path}")
    assert said(export, "trainer") == "trainer: not compared: a merge has none"


def test_a_merge_that_is_one_of_its_models_is_refused_unless_it_was_told_to(parts: list[Path], tmp_path: Path) -> None:
    checkpoint = merged(tmp_path, Recipe("linear", (0.0, 2.0)), parts[:2])
    export = export_checkpoint(checkpoint, tmp_path / "plain")
    assert said(export, "models[0]").endswith(f"differ from {parts[0]}")
    assert said(export, "models[1]") == f"models[1]: equals {parts[1]}, as the merge's settings say"
    state = json.loads((checkpoint / "trainer.json").read_text())
    (checkpoint / "trainer.json").write_text(json.dumps({**state, "weights": [1.0, 1.0]}))
    with pytest.raises(RunError, match=r"equal those of .*part-1"):
        export_checkpoint(checkpoint, tmp_path / "other")
    (checkpoint / "trainer.json").write_text(json.dumps({**state, "weights": [1.0, 0.0]}))
    with pytest.raises(RunError, match=r"differ from .*part-0, which the merge's settings make the whole result"):
        export_checkpoint(checkpoint, tmp_path / "other")


def test_a_change_taken_whole_may_give_its_model_back(parts: list[Path], tmp_path: Path) -> None:
    checkpoint = merged(tmp_path, Recipe("dare", (1.0, 0.0), density=1.0), parts[:2], parts[2])
    origins = {origin.setting: origin for origin in made(checkpoint).origins}
    assert origins["models[0]"].unusable == "the other models have no weight"
    assert not origins["models[1]"].unusable


@pytest.mark.parametrize(
    ("recipe", "sole"),
    [
        (Recipe("linear"), None),
        (Recipe("linear", (0.0, 3.0)), 1),
        (Recipe("linear", (0.0, 3.0), normalise=False), None),
        (Recipe("slerp", t=1.0), 1),
        (Recipe("slerp", t=0.2), None),
        (Recipe("ties", (1.0, 0.0)), None),
    ],
)
def test_the_sole_model_of_a_merge(recipe: Recipe, sole: int | None) -> None:
    assert sole_model(recipe, 2) == sole


def test_stages_that_start_from_nothing_say_so(tmp_path: Path) -> None:
    checkpoint = model(0, run_of(tmp_path / "run", "pre: {kind: pretrain}"))
    assert made(checkpoint).unknown == "stage pre starts from random weights"
    (tmp_path / "run" / "checkpoints" / "pre").rename(tmp_path / "run" / "checkpoints" / "other")
    assert "has no stage other" in made(tmp_path / "run" / "checkpoints" / "other" / "step-000001").unknown

"""Merged checkpoints: the formulas, the files, and what does not fit together.

Why this matters: a merge always loads and always speaks; one with a sign voted wrong or a tokenizer mixed up is only a
worse model. Memory must not grow with the models.

Not exercised here: whether a merge is better than its parts; quantised weights, which are refused.
"""

from __future__ import annotations

import errno
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from r1kit.config.errors import UserError
from r1kit.models import merging
from r1kit.models.checkpoint import CheckpointError, Source, read_hf_state
from r1kit.models.merge_methods import Recipe, describe, merge_tensors
from r1kit.models.merging import merge_checkpoints
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer

from .families import random_model, saved

VOCABULARY = len(build_tiny_tokenizer())
EXAMPLES = settings(deadline=None, derandomize=True, max_examples=25)


def ties_oracle(tensors: list[np.ndarray], base: np.ndarray, weights: list[float], density: float) -> np.ndarray:
    """One entry at a time: trim, vote, average those that agree."""
    changes = [(t - base).ravel() for t in tensors]
    for change in changes:
        keep = max(1, round(density * len(change)))
        border = np.sort(np.abs(change))[len(change) - keep]
        change[np.abs(change) < border] = 0.0
    out = base.ravel().copy()
    for k in range(len(out)):
        total = sum(w * c[k] for w, c in zip(weights, changes, strict=True))
        pairs = [(w, c[k]) for w, c in zip(weights, changes, strict=True)]
        voters = [(w, v) for w, v in pairs if v != 0 and np.sign(v) == np.sign(total)]
        if voters:
            out[k] += sum(w * v for w, v in voters) / sum(w for w, _ in voters)
    return out.reshape(base.shape)


def tensors(seed: int, count: int, shape: tuple[int, ...] = (5, 7)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_ties_by_hand() -> None:
    """Changes (4, 1, -2) and (2, -3, -1) of which two thirds are kept: (4, 0, -2) and (2, -3, 0); all agree."""
    base = torch.zeros(3)
    models = [torch.tensor([4.0, 1.0, -2.0]), torch.tensor([2.0, -3.0, -1.0])]
    merged = merge_tensors(Recipe("ties", density=2 / 3), "w", models, base)
    assert merged.tolist() == [3.0, -3.0, -2.0]
    # Where two changes disagree the heavier one stands alone.
    models = [torch.tensor([4.0]), torch.tensor([-3.0])]
    assert merge_tensors(Recipe("ties", density=1.0), "w", models, torch.zeros(1)).tolist() == [4.0]
    weighted = Recipe("ties", density=1.0, weights=(1.0, 2.0))
    assert merge_tensors(weighted, "w", models, torch.zeros(1)).tolist() == [-3.0]
    assert merge_tensors(Recipe("ties", density=1.0, scale=0.5), "w", models, torch.zeros(1)).tolist() == [2.0]


@EXAMPLES
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 1.0), st.integers(0, 3))
def test_ties_equals_the_oracle(seed: int, count: int, density: float, zeros: int) -> None:
    base, *models = tensors(seed, count + 1)
    models[0][:zeros] = base[:zeros]
    weights = [1.0 + i for i in range(count)]
    got = merge_tensors(Recipe("ties", weights=tuple(weights), density=density), "w", models, base)
    want = ties_oracle([m.numpy() for m in models], base.numpy(), weights, density)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@EXAMPLES
@given(st.integers(0, 10**6), st.lists(st.floats(0.1, 3), min_size=1, max_size=4), st.booleans())
def test_linear_is_the_weighted_mean(seed: int, weights: list[float], normalise: bool) -> None:
    models = tensors(seed, len(weights))
    got = merge_tensors(Recipe("linear", weights=tuple(weights), normalise=normalise), "w", models, None)
    want = sum(w * m.double() for w, m in zip(weights, models, strict=True)) / (sum(weights) if normalise else 1.0)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_model_alone_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    first, second = (m.to(dtype) for m in tensors(0, 2))
    assert torch.equal(merge_tensors(Recipe("linear", weights=(1.0, 0.0)), "w", [first, second], None), first)
    assert torch.equal(merge_tensors(Recipe("linear", weights=(0.0, 3.0)), "w", [first, second], None), second)
    assert torch.equal(merge_tensors(Recipe("slerp", t=0.0), "w", [first, second], None), first)
    assert torch.equal(merge_tensors(Recipe("slerp", t=1.0), "w", [first, second], None), second)
    assert merge_tensors(Recipe("slerp"), "w", [first, second], None).dtype == dtype


def test_slerp_by_hand() -> None:
    """Half way between (2, 0) and (0, 2) lies (2, 2) / sqrt 2; a third of the way turns by 30 degrees."""
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    half = merge_tensors(Recipe("slerp", t=0.5), "w", [one, other], None)
    assert half.tolist() == pytest.approx([np.sqrt(2), np.sqrt(2)], rel=1e-6)
    third = merge_tensors(Recipe("slerp", t=1 / 3), "w", [one, other], None)
    assert third.tolist() == pytest.approx([2 * np.cos(np.pi / 6), 2 * np.sin(np.pi / 6)], rel=1e-6)


@EXAMPLES
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_slerp_keeps_the_length_of_models_of_one_length(seed: int, t: float) -> None:
    one, other = (m / m.norm() for m in tensors(seed, 2))
    assert merge_tensors(Recipe("slerp", t=t), "w", [one, other], None).norm().item() == pytest.approx(1.0, rel=1e-4)


def test_slerp_of_parallel_and_of_empty_tensors_is_the_straight_line() -> None:
    one = torch.tensor([1.0, 2.0])
    assert merge_tensors(Recipe("slerp", t=0.25), "w", [one, 3 * one], None).tolist() == [1.5, 3.0]
    assert merge_tensors(Recipe("slerp", t=0.25), "w", [torch.zeros(2), one], None).tolist() == [0.25, 0.5]


def test_dare_keeps_the_expectation_and_is_keyed_by_tensor_and_model() -> None:
    base, change = torch.zeros(400, 500), torch.full((400, 500), 0.5)
    recipe = Recipe("dare", density=0.2, seed=3)
    got = merge_tensors(recipe, "a", [change], base)
    assert set(got.unique().tolist()) == {0.0, 2.5}
    # 200,000 draws of 2.5 with chance 0.2: four standard deviations are 0.009.
    assert got.mean().item() == pytest.approx(0.5, abs=0.009)
    assert torch.equal(got, merge_tensors(recipe, "a", [change], base))
    assert not torch.equal(got, merge_tensors(recipe, "b", [change], base))
    assert not torch.equal(got, merge_tensors(Recipe("dare", density=0.2, seed=4), "a", [change], base))
    both = merge_tensors(recipe, "a", [change, change], base)
    assert len(both.unique()) == 3, "two models drop different entries"
    assert both.mean().item() == pytest.approx(0.5, abs=0.009)


@EXAMPLES
@given(st.integers(0, 10**6), st.floats(0.2, 1.0))
def test_dare_at_full_density_is_the_mean_of_the_changes(seed: int, scale: float) -> None:
    base, *models = tensors(seed, 3)
    got = merge_tensors(Recipe("dare", density=1.0, scale=scale), "w", models, base)
    torch.testing.assert_close(got, base + scale * ((models[0] + models[1]) / 2 - base), rtol=1e-4, atol=1e-5)
    ties = merge_tensors(Recipe("ties", density=1.0), "w", models, base)
    dare_ties = merge_tensors(Recipe("dare_ties", density=1.0), "w", models, base)
    torch.testing.assert_close(dare_ties, ties, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two models made from it, one of them in several files."""
    folder = tmp_path_factory.mktemp("models")
    found = []
    for i, options in enumerate(({}, {"max_shard_size": "60KB"}, {})):
        model = random_model("qwen2", seed=i, vocab_size=VOCABULARY)
        found.append(saved(model, folder / f"model-{i}", **options))
        build_tiny_tokenizer().save_pretrained(found[-1])
    assert len(list(found[1].glob("*.safetensors"))) > 1
    return found


RECIPES = [
    Recipe("linear", weights=(0.3, 0.7)),
    Recipe("slerp", t=0.4),
    Recipe("ties", density=0.3),
    Recipe("dare", density=0.4, seed=2),
    Recipe("dare_ties", density=0.4, seed=2),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.method)
@pytest.mark.parametrize("shard_bytes", [merging.SHARD_BYTES, 50_000], ids=["one file", "several files"])
def test_whole_checkpoints_merge_tensor_by_tensor(
    parts: list[Path], tmp_path: Path, recipe: Recipe, shard_bytes: int
) -> None:
    base, one, two = parts
    target = tmp_path / "merged"
    chosen = base if recipe.needs_base else None
    notes = merge_checkpoints([one, two], target, recipe, base=chosen, shard_bytes=shard_bytes)
    assert notes == []
    states = [read_hf_state(path) for path in (base, one, two)]
    got = read_hf_state(target)
    assert got.keys() == states[1].keys()
    for name, tensor in got.items():
        want = merge_tensors(recipe, name, [s[name].clone() for s in states[1:]], states[0][name].clone())
        assert torch.equal(tensor, want), name
    assert (target / "model.safetensors.index.json").is_file() == (shard_bytes == 50_000)
    theirs, info = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(theirs.model.norm.weight, got["model.norm.weight"])
    assert json.loads((target / "tokenizer_config.json").read_text())
    assert describe(recipe)["method"] == recipe.method


def test_the_files_of_a_trainer_stay_behind(parts: list[Path], tmp_path: Path) -> None:
    (parts[1] / "trainer.json").write_text("{}")
    try:
        merge_checkpoints(parts[1:], tmp_path / "merged", Recipe())
    finally:
        (parts[1] / "trainer.json").unlink()
    assert not (tmp_path / "merged" / "trainer.json").exists()
    with pytest.raises(UserError, match="exists and is not empty"):
        merge_checkpoints(parts[1:], tmp_path / "merged", Recipe())


def altered(source: Path, target: Path, **changes: Tensor) -> Path:
    """A copy in one file with some tensors replaced."""
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja") and "index" not in file.name:
            target.mkdir(exist_ok=True)
            (target / file.name).write_bytes(file.read_bytes())
    save_file({**read_hf_state(source), **changes}, target / "model.safetensors", metadata={"format": "pt"})
    return target


def fails(models: list[Path], target: Path, match: str, kind: type[Exception] = UserError, **settings: Any) -> None:
    with pytest.raises(kind, match=match):
        merge_checkpoints(models, target, Recipe(**settings))
    assert not target.exists(), "a failed merge left something behind"


def test_models_that_do_not_fit_together_are_refused(parts: list[Path], tmp_path: Path) -> None:
    one, two, target = parts[1], parts[2], tmp_path / "merged"
    other = saved(random_model("llama", vocab_size=VOCABULARY), tmp_path / "llama")
    build_tiny_tokenizer().save_pretrained(other)
    fails([one, other], target, r"not of one architecture: architectures is .*Qwen2.*Llama")
    wide = altered(two, tmp_path / "wide")
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "intermediate_size": 41}))
    fails([one, wide], target, "intermediate_size is 40 and 41")
    fails([one, altered(two, tmp_path / "shape", **{"model.norm.weight": torch.zeros(7)})], target,
          r"model\.norm\.weight is \(7,\) in .* and \(24,\) in")  # fmt: skip
    fails(
        [one, altered(two, tmp_path / "more", extra=torch.zeros(2))],
        target,
        r"model-1 has no tensor extra, which .*more has",
    )
    nan = torch.full((24,), float("nan"))
    fails(
        [one, altered(two, tmp_path / "nan", **{"model.norm.weight": nan})],
        target,
        r"model\.norm\.weight is not finite",
    )
    whole = altered(two, tmp_path / "int", counts=torch.ones(2, dtype=torch.int64))
    less = altered(one, tmp_path / "int2", counts=torch.zeros(2, dtype=torch.int64))
    fails([less, whole], target, "counts holds whole numbers that differ")
    eight = altered(two, tmp_path / "fp8", **{"model.norm.weight": torch.zeros(24).to(torch.float8_e4m3fn)})
    fails([eight, eight], target, "quantised weights cannot be merged")
    fails([one, two], target, "3 weights for 2 models", weights=(1.0, 1.0, 1.0))
    fails([one, two], target, "add up to 0", weights=(1.0, -1.0))
    fails([one, two, two], target, "slerp goes between two models, found 3", method="slerp")


def test_another_tokenizer_is_refused_and_another_template_told(parts: list[Path], tmp_path: Path) -> None:
    other = altered(parts[2], tmp_path / "other")
    tokenizer: PreTrainedTokenizerFast = build_tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(other)
    (note,) = merge_checkpoints([parts[1], other], tmp_path / "told", Recipe())
    assert note.startswith("chat_template differs between")
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(other)
    fails([parts[1], other], tmp_path / "merged", r"different tokenizers \(1 tokens differ, such as '<extra>'\)")


def test_damaged_files_are_named_and_leave_nothing(parts: list[Path], tmp_path: Path) -> None:
    cut = altered(parts[2], tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    fails(
        [parts[1], cut],
        tmp_path / "merged",
        r"cut/model\.safetensors: cannot be read .* damaged or truncated",
        CheckpointError,
    )
    weights.unlink()
    fails([parts[1], cut], tmp_path / "merged", r"no such file; the checkpoint is incomplete", CheckpointError)
    (cut / "model.safetensors.index.json").write_text("{")
    fails([parts[1], cut], tmp_path / "merged", r"index\.json: not valid JSON", CheckpointError)
    (cut / "config.json").unlink()
    fails([parts[1], cut], tmp_path / "merged", r"config\.json: no such file", CheckpointError)


def test_a_full_disk_leaves_nothing(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merging, "_merge_one", full)
    fails(parts[1:], tmp_path / "merged", "No space left", OSError)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.method)
def test_no_more_is_held_than_one_tensor_of_each_model(
    parts: list[Path], tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/merging.md says what a process holds with models of hundreds of megabytes."""
    held: list[weakref.ref[Tensor]] = []
    own, most = Source.tensor, 0

    def counted(source: Source, name: str) -> Tensor:
        nonlocal most
        tensor = own(source, name)
        held.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in held))
        return tensor

    monkeypatch.setattr(Source, "tensor", counted)
    base = parts[0] if recipe.needs_base else None
    merge_checkpoints(parts[1:], tmp_path / "merged", recipe, base=base)
    assert len(held) > 40
    assert most == (3 if recipe.needs_base else 2)

"""Merging checkpoints of one architecture into one, tensor by tensor: memory is a few times the largest tensor.

Tensors are read from and written to safetensors files one at a time; models/merge_methods.py has the formulas. The
result has the dtypes, config and tokenizer of the first model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from r1kit.config.errors import UserError
from r1kit.models.checkpoint import INDEX, Source, read_config
from r1kit.models.loading import load_tokenizer
from r1kit.models.merge_methods import Recipe, merge_tensors
from r1kit.models.vocabulary import differing_tokens

# Keys of config.json that do not change what the weights mean.
FREE_KEYS = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range"}
FREE_KEYS |= {"bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout"}
SHARD_BYTES = 5 << 30
# Config, tokenizer and templates go with the merge; weights' index and trainer's state do not.
TEXT_FILES = (".json", ".jinja", ".txt", ".model")
LEFT_OUT = (INDEX, "trainer.json")


def merge_checkpoints(
    models: Sequence[Path], target: Path, recipe: Recipe, *, base: Path | None = None, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write the merge of checkpoint directories to `target`, new or empty; what a person should know of it.

    Raises UserError where models do not fit together, CheckpointError where one cannot be read. Nothing is left at
    `target` where it fails.
    """
    everything = [*models, *([base] if base is not None else [])]
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} exists and is not empty: choose another directory")
    notes = check_alike(everything, recipe)
    target.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(Source(path)) for path in everything]
            names = _same_tensors(everything, sources)
            for number, shard in enumerate(_shards(sources[0], names, shard_bytes)):
                _write_shard(target, number, shard, sources, recipe, len(models))
        _finish(models[0], target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return notes


def check_alike(models: Sequence[Path], recipe: Recipe) -> list[str]:
    """UserError where configs, tokenizers or the recipe do not fit the models; notes on what differs and may."""
    if recipe.method == "slerp" and len(models) != 2:
        raise UserError(f"slerp goes between two models, found {len(models)}: use linear, ties or dare")
    if recipe.weights is not None and len(recipe.weights) != len(models) - recipe.needs_base:
        raise UserError(
            f"{len(recipe.weights)} weights for {len(models) - recipe.needs_base} models: give one for each"
        )
    if recipe.weights is not None and recipe.normalise and not sum(recipe.weights) > 0:
        raise UserError(f"weights {list(recipe.weights)} add up to {sum(recipe.weights):g}: a mean needs more than 0")
    first, notes = models[0], []
    config, tokenizer = read_config(first), load_tokenizer(first)
    for other in models[1:]:
        theirs = read_config(other)
        differing = [
            f"{key} is {config.get(key)!r} and {theirs.get(key)!r}"
            for key in sorted({*config, *theirs} - FREE_KEYS)
            if config.get(key) != theirs.get(key)
        ]
        if differing:
            raise UserError(
                f"{first} and {other} are not of one architecture: {'; '.join(differing[:4])}; only models made from "
                "one base can be merged"
            )
        other_tokenizer = load_tokenizer(other)
        if unlike := differing_tokens(tokenizer, other_tokenizer):
            raise UserError(
                f"{first} and {other} have different tokenizers ({unlike}): a row of the embedding would mean two "
                "things"
            )
        for what in ("chat_template", "eos_token"):
            if getattr(tokenizer, what) != getattr(other_tokenizer, what):
                notes.append(f"{what} differs between {first} and {other}: the first model's is kept")
    return notes


def _same_tensors(models: Sequence[Path], sources: Sequence[Source]) -> list[str]:
    """Names in the order of the first model. UserError where another has other tensors or shapes."""
    names = sorted(sources[0].files)
    for path, source in zip(models[1:], sources[1:], strict=True):
        odd = sorted(set(names) ^ set(source.files))
        if odd:
            has, lacks = (models[0], path) if odd[0] in sources[0].files else (path, models[0])
            raise UserError(
                f"{lacks} has no tensor {odd[0]}, which {has} has ({len(odd)} differ): not one architecture"
            )
        for name in names:
            if source.shape(name) != sources[0].shape(name):
                raise UserError(
                    f"{name} is {source.shape(name)} in {path} and {sources[0].shape(name)} in {models[0]}: only "
                    "models of one shape can be merged"
                )
    return names


_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def _size(source: Source, name: str) -> int:
    dtype = source.dtype(name)
    if dtype not in _BYTES:
        raise UserError(f"{source.directory}: {name} is of type {dtype}; quantised weights cannot be merged")
    return torch.Size(source.shape(name)).numel() * _BYTES[dtype]


def _shards(source: Source, names: Sequence[str], limit: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name in names:
        if shard and size + _size(source, name) > limit:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _size(source, name)
    yield shard


def _write_shard(
    target: Path, number: int, names: Sequence[str], sources: Sequence[Source], recipe: Recipe, models: int
) -> None:
    """One safetensors file, its tensors written as they are made: header first, as the format wants it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        end = offset + _size(sources[0], name)
        shape, dtype = list(sources[0].shape(name)), sources[0].dtype(name)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (target / f"part-{number:05d}.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_merge_one(recipe, name, sources, models).contiguous().view(-1).view(torch.uint8).numpy().data)


def _merge_one(recipe: Recipe, name: str, sources: Sequence[Source], models: int) -> Tensor:
    """The merge of one tensor, read here so that nothing of it outlives the writing of it. The base comes last."""
    tensors = [source.tensor(name) for source in sources[:models]]
    base = sources[models].tensor(name) if models < len(sources) else None
    if not tensors[0].is_floating_point():
        if any(not torch.equal(tensors[0], other) for other in tensors[1:]):
            raise UserError(f"{name} holds whole numbers that differ between the models: it cannot be merged")
        return tensors[0]
    merged = merge_tensors(recipe, name, tensors, base)
    if not bool(merged.isfinite().all()):
        raise UserError(f"{name} is not finite once it is merged: one of the models is damaged, or scale is too large")
    return merged


def _finish(first: Path, target: Path) -> None:
    """Names of the weight files as Transformers looks for them, and everything else from the first model."""
    parts = sorted(target.glob("part-*.safetensors"))
    names = ["model.safetensors"]
    if len(parts) > 1:
        names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    placed: dict[str, str] = {}
    for part, name in zip(parts, names, strict=True):
        with safe_open(part, framework="pt") as handle:
            placed |= dict.fromkeys(handle.keys(), name)
        part.rename(target / name)
    if len(parts) > 1:
        size = sum((target / name).stat().st_size for name in names)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(placed.items()))}
        (target / INDEX).write_text(json.dumps(index, indent=1))
    for path in sorted(first.iterdir()):
        if path.is_file() and path.suffix in TEXT_FILES and path.name not in LEFT_OUT:
            shutil.copy2(path, target / path.name)
    extra = first / "additional_chat_templates"
    if extra.is_dir():
        shutil.copytree(extra, target / extra.name)

"""Merging checkpoints of one architecture into one, tensor by tensor: memory is a few times the largest tensor.

    linear      the weighted mean (model soups: Wortsman et al. 2022, arXiv:2203.05482)
    slerp       along the arc between two models (Shoemake 1985, "Animating rotation with quaternion curves")
    ties        changes from a base: the largest kept, their signs voted on, those that agree averaged
                (Yadav et al. 2023, arXiv:2306.01708)
    dare        changes from a base: dropped at random, the rest scaled up, summed (Yu et al. 2023, arXiv:2311.03099)
    dare_ties   DARE's dropping in place of TIES' trimming

All arithmetic is in float32 and per tensor, trimming too, where the TIES paper ranks the whole model at once. Tensors
are read from and written to safetensors files one at a time; the result has the dtypes, config and tokenizer of the
first model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from r1kit.config.errors import UserError
from r1kit.models.checkpoint import CheckpointError, read_config
from r1kit.models.loading import load_tokenizer

Method = Literal["linear", "slerp", "ties", "dare", "dare_ties"]
# Keys of config.json that do not change what the weights mean.
FREE_KEYS = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range"}
FREE_KEYS |= {"bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout"}
# Models closer than this (cosine) are interpolated on the straight line: the arc's formula divides by its sine.
COLLINEAR = 0.9995
SHARD_BYTES = 5 << 30
# Entries merged at a time: temporaries stay small. DARE's choice of entries depends on it.
CHUNK = 1 << 20
# Config, tokenizer and templates go with the merge; weights' index and trainer's state do not.
TEXT_FILES = (".json", ".jinja", ".txt", ".model")
LEFT_OUT = ("model.safetensors.index.json", "trainer.json")


@dataclass(frozen=True)
class Recipe:
    """How to merge. `weights`: one for each model (None: equal); for a mean they are divided by their sum where
    `normalise`. `t`: slerp's place, 0 the first model, 1 the second. `density`: share of the changes kept. `scale`:
    factor of the merged change. `seed` keys DARE's choice of entries."""

    method: Method = "linear"
    weights: tuple[float, ...] | None = None
    normalise: bool = True
    t: float = 0.5
    density: float = 0.5
    scale: float = 1.0
    seed: int = 0

    @property
    def needs_base(self) -> bool:
        return self.method not in ("linear", "slerp")


# chunk(part): the merged entries of a slice of the flat tensor, float32.
Chunk = Callable[[slice], Tensor]


def merge_tensors(recipe: Recipe, name: str, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor:
    """The tensor `name` merged, in the dtype of the first: N tensors of one shape and the base's, of any shape.

    A model of weight 1 whose fellows have weight 0, and slerp at 0 and at 1, give that model's tensor bit for bit.
    Beside its inputs and its result it holds one tensor more at most.
    """
    flat = [t.reshape(-1) for t in tensors]
    weights = recipe.weights or (1.0,) * len(tensors)
    total = sum(weights) if recipe.normalise else 1.0
    alone = _alone(recipe, [w / total for w in weights])
    if alone is not None:
        return tensors[alone].to(tensors[0].dtype)
    if recipe.method == "linear":
        chunk = _linear(flat, [w / total for w in weights])
    elif recipe.method == "slerp":
        chunk = _slerp(flat[0], flat[1], recipe.t)
    else:
        assert base is not None
        start = base.reshape(-1)
        changes = (
            [_trimmed(t, start, recipe.density) for t in flat]
            if recipe.method == "ties"
            else [_dropped(t, start, recipe.density, _key(recipe.seed, name, i)) for i, t in enumerate(flat)]
        )
        shares = [w / total for w in weights]
        joined = _summed(changes, shares) if recipe.method == "dare" else _agreed(changes, weights)
        chunk = _on_base(start, joined, recipe.scale)
    out = torch.empty_like(flat[0])
    for begin in range(0, len(out), CHUNK):
        part = slice(begin, begin + CHUNK)
        out[part] = chunk(part)
    return out.view(tensors[0].shape)


def _alone(recipe: Recipe, shares: Sequence[float]) -> int | None:
    """The one model that is the whole result, None where several are mixed."""
    if recipe.method == "slerp":
        return int(recipe.t) if recipe.t in (0.0, 1.0) else None
    used = [i for i, share in enumerate(shares) if share]
    return used[0] if recipe.method == "linear" and len(used) == 1 and shares[used[0]] == 1.0 else None


def _linear(flat: Sequence[Tensor], shares: Sequence[float]) -> Chunk:
    def chunk(part: slice) -> Tensor:
        out = flat[0][part].float() * shares[0]
        for share, tensor in zip(shares[1:], flat[1:], strict=True):
            out.add_(tensor[part].float(), alpha=share)
        return out

    return chunk


def _slerp(first: Tensor, second: Tensor, t: float) -> Chunk:
    """sin((1 - t) w) / sin(w) * first + sin(t w) / sin(w) * second, w the angle between them as flat vectors."""
    sums = np.zeros(3)
    for begin in range(0, len(first), CHUNK):
        a, b = (x[begin : begin + CHUNK].double() for x in (first, second))
        sums += [float(a @ b), float(a @ a), float(b @ b)]
    norms = float(np.sqrt(sums[1] * sums[2]))
    cosine = float(sums[0]) / norms if norms > 0 else 1.0
    if abs(cosine) > COLLINEAR:
        return _linear([first, second], [1.0 - t, t])
    angle = float(np.arccos(cosine))
    return _linear([first, second], [float(np.sin(x * angle) / np.sin(angle)) for x in (1.0 - t, t)])


def _change(tensor: Tensor, start: Tensor, part: slice) -> Tensor:
    return tensor[part].float() - start[part].float()


def _trimmed(tensor: Tensor, start: Tensor, density: float) -> Chunk:
    """The change's `density` share of largest magnitude, others 0; of equal magnitudes at the border all are kept."""
    keep = max(1, round(density * len(tensor)))
    border = 0.0
    if keep < len(tensor):
        magnitudes = _change(tensor, start, slice(None)).abs_().numpy()
        magnitudes.partition(len(tensor) - keep)
        border = float(magnitudes[len(tensor) - keep])

    def chunk(part: slice) -> Tensor:
        change = _change(tensor, start, part)
        return change.masked_fill_(change.abs() < border, 0.0)

    return chunk


def _dropped(tensor: Tensor, start: Tensor, density: float, key: int) -> Chunk:
    """Each entry of the change kept with chance `density` and divided by it, else 0: its expectation is the change."""

    def chunk(part: slice) -> Tensor:
        change = _change(tensor, start, part)
        # A seed for each slice: what is dropped depends on the place alone.
        generator = torch.Generator().manual_seed(key + part.start)
        keep = torch.rand(change.shape, generator=generator) < density
        return change.mul_(keep).div_(density)

    return chunk


def _summed(changes: Sequence[Chunk], shares: Sequence[float]) -> Chunk:
    return lambda part: _dot([change(part) for change in changes], shares)


def _dot(tensors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    out = tensors[0] * factors[0]
    for factor, tensor in zip(factors[1:], tensors[1:], strict=True):
        out.add_(tensor, alpha=factor)
    return out


def _agreed(changes: Sequence[Chunk], weights: Sequence[float]) -> Chunk:
    """The weighted mean, for each entry, over the changes whose sign is that of their weighted sum."""

    def chunk(part: slice) -> Tensor:
        voters = [change(part) for change in changes]
        sign = _dot(voters, weights).sign_()
        agrees = [((v.sign() == sign) & (v != 0)).float() for v in voters]
        merged = _dot([v * a for v, a in zip(voters, agrees, strict=True)], weights)
        mass = _dot(agrees, weights)
        return torch.where(mass > 0, merged / mass.clamp_min(1e-30), 0.0)

    return chunk


def _on_base(start: Tensor, change: Chunk, scale: float) -> Chunk:
    return lambda part: start[part].float().add(change(part), alpha=scale)


def _key(seed: int, name: str, index: int) -> int:
    """A seed of its own for each tensor and model: no order of work changes what is dropped."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


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


class Source:
    """The tensors of a checkpoint directory by name, read one at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.stack = directory, ExitStack()
        self.files: dict[str, Any] = {}

    def __enter__(self) -> Source:
        index = self.directory / "model.safetensors.index.json"
        try:
            names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else ()
        except (json.JSONDecodeError, KeyError) as error:
            raise CheckpointError(f"{index}: damaged ({error!r}); take another copy") from error
        for file in sorted(names) or ["model.safetensors"]:
            path = self.directory / file
            if not path.is_file():
                raise CheckpointError(f"{path}: no such file; the checkpoint is incomplete (safetensors only)")
            try:
                handle = self.stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: cannot be read ({error}); the file is damaged or truncated") from error
            self.files |= dict.fromkeys(handle.keys(), handle)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors spells it, such as BF16."""
        return str(self.files[name].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        try:
            return self.files[name].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.directory}: {name} cannot be read ({error}); the file is damaged") from error


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
    vocabulary = tokenizer.get_vocab()
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
        unlike = vocabulary.items() ^ other_tokenizer.get_vocab().items()
        if unlike:
            shown = ", ".join(repr(token) for token in sorted({token for token, _ in unlike})[:4])
            raise UserError(
                f"{first} and {other} have different tokenizers ({len({t for t, _ in unlike})} tokens differ, such as "
                f"{shown}): a row of the embedding would mean two things"
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
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    for path in sorted(first.iterdir()):
        if path.is_file() and path.suffix in TEXT_FILES and path.name not in LEFT_OUT:
            shutil.copy2(path, target / path.name)
    extra = first / "additional_chat_templates"
    if extra.is_dir():
        shutil.copytree(extra, target / extra.name)


def describe(recipe: Recipe) -> Mapping[str, Any]:
    """The settings that the method reads, for reports."""
    names = {"linear": ("weights",), "slerp": ("t",)}.get(recipe.method, ("weights", "density", "scale"))
    given = {name: getattr(recipe, name) for name in names}
    return {"method": recipe.method, **{name: value for name, value in given.items() if value is not None}}

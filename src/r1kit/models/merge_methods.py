"""How tensors of several models become one: linear, SLERP, TIES and DARE.

    linear      the weighted mean (model soups: Wortsman et al. 2022, arXiv:2203.05482)
    slerp       along the arc between two models (Shoemake 1985, "Animating rotation with quaternion curves")
    ties        changes from a base: the largest kept, their signs voted on, those that agree averaged
                (Yadav et al. 2023, arXiv:2306.01708)
    dare        changes from a base: dropped at random, the rest scaled up, summed (Yu et al. 2023, arXiv:2311.03099)
    dare_ties   DARE's dropping in place of TIES' trimming

All arithmetic is in float32 and per tensor, trimming too, where the TIES paper ranks the whole model at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Method = Literal["linear", "slerp", "ties", "dare", "dare_ties"]
# Models closer than this (cosine) are interpolated on the straight line: the arc's formula divides by its sine.
COLLINEAR = 0.9995
# Entries merged at a time: temporaries stay small. DARE's choice of entries depends on it.
CHUNK = 1 << 20


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
    alone = sole_model(recipe, len(tensors))
    if alone is not None:
        return tensors[alone].to(tensors[0].dtype)
    shares = _shares(recipe, len(tensors))
    if recipe.method == "linear":
        chunk = _linear(flat, shares)
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
        joined = _summed(changes, shares) if recipe.method == "dare" else _agreed(changes, _weights(recipe, len(flat)))
        chunk = _on_base(start, joined, recipe.scale)
    out = torch.empty_like(flat[0])
    for begin in range(0, len(out), CHUNK):
        part = slice(begin, begin + CHUNK)
        out[part] = chunk(part)
    return out.view(tensors[0].shape)


def sole_model(recipe: Recipe, count: int) -> int | None:
    """Which of `count` models is the whole result, None where several are mixed."""
    if recipe.method == "slerp":
        return int(recipe.t) if recipe.t in (0.0, 1.0) else None
    shares = _shares(recipe, count)
    used = [i for i, share in enumerate(shares) if share]
    return used[0] if recipe.method == "linear" and len(used) == 1 and shares[used[0]] == 1.0 else None


def _weights(recipe: Recipe, count: int) -> Sequence[float]:
    return recipe.weights or (1.0,) * count


def _shares(recipe: Recipe, count: int) -> list[float]:
    weights = _weights(recipe, count)
    total = sum(weights) if recipe.normalise else 1.0
    return [w / total for w in weights]


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


def describe(recipe: Recipe) -> Mapping[str, Any]:
    """The settings that the method reads, for reports."""
    names = {"linear": ("weights",), "slerp": ("t",)}.get(recipe.method, ("weights", "density", "scale"))
    given = {name: getattr(recipe, name) for name in names}
    return {"method": recipe.method, **{name: value for name, value in given.items() if value is not None}}

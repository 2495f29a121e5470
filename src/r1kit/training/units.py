"""Gradients of losses that join whole sequences: pairs of responses, or responses judged as a whole.

A unit is the sequences that one term of the loss needs together: two for a pair, one for a judged response. `backward`
packs units into micro-batches; a unit too large for one is run sequence by sequence, with the same gradient at the
price of one more forward pass, so that a pair of long responses takes the memory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.models.marked import MarkedSequence
from r1kit.training.packing import MicroBatch, balanced_shards, plan
from r1kit.training.parallel import World

Unit = tuple[MarkedSequence, ...]
# read(model, micro, sequences): what the loss is made of, in the order of the sequences.
Read = Callable[[Any, MicroBatch, Sequence[MarkedSequence]], Tensor]
# loss(outputs, units): the part of these units (indices) in the loss of the step, and sums of metrics.
Loss = Callable[[Tensor, Sequence[int]], tuple[Tensor, Mapping[str, float]]]


def backward(
    model: Any, units: Sequence[Unit], read: Read, loss: Loss, token_budget: int, world: World
) -> dict[str, float]:
    """Add the gradient of this rank's share of `units`; sums over it of `loss` and of its metrics.

    Raises ValueError where one sequence alone is over `token_budget`.
    """
    totals: dict[str, float] = {}
    mine = balanced_shards([sum(map(len, unit)) for unit in units], world.size)[world.rank]
    for batch in plan_units([tuple(map(len, units[i])) for i in mine], token_budget):
        chosen = [mine[i] for i in batch.units]
        sequences = [s for i in chosen for s in units[i]]
        if batch.micro is not None:
            value, sums = loss(read(model, batch.micro, sequences), chosen)
            value.backward()
        else:
            value, sums = _one_by_one(model, sequences, chosen, read, loss, token_budget)
        for name, number in {"loss": value.item(), **sums}.items():
            totals[name] = totals.get(name, 0.0) + float(number)
    return totals


def _one_by_one(
    model: Any,
    sequences: Sequence[MarkedSequence],
    units: Sequence[int],
    read: Read,
    loss: Loss,
    token_budget: int,
) -> tuple[Tensor, Mapping[str, float]]:
    """The gradient of a loss of all `sequences` with the memory of one: first what each of them weighs in it."""
    alone = [(plan([len(s)], token_budget)[0], [s]) for s in sequences]
    with torch.no_grad():
        outputs = [read(model, micro, one) for micro, one in alone]
    leaf = torch.cat(outputs).requires_grad_()
    value, sums = loss(leaf, units)
    (slope,) = torch.autograd.grad(value, leaf)
    for (micro, one), weight in zip(alone, slope.split([len(o) for o in outputs]), strict=True):
        read(model, micro, one).backward(weight)
    return value.detach(), sums


@torch.no_grad()
def read_all(
    model: Any,
    sequences: Sequence[MarkedSequence],
    read: Read,
    token_budget: int,
    world: World | None = None,
    *,
    per_mark: bool = False,
) -> list[np.ndarray]:
    """What `read` gives of each sequence (`per_mark`: one number for each mark, else one in all), without gradient.

    float64; each rank reads its share and all return the same.
    """
    world = world or World.single()
    mine = balanced_shards([len(s) for s in sequences], world.size)[world.rank]
    found: dict[int, list[float]] = {}
    for micro in plan([len(sequences[i]) for i in mine], token_budget):
        places, local = micro.alone()
        members = [mine[i] for i in places]
        outputs = read(model, local, [sequences[i] for i in members]).double().cpu()
        widths = [sequences[i].marked if per_mark else 1 for i in members]
        found |= {i: part.tolist() for i, part in zip(members, outputs.split(widths), strict=True)}
    parts = world.gather(sorted(found.items()), "scores")
    merged = {int(i): values for part in parts for i, values in part}
    return [np.array(merged[i], dtype=np.float64) for i in range(len(sequences))]


@dataclass(frozen=True)
class UnitBatch:
    """Units of one pass, their sequences numbered unit after unit in `micro`: None where one unit is over the
    budget."""

    units: tuple[int, ...]
    micro: MicroBatch | None


def plan_units(lengths: Sequence[Sequence[int]], token_budget: int) -> list[UnitBatch]:
    """Micro-batches of whole units, the longest first; `lengths` are those of each unit's sequences."""
    order = sorted(range(len(lengths)), key=lambda i: (-max(lengths[i]), i))
    batches: list[UnitBatch] = []
    start = 0
    while start < len(order):
        sizes = np.cumsum([sum(lengths[i]) for i in order[start:]])
        most = max(1, int(np.searchsorted(sizes, token_budget, side="right")))
        count, micro = _largest(order[start : start + most], lengths, token_budget)
        batches.append(UnitBatch(tuple(order[start : start + count]), micro))
        start += count
    return batches


def _largest(
    order: Sequence[int], lengths: Sequence[Sequence[int]], token_budget: int
) -> tuple[int, MicroBatch | None]:
    """How many of the units, from the first, fit one micro-batch, by bisection; at least 1."""

    def fitted(count: int) -> MicroBatch | None:
        micros = plan([length for i in order[:count] for length in lengths[i]], token_budget)
        return micros[0] if len(micros) == 1 else None

    low, best, high = 1, fitted(1), len(order)
    while low < high and best is not None:
        middle = (low + high + 1) // 2
        micro = fitted(middle)
        if micro is None:
            high = middle - 1
        else:
            low, best = middle, micro
    return low, best

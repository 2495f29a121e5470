"""The compiled optimiser steps against the PyTorch ones, on one rank and on two, and through saved states.

Why this matters: a step that is slightly off still trains, only worse; nothing but an oracle tells. The PyTorch form
has its own oracles in test_optim.py.

Not exercised here: whole sessions (test_native.py); speed (benchmarks/train.py). Skipped without a C++ compiler, and in
bfloat16 where the processor does not multiply it.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from r1kit.config.parts import OptimizerSettings
from r1kit.models.native.training import has_bfloat16
from r1kit.training.optim import FlatParameters, Muon, make_optimizer
from r1kit.training.optim_native import make_native_optimizer
from r1kit.training.parallel import World

from .helpers import tiny_model
from .preset_updates import on_ranks
from .ranks import Results
from .test_optim import ADAMW, MUON, gradients

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")

# Largest relative difference between steps and those of PyTorch in float32.
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.03}


def precision(name: str) -> str:
    if name == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16 matrix products (AMX)")
    return name


class Layers(nn.Module):
    """Matrices square, wide, tall, of whole blocks of 32 and not; and what Muon leaves to AdamW."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(64, 64), (5, 20), (70, 33), (1, 8), (96, 32), (33, 100), (3, 7)]  # 13,013 numbers in all
        generator = torch.Generator().manual_seed(1)
        self.layers = nn.ParameterList([nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes])
        self.norm = nn.Parameter(torch.randn(7, generator=generator))
        self.embedding = nn.Parameter(torch.randn(9, 11, generator=generator))


def stepped(native: str, settings: OptimizerSettings, world: World | None = None, steps: int = 3) -> dict[str, Any]:
    """Changes of the weights and the state after some steps; the ranks of a real world have one master."""
    world = world or World.single()
    flat = FlatParameters(Layers(), world, common=native != "off")
    optimizer: Any
    if native == "off":
        optimizer = make_optimizer(flat, settings, world)
    else:
        optimizer = make_native_optimizer(flat, settings, world, native)
    before = flat.master.clone()
    for step, grad in enumerate(gradients(flat, steps)):
        flat.grad.copy_(grad)
        if flat.is_common:
            world.barrier()  # as the sum of gradients before a step
        optimizer.step_(1.0 - 0.1 * step)
    if isinstance(optimizer, Muon):
        optimizer.momentum[optimizer.other] = 0.0  # never read; only PyTorch moves it
    change = {name: view.numpy() for name, view in flat.named_views(flat.master - before).items()}
    return {**change, **{f"state {name}": tensor.numpy() for name, tensor in optimizer.state().items()}}


def native_kinds() -> list[str]:
    """Types of products that this machine can compile."""
    if shutil.which("g++") is None:
        return []
    return ["float32", "bfloat16"] if has_bfloat16() else ["float32"]


def common_cases() -> dict[str, tuple[str, OptimizerSettings]]:
    """What both ranks run on one master (rank_jobs.py)."""
    named = {"muon": MUON, "adamw": ADAMW}
    return {f"{name} {kind}": (kind, settings) for kind in native_kinds() for name, settings in named.items()}


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_steps_equal_those_of_pytorch(settings: OptimizerSettings, kind: str) -> None:
    found, wanted = stepped(precision(kind), settings), stepped("off", settings)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        exact = name.startswith(("state", "norm", "embedding")) or settings is ADAMW
        limit = TOLERANCE["float32" if exact else kind]
        assert np.linalg.norm(found[name] - values) <= limit * np.linalg.norm(values), name


@pytest.mark.parametrize("kind", TOLERANCE)
def test_in_the_same_products_muon_is_the_one_of_pytorch(kind: str) -> None:
    """Factors are rounded where PyTorch rounds them: what differs is the order of sums."""
    flat = FlatParameters(tiny_model(qkv_bias=True))
    dtype = getattr(torch, precision(kind))
    ours, theirs = make_native_optimizer(flat, MUON, World.single(), kind), Muon(flat, MUON, World.single(), dtype)
    before = flat.master.clone()
    changes = []
    for optimizer in (ours, theirs):
        flat.master.copy_(before)
        flat.grad.copy_(gradients(flat, 1)[0])
        optimizer.step_(1.0)
        changes.append(flat.master - before)
    assert (changes[0] - changes[1]).norm() < (1e-5 if kind == "float32" else 0.01) * changes[1].norm()


@pytest.mark.parametrize("kind", TOLERANCE)
def test_two_ranks_take_the_step_of_one(kind: str) -> None:
    alone = stepped(precision(kind), MUON)
    first, second = on_ranks(lambda world: stepped(kind, MUON, world), 2)
    for name, values in alone.items():
        assert np.array_equal(first[name], second[name]), name
        np.testing.assert_allclose(first[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_two_ranks_with_one_master_take_the_step_of_one(two_ranks: Results) -> None:
    """Bit for bit: each matrix, and each number of AdamW, is stepped by one of them as it is by one alone."""
    first, second = two_ranks["common_master"]
    for case, (kind, settings) in common_cases().items():
        for name, values in stepped(kind, settings).items():
            assert np.array_equal(first[f"{case}/{name}"], values), f"{case}: {name}"
            assert np.array_equal(second[f"{case}/{name}"], values), f"{case}: {name}"


@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_a_state_goes_between_both_forms(settings: OptimizerSettings) -> None:
    """A run may be resumed with another `native`."""
    flat = FlatParameters(Layers())
    grads = gradients(flat, 2)
    theirs = make_optimizer(flat, settings, World.single())
    flat.grad.copy_(grads[0])
    theirs.step_(1.0)
    ours = make_native_optimizer(flat, settings, World.single(), "float32")
    ours.load_state({name: tensor.clone() for name, tensor in theirs.state().items()})
    before = flat.master.clone()
    flat.grad.copy_(grads[1])
    theirs.step_(1.0)
    wanted = flat.master.clone()
    flat.master.copy_(before)
    ours.step_(1.0)
    torch.testing.assert_close(flat.master, wanted, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    flat = FlatParameters(Layers())
    settings = MUON.model_copy(update={"weight_decay": 0.0})
    before = flat.master.clone()
    for kind in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        make_native_optimizer(flat, settings, World.single(), kind).step_(1.0)
        assert torch.equal(flat.master, before)

"""Compiled steps of the optimisers in optim.py, which are their oracle and their fallback.

State, checkpoints and numbers are those of the PyTorch form; a step is one call. Muon's matrix products run in the type
that the recipe's `native` names, everything else in float32. Where the ranks have one master between them
(`FlatParameters.is_common`), they have one state too, and each steps its own part of both.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from r1kit.models import memory
from r1kit.models.native.build import HEADERS, build
from r1kit.models.native.training import check_precision
from r1kit.training import shared_memory
from r1kit.training.optim import AdamW, FlatAdamW, FlatParameters, Muon, OptimizerSettings, make_optimizer
from r1kit.training.parallel import World


class _Piece(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("start", "rows", "columns")],
        ("scale", ctypes.c_float),
        ("mine", ctypes.c_int32),
    ]


class _Step(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in ("momentum", "lr", "decay")]


class _Adam(ctypes.Structure):
    _fields_ = [(n, ctypes.c_float) for n in ("beta1", "beta2", "lr", "decay", "root_correction2", "eps")]


@cache
def _library() -> ctypes.CDLL:
    loaded = build(HEADERS / "optim.cpp")
    pointer, count, half = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    pieces = ctypes.POINTER(_Piece)
    loaded.muon_room.argtypes, loaded.muon_room.restype = [half, pieces, count], ctypes.c_int64
    loaded.muon.argtypes = [half, pieces, count, ctypes.POINTER(_Step), *(pointer,) * 5]
    loaded.adam.argtypes = [ctypes.POINTER(_Adam), pointer, count, *(pointer,) * 4]
    loaded.muon_steps.argtypes = [half, pieces, count, ctypes.POINTER(_Step), pointer, pointer]
    loaded.muon.restype = loaded.muon_steps.restype = loaded.adam.restype = None
    return loaded


class NativeAdamW(AdamW):
    """AdamW on parts of `flat`: `stretches` [n, 2], where they start in `weights` and `grad`, and their lengths."""

    def __init__(
        self,
        flat: FlatParameters,
        stretches: np.ndarray,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float,
        world: World,
    ) -> None:
        total = int(stretches[:, 1].sum())
        super().__init__(total, betas, weight_decay, eps, partial(_zeros, flat, world))
        self.part = world.part(total) if flat.is_common else slice(0, total)
        self.stretches = _within(stretches, self.part)

    def step_(self, weights: Tensor, grad: Tensor, lr: float) -> None:
        self.count += 1
        (beta1, beta2), decay = self.betas, 1 - lr * self.weight_decay
        correction1, correction2 = 1 - beta1**self.count, 1 - beta2**self.count
        step = _Adam(beta1, beta2, lr / correction1, decay, math.sqrt(correction2), self.eps)
        arrays = (grad, self.first[self.part], self.second[self.part], weights)
        _library().adam(step, self.stretches.ctypes.data, len(self.stretches), *(a.data_ptr() for a in arrays))


class NativeMuon(Muon):
    """`precision`: the type of products, "float32" or "bfloat16"."""

    def __init__(self, flat: FlatParameters, settings: OptimizerSettings, world: World, precision: str) -> None:
        check_precision(precision)
        self._half = int(precision == "bfloat16")
        self._alone = world.size == 1 or flat.is_common  # no other rank needs the updates found here
        super().__init__(flat, settings, world, getattr(torch, precision))
        mine = {part for parts in self._by_shape() for part in parts}
        views = flat.named_views(flat.master)
        pieces = []
        for part in (p for p in self.parts if p in mine or not flat.is_common):
            view = views[part.name][part.start : part.end]
            rows, columns = view.shape
            scale = max(1.0, rows / columns) ** 0.5
            pieces.append(_Piece(view.storage_offset(), rows, columns, scale, part in mine))
        self._pieces = (_Piece * len(pieces))(*pieces)
        self._room = memory.buffer(_library().muon_room(self._half, self._pieces, len(pieces)))

    def _allocate(self) -> None:
        flat, s, size = self.flat, self.settings, len(self.flat.master)
        self.momentum = _zeros(flat, self.world, size)
        if not self._alone:
            # In halves two numbers a word. Only one rank's are not 0: their sum as integers is theirs bit for bit.
            self.update = torch.zeros(-(-size // 2), dtype=torch.int32) if self._half else torch.zeros(size)
        self.adam = NativeAdamW(flat, _stretches(self.other), s.betas, 0.0, s.eps, self.world)

    def step_(self, lr_scale: float) -> None:
        s, flat, alone = self.settings, self.flat, self._alone
        lr = s.lr * lr_scale
        step = _Step(s.momentum, lr, 1.0 - lr * s.weight_decay)
        arguments = (self._half, self._pieces, len(self._pieces), step)
        if not alone:
            self.update.zero_()
        found = None if alone else self.update.data_ptr()
        addresses = (flat.grad.data_ptr(), self.momentum.data_ptr(), found, flat.master.data_ptr())
        _library().muon(*arguments, *addresses, self._room.data_ptr())
        if not alone:
            self.world.all_reduce_(self.update, "muon")
            _library().muon_steps(*arguments, found, flat.master.data_ptr())
        self.adam.step_(flat.master, flat.grad, (s.adam_lr or s.lr) * lr_scale)
        _all_done(flat, self.world)
        flat.publish()


class NativeFlatAdamW(FlatAdamW):
    """AdamW over all parameters."""

    def __init__(self, flat: FlatParameters, settings: OptimizerSettings, world: World) -> None:
        self.flat, self.settings, self.world = flat, settings, world
        everything = np.array([[0, len(flat.master)]])
        self.adam = NativeAdamW(flat, everything, settings.betas, settings.weight_decay, settings.eps, world)

    def step_(self, lr_scale: float) -> None:
        self.adam.step_(self.flat.master, self.flat.grad, self.settings.lr * lr_scale)
        _all_done(self.flat, self.world)
        self.flat.publish()


def make_native_optimizer(
    flat: FlatParameters, settings: OptimizerSettings, world: World, precision: str
) -> Muon | FlatAdamW:
    """The optimiser a recipe names, compiled, over float32 parameters on the CPU."""
    if settings.name == "muon":
        return NativeMuon(flat, settings, world, precision)
    if settings.name == "adamw":
        return NativeFlatAdamW(flat, settings, world)
    return make_optimizer(flat, settings, world)


def _zeros(flat: FlatParameters, world: World, size: int) -> Tensor:
    """Room for a state, which is common where the master is."""
    return shared_memory.allocate(world, size, torch.float32) if flat.is_common else torch.zeros(size)


def _all_done(flat: FlatParameters, world: World) -> None:
    """Nobody reads a common master before all have stepped their parts."""
    if flat.is_common:
        world.barrier("optimiser")


def _within(stretches: np.ndarray, part: slice) -> np.ndarray:
    """What of `stretches` has numbers in `part` of all of theirs, counted one after another."""
    starts, lengths = stretches.T
    before = np.cumsum(lengths) - lengths
    first = np.clip(part.start - before, 0, lengths)
    last = np.clip(part.stop - before, 0, lengths)
    return np.ascontiguousarray(np.stack([starts + first, last - first], 1)[last > first], np.int64)


def _stretches(indices: Tensor) -> np.ndarray:
    """Runs of consecutive numbers in ascending `indices`: [n, (start, length)]."""
    found = indices.numpy()
    starts = np.flatnonzero(np.diff(found, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(found))
    return np.stack([found[starts], lengths], 1) if len(found) else np.zeros((0, 2), np.int64)

"""Compiled steps of the optimisers in optim.py, which are their oracle and their fallback.

State, checkpoints and what a rank does are those of the PyTorch form; a step is one call. Muon's matrix products run in
the type that the recipe's `native` names, everything else in float32.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from r1kit.models import memory
from r1kit.models.native.build import HEADERS, build
from r1kit.models.native.training import check_precision
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
    """`stretches` [n, 2]: where the vector's parts start in `weights` and `grad`, and their lengths."""

    def __init__(self, stretches: np.ndarray, betas: tuple[float, float], weight_decay: float, eps: float) -> None:
        super().__init__(int(stretches[:, 1].sum()), betas, weight_decay, eps)
        self.stretches = np.ascontiguousarray(stretches, np.int64)

    def step_(self, weights: Tensor, grad: Tensor, lr: float) -> None:
        self.count += 1
        (beta1, beta2), decay = self.betas, 1 - lr * self.weight_decay
        correction1, correction2 = 1 - beta1**self.count, 1 - beta2**self.count
        step = _Adam(beta1, beta2, lr / correction1, decay, math.sqrt(correction2), self.eps)
        arrays = (grad, self.first, self.second, weights)
        _library().adam(step, self.stretches.ctypes.data, len(self.stretches), *(a.data_ptr() for a in arrays))


class NativeMuon(Muon):
    """`precision`: the type of products, "float32" or "bfloat16"."""

    def __init__(self, flat: FlatParameters, settings: OptimizerSettings, world: World, precision: str) -> None:
        super().__init__(flat, settings, world, getattr(torch, precision))
        check_precision(precision)
        self._half = int(precision == "bfloat16")
        if self._half:
            # Two numbers a word. Only one rank's are not 0, so that their sum as integers is theirs bit for bit.
            self.update = torch.zeros(-(-len(flat.master) // 2), dtype=torch.int32)
        self.adam = NativeAdamW(_stretches(self.other), settings.betas, 0.0, settings.eps)
        mine = {part for parts in self._by_shape() for part in parts}
        views = flat.named_views(flat.master)
        pieces = []
        for part in self.parts:
            view = views[part.name][part.start : part.end]
            rows, columns = view.shape
            scale = max(1.0, rows / columns) ** 0.5
            pieces.append(_Piece(view.storage_offset(), rows, columns, scale, part in mine))
        self._pieces = (_Piece * len(pieces))(*pieces)
        self._room = memory.buffer(_library().muon_room(self._half, self._pieces, len(pieces)))

    def step_(self, lr_scale: float) -> None:
        s, flat, alone = self.settings, self.flat, self.world.size == 1
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
        flat.publish()


def make_native_optimizer(
    flat: FlatParameters, settings: OptimizerSettings, world: World, precision: str
) -> Muon | FlatAdamW:
    """The optimiser a recipe names, compiled, over float32 parameters on the CPU."""
    if settings.name == "muon":
        return NativeMuon(flat, settings, world, precision)
    optimizer = make_optimizer(flat, settings, world)
    if isinstance(optimizer, FlatAdamW):
        everything = np.array([[0, flat.master.numel()]])
        optimizer.adam = NativeAdamW(everything, settings.betas, settings.weight_decay, settings.eps)
    return optimizer


def _stretches(indices: Tensor) -> np.ndarray:
    """Runs of consecutive numbers in ascending `indices`: [n, (start, length)]."""
    found = indices.numpy()
    starts = np.flatnonzero(np.diff(found, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(found))
    return np.stack([found[starts], lengths], 1) if len(found) else np.zeros((0, 2), np.int64)

"""Forward and backward of the decoder as one C++ call each: the numbers of `Decoder` to rounding, several times faster.

`NativePass` is called like the decoder whose weights it uses. It keeps a packed copy of them, made anew after
`refresh()`, and its backward pass adds to the parameters' own `.grad`. In float32 it equals PyTorch to rounding; in
bfloat16 the factors of matrix products are rounded, and all sums, the residual stream, norms and softmax are float32,
as are the weights it reads and the gradients it writes. (tests/models/test_native_training.py holds it to `Decoder`.)
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from r1kit.config.errors import UserError
from r1kit.models import memory
from r1kit.models.attention import PackedAttention, sequence_lengths
from r1kit.models.decoder import Decoder
from r1kit.models.native.build import build, gradient_address, turns
from r1kit.models.native.head import NativeHead

SOURCE = Path(__file__).with_name("train.cpp")
PRECISIONS = ("float32", "bfloat16")
_LAYER = ("attention_norm", "qkv", "qkv_bias", "q_norm", "k_norm", "output", "mlp_norm", "gate_up", "down")


class NativeError(UserError):
    """This model, or this machine, cannot run the compiled pass; the message says why and what to do."""


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _LAYER]


class _Model(ctypes.Structure):
    _fields_ = [
        *[
            (name, ctypes.c_int64)
            for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab")
        ],
        ("eps", ctypes.c_float),
        *[
            (name, ctypes.c_void_p)
            for name in ("turns", "embedding", "final_norm", "embedding_grad", "final_norm_grad")
        ],
        ("layer", ctypes.POINTER(_Layer)),
        ("grad", ctypes.POINTER(_Layer)),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [("sequences", ctypes.c_int64), ("lengths", ctypes.c_void_p), ("ids", ctypes.c_void_p)]


@cache
def library() -> ctypes.CDLL:
    """The compiled pass. BuildError where there is no compiler."""
    loaded = build(SOURCE)
    model, batch, pointer, half = ctypes.POINTER(_Model), ctypes.POINTER(_Batch), ctypes.c_void_p, ctypes.c_int
    loaded.sizes.argtypes = [model, half, batch, pointer]
    loaded.pack.argtypes = [model, half, pointer, pointer]
    for function in (loaded.forward, loaded.backward):
        function.argtypes = [model, half, batch, pointer, pointer, pointer, pointer]
    for function in (loaded.sizes, loaded.pack, loaded.forward, loaded.backward):
        function.restype = None
    return loaded


@cache
def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware that the pass uses (AMX)."""
    return bool(library().has_bfloat16())


def check_precision(precision: str) -> None:
    """NativeError where the compiled passes have no such products on this machine."""
    if precision not in PRECISIONS:
        raise NativeError(f"native: precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not has_bfloat16():
        raise NativeError("native: this processor has no bfloat16 matrix products (AMX); use float32")


def unsupported(model: nn.Module) -> str | None:
    """Why a model cannot run compiled, or None."""
    if not isinstance(model, Decoder):
        return "only r1kit's own decoder is compiled, and this architecture runs through Transformers"
    weights = model.embedding
    if weights.dtype != torch.float32 or weights.device.type != "cpu":
        return f"weights are {weights.dtype} on {weights.device.type}, expected torch.float32 on cpu"
    if not all(p.requires_grad and p.is_contiguous() for p in model.parameters()):
        return "a parameter is frozen or not contiguous"
    return None


class NativePass:
    """The compiled form of a decoder in training."""

    def __init__(self, model: Decoder, precision: str = "float32") -> None:
        reason = unsupported(model)
        if reason:
            raise NativeError(f"native: {reason}; turn it off for this model")
        check_precision(precision)
        self.model, self.precision = model, precision
        self._half = int(precision == "bfloat16")
        self._stale = True
        self.native_head = NativeHead(model, precision == "bfloat16")
        # Widths are padded to whole blocks of 32, as in products.h.
        self._turns = nn.functional.pad(turns(model.phase_PC), (0, -model.config.head_dim % 32)).contiguous()
        self._packed, self._room = torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)
        self._spare: list[Tensor] = []  # memory between a forward and its backward pass, to be used again

    @property
    def head_weight(self) -> Tensor:
        return self.model.head_weight

    def refresh(self) -> None:
        """The parameters have changed."""
        self._stale = self.native_head.stale = True

    def __call__(self, token_ids_T: Tensor, positions_T: Tensor, attend: PackedAttention) -> Tensor:
        """Final hidden states [T, D], as `Decoder.forward`; positions are those of the segments of `attend`."""
        lengths = sequence_lengths(attend.segments)
        if lengths.sum() != len(token_ids_T):
            raise ValueError(f"{len(token_ids_T)} token ids for segments of {lengths.sum()} tokens")
        if lengths.size and lengths.max() > self.model.config.max_positions:
            raise ValueError(f"a sequence of {lengths.max()} tokens: this model knows {len(self._turns)} positions")
        ids = token_ids_T.numpy()
        if ids.size and not 0 <= ids.min() <= ids.max() < self.model.config.vocab_size:
            raise IndexError(
                f"token ids from {ids.min()} to {ids.max()}, the vocabulary has {self.model.config.vocab_size}"
            )
        hidden: Tensor = _Run.apply(self.model.embedding, self, np.ascontiguousarray(ids, np.int64), lengths)
        return hidden

    def _forward(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
        """Hidden states, and what the backward pass needs."""
        model, batch = self._describe(), _batch(ids, lengths)
        needed = np.empty(3, np.int64)
        library().sizes(model, self._half, batch, needed.ctypes.data)
        packed, saved, room = map(int, needed)
        self._room = _at_least(self._room, room)
        if self._stale:
            self._packed = _at_least(self._packed, packed)
            library().pack(model, self._half, self._packed.data_ptr(), self._room.data_ptr())
            self._stale = False
        kept = _at_least(self._spare.pop() if self._spare else self._packed[:0], saved)
        hidden = torch.empty(len(ids), self.model.config.hidden_size)
        library().forward(
            model, self._half, batch, self._packed.data_ptr(), kept.data_ptr(), self._room.data_ptr(), hidden.data_ptr()
        )
        return hidden, kept

    def _backward(self, ids: np.ndarray, lengths: np.ndarray, kept: Tensor, grad_TD: Tensor) -> None:
        if self._stale:
            raise RuntimeError("native: the parameters changed between the forward and the backward pass")
        grad_TD = grad_TD.contiguous()
        library().backward(
            self._describe(with_gradients=True),
            self._half,
            _batch(ids, lengths),
            self._packed.data_ptr(),
            kept.data_ptr(),
            self._room.data_ptr(),
            grad_TD.data_ptr(),
        )

    def _describe(self, with_gradients: bool = False) -> _Model:
        model, config = self.model, self.model.config
        layers, grads = (_Layer * config.num_layers)(), (_Layer * config.num_layers)()
        for layer, weights, gradients in zip(model.layers, layers, grads, strict=True):
            for name in _LAYER:
                parameter = getattr(layer, name)
                setattr(weights, name, None if parameter is None else parameter.data_ptr())
                if with_gradients and parameter is not None:
                    setattr(gradients, name, gradient_address(parameter))
        outer = (model.embedding, model.final_norm)
        return _Model(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
            config.rms_norm_eps,
            self._turns.data_ptr(),
            *(p.data_ptr() for p in outer),
            *(gradient_address(p) if with_gradients else None for p in outer),
            layers,
            grads,
        )


class _Run(torch.autograd.Function):
    """The anchor (a parameter) makes autograd call the backward pass, which writes all gradients itself."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, native: NativePass, ids: np.ndarray, lengths: np.ndarray) -> Tensor:
        hidden, kept = native._forward(ids, lengths)
        if ctx.needs_input_grad[0]:
            ctx.call = (native, ids, lengths, kept)
        else:
            native._spare.append(kept)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[None, ...]:
        if ctx.call is None:
            raise RuntimeError("native: backward was called twice on one forward pass")
        native, ids, lengths, kept = ctx.call
        ctx.call = None
        native._backward(ids, lengths, kept, grad_TD)
        native._spare.append(kept)
        return None, None, None, None


def _batch(ids: np.ndarray, lengths: np.ndarray) -> _Batch:
    return _Batch(len(lengths), lengths.ctypes.data, ids.ctypes.data)


def _at_least(buffer: Tensor, size: int) -> Tensor:
    """`buffer`, or a larger one with some room to grow."""
    return buffer if buffer.numel() >= size else memory.buffer(size + size // 4)

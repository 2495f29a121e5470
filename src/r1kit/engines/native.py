"""The decoding pass of a small decoder as one C++ call: built on request, the same numbers to rounding.

`decode.cpp` beside this file is built by `models/native/build.py`. In float32 it equals PyTorch to rounding; in
bfloat16, which needs AMX, weights, cache and the factors of products are rounded and every sum is float32. Prompts
still run through PyTorch. `PreparedDecoder` is the fallback and the oracle (tests/engines/test_native.py). A row's
result never depends on its neighbours, so this form is deterministic by construction.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.cache import KVCache
from r1kit.engines.prepared import PreparedDecoder
from r1kit.engines.protocol import EngineError
from r1kit.models.native.build import BuildError, build, turns

SOURCE = Path(__file__).with_name("decode.cpp")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BLOCK = 32  # rows and columns of one block in products.h
_WIDEST = 8  # vectors of one head that attention in decode.cpp knows


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("qkv", "output", "gate_up", "down", "qkv_bias", "head_gains")]


class _Model(ctypes.Structure):
    _fields_ = [
        *[
            (name, ctypes.c_int64)
            for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab")
        ],
        ("eps", ctypes.c_float),
        ("embedding", ctypes.c_void_p),
        ("turns", ctypes.c_void_p),
        ("head", ctypes.c_void_p),
        ("layer", ctypes.POINTER(_Layer)),
    ]


class NativeDecoder:
    """One more token for slots 0..n-1, over weights that `PreparedDecoder` has laid out (float32, on the CPU)."""

    def __init__(self, prepared: PreparedDecoder, precision: str = "float32") -> None:
        self._library = library()
        self.dtype = PRECISIONS[precision]
        half = self.dtype == torch.bfloat16
        self._panel = _BLOCK if half else int(self._library.panel_width())
        self._pass = self._library.decode_bfloat16 if half else self._library.decode
        reason = unsupported(prepared, _BLOCK if half else int(self._library.vector_width()))
        if half and not self._library.has_bfloat16():
            reason = "this processor has no bfloat16 matrix products (AMX): use float32"
        if reason:
            raise EngineError(f"engine.native: {reason}; or turn it off for this model")
        self.prepared = prepared
        self._scratch = torch.empty(0)
        self._kept: list[Tensor] = []
        self.refresh()

    def refresh(self) -> None:
        """Take over the weights that `prepared` has now."""
        prepared, config = self.prepared, self.prepared.config
        self._kept = []  # arrays that C++ points into
        self._layers = (_Layer * config.num_layers)()
        for target, w in zip(self._layers, prepared.layers, strict=True):
            for name in ("qkv", "output", "gate_up", "down"):
                setattr(target, name, self._keep(self._panels(getattr(w, name))))
            target.qkv_bias = None if w.qkv_bias is None else self._keep(w.qkv_bias)
            target.head_gains = None if w.head_gains is None else self._keep(w.head_gains)
        self._model = _Model(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
            config.rms_norm_eps,
            self._keep(prepared.decoder.embedding.detach()),
            self._keep(turns(prepared.decoder.phase_PC)),
            self._keep(self._panels(prepared.head)),
            self._layers,
        )

    def _keep(self, array: Tensor) -> int:
        self._kept.append(array.contiguous())
        return self._kept[-1].data_ptr()

    def _panels(self, matrix_KN: Tensor) -> Tensor:
        """[K, N] as [N / panel, K, panel], zeros behind the last column: what one tile reads."""
        depth, columns = matrix_KN.shape
        if self.dtype == torch.bfloat16:
            return _bfloat16_panels(matrix_KN)
        wide = torch.nn.functional.pad(matrix_KN, (0, -columns % self._panel))
        return wide.view(depth, -1, self._panel).transpose(0, 1).contiguous()

    def decode(self, token_ids: np.ndarray, positions: np.ndarray, cache: KVCache) -> Tensor:
        """Logits [n, V] after token ids at positions (both int64 [n]) of slots 0..n-1; the cache grows by them."""
        n, model = len(token_ids), ctypes.byref(self._model)
        needed = self._library.scratch_size(model, n, cache.length)
        if needed > self._scratch.numel():
            self._scratch = torch.empty(needed)
        vocab = self.prepared.config.vocab_size
        logits = torch.empty(_whole(n), _whole(vocab))
        ids, places = np.ascontiguousarray(token_ids, np.int64), np.ascontiguousarray(positions, np.int64)
        failed = self._pass(
            model,
            n,
            ids.ctypes.data,
            places.ctypes.data,
            cache.data.data_ptr(),
            cache.slots,
            cache.length,
            self._scratch.data_ptr(),
            logits.data_ptr(),
        )
        if failed:
            raise AssertionError("decode.cpp refused a shape that `unsupported` let through")
        return logits[:n, :vocab]


def _whole(n: int) -> int:
    return -(-n // _BLOCK) * _BLOCK


def _bfloat16_panels(matrix_KN: Tensor) -> Tensor:
    """[K, N] as products.h wants it: panels of 32 columns; in each, for 32 depths after another, two tiles of 16
    columns, [16 pairs of depths, 16 columns, 2]; zeros behind the last row and column.
    """
    depth, columns = matrix_KN.shape
    padded = torch.nn.functional.pad(matrix_KN, (0, -columns % _BLOCK, 0, -depth % _BLOCK)).bfloat16()
    tiles = padded.view(-1, 16, 2, _whole(columns) // _BLOCK, 2, 16)  # depths: block, pair, one of it; columns alike
    return tiles.permute(3, 0, 4, 1, 5, 2).contiguous()


def draw(logits_nV: Tensor, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 [n] and their probabilities float64 [n] under softmax(logits), by inverse transform sampling.

    The same tokens as `sampler.draw` on the softmax, to rounding. logits_nV float32 is written over.
    """
    n, vocab = logits_nV.shape
    if logits_nV.stride(0) % int(library().vector_width()):  # not as `decode` gives them
        logits_nV = torch.nn.functional.pad(logits_nV, (0, -vocab % int(library().panel_width())))
    tokens, probabilities = np.empty(n, np.int64), np.empty(n, np.float64)
    library().draw(
        n,
        vocab,
        logits_nV.stride(0),
        logits_nV.data_ptr(),
        uniforms.ctypes.data,
        tokens.ctypes.data,
        probabilities.ctypes.data,
    )
    return tokens, probabilities


def unsupported(prepared: PreparedDecoder, unit: int) -> str | None:
    """Why a model cannot run natively, or None; `unit`: numbers that are worked on at a time."""
    config = prepared.config
    if prepared.decoder.embedding.dtype != torch.float32:
        return f"weights are {prepared.decoder.embedding.dtype}, only torch.float32 is compiled"
    widths = [unit * times for times in (1, 2, 4, 8) if unit * times <= _WIDEST * int(library().vector_width())]
    if config.head_dim not in widths:
        return f"head_dim is {config.head_dim}, expected {', '.join(map(str, widths))} here"
    if config.intermediate_size % unit:
        return f"intermediate size is {config.intermediate_size}, expected a multiple of {unit} here"
    return None


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel. EngineError where it cannot be built."""
    try:
        loaded = build(SOURCE)
    except BuildError as error:
        raise EngineError(f"engine.native: {error}") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.scratch_size.restype = number
    loaded.scratch_size.argtypes = [pointer, number, number]
    loaded.decode.argtypes = [pointer, number, pointer, pointer, pointer, number, number, pointer, pointer]
    loaded.decode_bfloat16.argtypes = loaded.decode.argtypes
    loaded.draw.restype = None
    loaded.draw.argtypes = [number, number, number, pointer, pointer, pointer, pointer]
    for name in ("panel_width", "vector_width"):
        getattr(loaded, name).restype = number
    return loaded

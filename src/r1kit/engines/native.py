"""The passes of a small decoder, and whole steps of sampling, as C++ calls: built on request.

`decode.cpp` beside this file is built by `models/native/build.py`. In float32 it equals PyTorch to rounding; in
bfloat16, which needs AMX, weights, cache and the factors of products are rounded and every sum is float32.
`PreparedDecoder` is the fallback and the oracle (tests/engines/test_native.py). A row's result never depends on its
neighbours, so this form is deterministic by construction.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.blocks import BlockCache
from r1kit.engines.prepared import PreparedDecoder
from r1kit.engines.protocol import EngineError
from r1kit.models.native.build import BuildError, build, turns

SOURCE = Path(__file__).with_name("decode.cpp")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BLOCK = 32  # rows and columns of one block in products.h
_WIDEST = 8  # vectors of one head that attention in decode_attention.h knows


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


# What `advance` reads and writes of every running response, a row for each; see Table in decode.cpp.
COLUMNS: Mapping[str, type] = {
    "lengths": np.int64,
    "counts": np.int64,
    "slots": np.int64,
    "limits": np.int64,
    "stops": np.int64,
    "tokens": np.int64,
    "logprobs": np.float64,
    "keys": np.uint64,
    "temperatures": np.float32,
    "greedy": np.bool_,
}


class _Table(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rows", "width", "stops_width")],
        *[(name, ctypes.c_void_p) for name in COLUMNS],
    ]


class Done(ctypes.Structure):
    """What some steps were: `failed` is a row whose scores are not numbers, or -1; the others are sums."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("steps", "row_steps", "tokens", "failed")],
        *[(name, ctypes.c_double) for name in ("decode_seconds", "attention_seconds", "sample_seconds")],
    ]


class NativeDecoder:
    """Passes over weights that `PreparedDecoder` has laid out (float32, on the CPU)."""

    def __init__(self, prepared: PreparedDecoder, precision: str = "float32") -> None:
        self._library = library()
        self.dtype = PRECISIONS[precision]
        self._half = self.dtype == torch.bfloat16
        reason = unsupported(prepared, _BLOCK if self._half else int(self._library.vector_width()))
        if self._half and not self._library.has_bfloat16():
            reason = "this processor has no bfloat16 matrix products (AMX): use float32"
        if reason:
            raise EngineError(f"engine.native: {reason}; or turn it off for this model")
        self.prepared, self.config = prepared, prepared.config
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._kept: list[Tensor] = []
        self.refresh()

    def refresh(self) -> None:
        """Take over the weights that `prepared` has now."""
        prepared, config = self.prepared, self.config
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
        """[K, N] as [N / panel, K, panel], zeros behind the last column up to whole blocks."""
        if self._half:
            return _bfloat16_panels(matrix_KN)
        wide = torch.nn.functional.pad(matrix_KN, (0, -matrix_KN.shape[1] % _BLOCK))
        return wide.view(len(wide), -1, int(self._library.panel_width())).transpose(0, 1).contiguous()

    def new_cache(self, slots: int) -> BlockCache:
        c = self.config
        return BlockCache(
            layers=c.num_layers, slots=slots, kv_heads=c.num_kv_heads, head_dim=c.head_dim, dtype=self.dtype
        )

    def new_logits(self, rows: int) -> Tensor:
        """Room for logits [rows, V], rows and columns in whole blocks."""
        return torch.empty(_whole(rows), _whole(self.config.vocab_size))

    def _room(self, rows: int, cache: BlockCache) -> int:
        needed = self._library.scratch_size(ctypes.byref(self._model), rows, cache.blocks)
        if needed > self._scratch.numel():
            self._scratch = torch.empty(needed, dtype=torch.uint8)
        return self._scratch.data_ptr()

    def decode(
        self,
        token_ids: Sequence[int] | np.ndarray,
        positions: Sequence[int] | np.ndarray,
        slots: Sequence[int] | np.ndarray,
        wanted: Sequence[int] | np.ndarray,
        cache: BlockCache,
        logits: Tensor,
    ) -> None:
        """One pass over n tokens at positions of slots of the cache, which grows by them; those of one slot in order.

        `logits`, from `new_logits`, gets the next-token logits of the `wanted` of them.
        """
        arrays = [np.ascontiguousarray(a, np.int64) for a in (token_ids, positions, slots, wanted)]
        ids, places, rows, wants = (a.ctypes.data for a in arrays)
        n, count, room = len(arrays[0]), len(arrays[3]), self._room(len(arrays[0]), cache)
        self._library.decode(
            ctypes.byref(self._model),
            self._half,
            n,
            ids,
            places,
            rows,
            cache.data.data_ptr(),
            cache.blocks,
            count,
            wants,
            room,
            logits.data_ptr(),
        )

    def advance(
        self, columns: Mapping[str, np.ndarray], n: int, steps: int, enough: int, cache: BlockCache, logits: Tensor
    ) -> Done:
        """Up to `steps` more tokens for responses 0..n-1, until `enough` of them have ended.

        `columns`, one for each of COLUMNS, are brought up to date, and so is `logits` in the rows of those that have
        not ended.
        """
        for name, dtype in COLUMNS.items():
            if columns[name].dtype != dtype or not columns[name].flags.c_contiguous:
                raise AssertionError(f"column {name} is not as C++ reads it")
        widths = (columns[name].shape[1] for name in ("tokens", "stops"))
        table = _Table(n, *widths, *(columns[name].ctypes.data for name in COLUMNS))
        rows, done = np.empty(2 * n, np.int64), Done(failed=-1)
        self._library.decode_steps(
            ctypes.byref(self._model),
            self._half,
            ctypes.byref(table),
            steps,
            enough,
            cache.data.data_ptr(),
            cache.blocks,
            self._room(n, cache),
            rows.ctypes.data,
            logits.data_ptr(),
            ctypes.byref(done),
        )
        return done


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


def draw(
    logits_nV: Tensor, uniforms: np.ndarray, temperatures: np.ndarray, greedy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 [n] and their log-probs float64 [n] under softmax(logits / temperature), by inverse transform
    sampling; the likeliest where `greedy`.

    The same tokens as `sampler.draw` on the softmax, to rounding. logits_nV float32 is written over.
    """
    n, vocab = logits_nV.shape
    if logits_nV.stride(0) % int(library().vector_width()):  # not as the passes give them
        logits_nV = torch.nn.functional.pad(logits_nV, (0, -vocab % int(library().panel_width())))
    tokens, logprobs = np.empty(n, np.int64), np.empty(n, np.float64)
    temperatures, greedy = np.ascontiguousarray(temperatures, np.float32), np.ascontiguousarray(greedy, np.bool_)
    library().draw(
        n,
        vocab,
        logits_nV.stride(0),
        logits_nV.data_ptr(),
        temperatures.ctypes.data,
        greedy.ctypes.data,
        uniforms.ctypes.data,
        tokens.ctypes.data,
        logprobs.ctypes.data,
    )
    return tokens, logprobs


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
    pointer, number, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    loaded.scratch_size.restype = number
    loaded.scratch_size.argtypes = [pointer, number, number]
    loaded.decode.restype = loaded.decode_steps.restype = loaded.draw.restype = None
    loaded.decode.argtypes = [pointer, flag, number, *[pointer] * 4, number, number, *[pointer] * 3]
    loaded.decode_steps.argtypes = [pointer, flag, pointer, number, number, pointer, number, *[pointer] * 4]
    loaded.draw.argtypes = [number, number, number, *[pointer] * 6]
    for name in ("panel_width", "vector_width"):
        getattr(loaded, name).restype = number
    return loaded

"""Log-probs and entropy at chosen tokens as one C++ call each way: the numbers of `chunked_logprobs` to rounding.

Its backward pass adds to the head's own `.grad`, as that of `NativePass` does for all other parameters. In bfloat16 the
factors of products are rounded; softmax and sums are float32. (tests/models/test_native_head.py holds it to PyTorch.)
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from r1kit.algorithms.entropy import check_logprob_inputs, chunked_logprobs
from r1kit.models import memory
from r1kit.models.decoder import Decoder
from r1kit.models.native.build import HEADERS, build, gradient_address


class _Head(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("vocab", "hidden")] + [(n, ctypes.c_void_p) for n in ("weight", "grad")]


class _Tokens(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int64), *[(n, ctypes.c_void_p) for n in ("hidden", "targets", "temperatures")]]


@cache
def _library() -> ctypes.CDLL:
    loaded = build(HEADERS / "head.cpp")
    head, tokens, pointer, half = ctypes.POINTER(_Head), ctypes.POINTER(_Tokens), ctypes.c_void_p, ctypes.c_int
    loaded.sizes.argtypes = [head, half, pointer]
    loaded.pack.argtypes = [head, half, pointer, pointer]
    for function in (loaded.forward, loaded.backward):
        function.argtypes = [head, half, tokens, *(pointer,) * 5]
    for function in (loaded.sizes, loaded.pack, loaded.forward, loaded.backward):
        function.restype = None
    return loaded


def token_logprobs(
    network: Any,
    hidden_TD: Tensor,
    targets_T: Tensor,
    temperature_T: Tensor | float = 1.0,
    *,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`chunked_logprobs` with the head of `network`, compiled where the network is.

    A gradient of the entropy is PyTorch's in any case.
    """
    head = getattr(network, "native_head", None)
    if head is None or entropy_gradient:
        return chunked_logprobs(
            hidden_TD, network.head_weight, targets_T, temperature_T, entropy_gradient=entropy_gradient
        )
    found: tuple[Tensor, Tensor] = head(hidden_TD, targets_T, temperature_T)
    return found


class NativeHead:
    """The compiled form of a decoder's head in training; `half`: products in bfloat16."""

    def __init__(self, model: Decoder, half: bool) -> None:
        self.model, self._half, self.stale = model, int(half), True
        needed = np.empty(2, np.int64)
        _library().sizes(self._describe(), self._half, needed.ctypes.data)
        self._packed, self._room = (memory.buffer(int(size)) for size in needed)

    def __call__(
        self, hidden_TD: Tensor, targets_T: Tensor, temperature_T: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """(logprobs [T], entropy [T]) as `chunked_logprobs`; the entropy carries no gradient."""
        weight = self.model.head_weight
        check_logprob_inputs(hidden_TD, weight, targets_T, temperature_T)
        targets = targets_T.long().contiguous()
        if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
            raise IndexError(f"targets from {targets.min()} to {targets.max()}, the vocabulary has {len(weight)}")
        temperatures: Tensor | None = None
        if isinstance(temperature_T, Tensor):
            temperatures = temperature_T.detach().float().contiguous()
        elif temperature_T != 1.0:
            temperatures = torch.full((len(targets),), float(temperature_T))
        logprobs, entropy = _Run.apply(hidden_TD, self, targets, temperatures)
        return logprobs, entropy

    def _describe(self, with_gradient: bool = False) -> _Head:
        weight = self.model.head_weight
        return _Head(*weight.shape, weight.data_ptr(), gradient_address(weight) if with_gradient else None)

    def _forward(self, tokens: _Tokens, *out: Tensor) -> None:
        head = self._describe()
        if self.stale:
            _library().pack(head, self._half, self._packed.data_ptr(), self._room.data_ptr())
            self.stale = False
        addresses = (self._packed, self._room, *out)
        _library().forward(head, self._half, tokens, *(a.data_ptr() for a in addresses))

    def _backward(self, tokens: _Tokens, softmax_2T: Tensor, grads: Tensor, hidden_grad: Tensor) -> None:
        if self.stale:
            raise RuntimeError("native: the parameters changed between the forward and the backward pass")
        addresses = (self._packed, self._room, softmax_2T, grads, hidden_grad)
        _library().backward(self._describe(True), self._half, tokens, *(a.data_ptr() for a in addresses))


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, head: NativeHead, targets_T: Tensor, temperature_T: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        hidden_TD = hidden_TD.contiguous()
        logprobs_T, entropy_T = torch.empty(2, len(targets_T))
        softmax_2T = torch.empty(2, len(targets_T))
        head._forward(_tokens(hidden_TD, targets_T, temperature_T), logprobs_T, entropy_T, softmax_2T)
        ctx.save_for_backward(hidden_TD, targets_T, temperature_T, softmax_2T)
        ctx.head = head
        ctx.mark_non_differentiable(entropy_T)
        return logprobs_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TD, targets_T, temperature_T, softmax_2T = ctx.saved_tensors
        hidden_grad = torch.empty_like(hidden_TD)
        tokens = _tokens(hidden_TD, targets_T, temperature_T)
        ctx.head._backward(tokens, softmax_2T, grad_T.float().contiguous(), hidden_grad)
        return hidden_grad, None, None, None


def _tokens(hidden_TD: Tensor, targets_T: Tensor, temperature_T: Tensor | None) -> _Tokens:
    temperatures = None if temperature_T is None else temperature_T.data_ptr()
    return _Tokens(len(targets_T), hidden_TD.data_ptr(), targets_T.data_ptr(), temperatures)

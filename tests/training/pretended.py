"""A second device that is made of the CPU: what would fail on a GPU fails here, and the numbers are real.

Where no GPU is at hand, tensors of this class say that they are elsewhere (on "meta", the one other device that
autograd of a build without CUDA runs on) while their numbers lie on the CPU. An operation that brings such a tensor
together with one of the CPU raises, as it does on a GPU; copies between the two, numbers without an axis and indices
may cross. Not shown by it: kernels, their precision and speed, asynchrony, memory, nccl.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = "meta"
aten = torch.ops.aten
MOVES = {aten._to_copy, aten.to}
COPIES = {*MOVES, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class DevicesMet(AssertionError):
    """A tensor of the CPU and one of the other device are operands of one operation."""


class There(Tensor):
    """A tensor that says it is on the other device; `here` holds its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=ELSEWHERE
        )
        made.here = here
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.here})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            args[0].here = args[1].here
            return None
        if func is Tensor.tolist:
            return args[0].here.tolist()
        if func == Tensor.grad.__set__ and args[1] is not None:  # type: ignore[attr-defined]
            _given.append((args[0], args[1]))
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
            if func is Tensor.backward:
                _into_given()
            return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


# Parameters that were given a gradient to add to. Autograd gives those of such a class a new one in its place.
_given: list[tuple[There, There]] = []


def _into_given() -> None:
    """What autograd made in place of a gradient, written into the one that was given."""
    for parameter, gradient in _given:
        if parameter.grad is not None and parameter.grad is not gradient:
            gradient.here.copy_(parameter.grad.here)  # type: ignore[attr-defined]
            parameter.grad = gradient


class _Elsewhere(TorchDispatchMode):
    """Sees the operations that make tensors on the other device out of nothing, or of tensors of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """`torch.tensor` of plain numbers is no operation that the other mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = (kwargs or {}).get("device")
        if func is torch.tensor and device is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        return func(*args, **(kwargs or {}))


@contextmanager
def elsewhere() -> Iterator[str]:
    """The other device's name, as long as there is one."""
    with _Elsewhere(), _Made():
        yield ELSEWHERE
    _given.clear()


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the numbers; its results are where its operands or its `device` say."""
    packet, leaves = func.overloadpacket, tree_leaves((args, kwargs))
    there = [x for x in leaves if isinstance(x, There)]
    device = next((x.type for x in leaves if isinstance(x, torch.device)), None)
    if not there and device != ELSEWHERE:
        return func(*args, **kwargs)
    operands = tree_leaves([x for i, x in enumerate(args) if i != 1] if packet in INDEXING else (args, kwargs))
    if there and packet not in COPIES and any(type(x) is Tensor and x.ndim for x in operands):
        raise DevicesMet(f"{func}: a tensor of the CPU meets one of the other device")
    if packet is aten._fused_sdp_choice:
        return 0  # the plain formula: the real device would choose a kernel of its own
    if packet is aten._conj:
        func = aten.conj_physical.default  # a wrapper cannot say that its numbers are to be read as conjugates
    with torch.inference_mode(False):  # a view of a parameter is no inference tensor, and nor may its wrapper be
        found = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
        if packet is aten.copy_ and not isinstance(args[0], There):
            return args[0]
        if packet in MOVES and device == "cpu":
            return found
        known = {id(x.here): x for x in there}  # what is changed in place stays the same object
        return tree_map(lambda x: _there(x, known) if isinstance(x, Tensor) else x, found)


def _numbers(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.here if isinstance(x, There) else x


def _there(numbers: Tensor, known: dict[int, There]) -> There:
    found = known.get(id(numbers))
    return There(numbers) if found is None else found

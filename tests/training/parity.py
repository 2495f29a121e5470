"""Comparison with TRL on one batch: both sides in the precision of the trainers, and both in float64.

Many elements of a gradient are sums that nearly cancel. In float32 such an element is known only to the rounding of its
largest terms, and two programs that add in another order cannot agree on it to 1e-5 of itself. What is asked in float32
is therefore a relative 1e-5 of the loss, of the norm of each tensor's gradient, and of each element beside the largest
of its tensor. In float64, where there is room, every element has to agree to a relative 1e-9: then the formulas are the
same, not only their sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor


@contextmanager
def in_doubles(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every float32 that either side asks for by name is a float64: norms, angles of positions, softmax."""
    for name in ("float32", "float"):
        patch.setattr(torch, name, torch.float64)
    patch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def widened(model: Any) -> Any:
    """A loaded model in the precision of the test."""
    return model.to(torch.get_default_dtype())


def assert_equal_gradients(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    """As the head of this module says, by the precision of the test."""
    exact = torch.get_default_dtype() == torch.float64
    compared = 0
    for name, theirs in want.items():
        ours, scale = got[name], theirs.abs().max().item()
        assert ours.dtype == theirs.dtype == torch.get_default_dtype(), name
        assert (ours - theirs).norm() <= (1e-12 if exact else 1e-5) * theirs.norm(), name
        tolerance = {"rtol": 1e-9, "atol": 1e-13 * scale} if exact else {"rtol": 1e-5, "atol": 1e-5 * scale}
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
        compared += scale > 0
    assert compared > 10


def assert_equal_loss(got: float, want: float) -> None:
    assert got == pytest.approx(want, rel=1e-13 if torch.get_default_dtype() == torch.float64 else 1e-5)


def gradients(model: Any) -> dict[str, Tensor]:
    """Of a Transformers model, each tensor once."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

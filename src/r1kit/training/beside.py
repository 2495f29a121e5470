"""What trained models share: how they run, how fast they learn, and how a checkpoint brings them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from r1kit.models.heads import ValueModel
from r1kit.models.native.training import NativePass
from r1kit.training.optim import FlatParameters


def compiled(model: Any, native: str, flat: FlatParameters | None = None) -> Any:
    """`model` as a stage runs it: itself, or its compiled form. `flat`: where its weights change, if they do."""
    if native == "off":
        return model
    if isinstance(model, ValueModel):
        trunk = compiled(model.trunk, native, flat)
        return lambda *inputs: model.values(trunk(*inputs))
    network = NativePass(model, native)
    if flat is not None:
        flat.on_publish.append(network.refresh)
    return network


def scaled_optimizer(settings: Any, factor: float) -> Any:
    """The stage's optimiser settings with every learning rate multiplied."""
    adam_lr = None if settings.adam_lr is None else settings.adam_lr * factor
    return settings.model_copy(update={"lr": settings.lr * factor, "adam_lr": adam_lr})


def trained_tensors(flat: FlatParameters, optimizer: Any) -> dict[str, Tensor]:
    """What brings a trained model back bit for bit, given one of its shape."""
    return {"master": flat.master, **{f"optimizer.{name}": t for name, t in optimizer.state().items()}}


def restore_trained(flat: FlatParameters, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `trained_tensors`, in place."""
    flat.master.copy_(tensors["master"])
    flat.publish()
    optimizer.load_state(under("optimizer.", tensors))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

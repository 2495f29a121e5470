"""Optimisers over one flat vector of parameters: AdamW, and Muon for matrices with AdamW for the rest.

All parameters become views of one contiguous vector, their gradients of another: one all-reduce, one clip, one fused
update, and a state that saves and resumes bit for bit. Where the model computes in half precision, the vector here is
the float32 master and the model's weights are refreshed from it after every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from r1kit.config.errors import UserError
from r1kit.training.parallel import World


class OptimizerSettings(Protocol):
    """What the recipe's `optimizer:` gives."""

    name: str
    lr: float
    adam_lr: float | None
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    momentum: float


class FlatParameters:
    """A module's parameters and gradients as two flat vectors.

    `master` is float32; where the module is float32 too, its parameters are views of `master`. With `common` the
    processes of `world` have one `master` where they can share memory (`is_common`), and each has to step its own part.
    """

    def __init__(self, model: nn.Module, world: World | None = None, *, common: bool = False) -> None:
        world = world or World.single()
        self.model = model
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        total = sum(p.numel() for p in self.parameters)
        first = self.parameters[0]
        self.shared = first.dtype == torch.float32
        self.on_publish: list[Callable[[], None]] = []
        master = world.common(total) if common and self.shared else None
        self.is_common = master is not None
        self.master = torch.empty(total, dtype=torch.float32, device=first.device) if master is None else master
        self.grad = world.window(total, first.dtype, first.device)
        for parameter, weight, grad in zip(
            self.parameters, self._views(self.master), self._views(self.grad), strict=True
        ):
            weight.copy_(parameter.detach())
            if self.shared:
                parameter.data = weight
            parameter.grad = grad

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        start = 0
        for parameter in self.parameters:
            yield flat[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    def named_views(self, flat: Tensor) -> dict[str, Tensor]:
        """`flat`, a vector like `master`, as arrays by parameter name."""
        return dict(zip(self.names, self._views(flat), strict=True))

    def zero_grad(self) -> None:
        self.grad.zero_()

    def clip_grad_(self, limit: float) -> float:
        """Scale the gradient to norm `limit` where it is longer; returns the norm before."""
        norm = torch.linalg.vector_norm(self.grad.float()).item()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient norm is {norm}: a loss or log-prob is not finite; look at the last rollouts, lower lr"
            )
        if limit > 0 and norm > limit:
            self.grad.mul_(limit / (norm + 1e-6))
        return norm

    def publish(self) -> None:
        """Refresh half-precision weights from the master, and tell those who keep a copy of the weights."""
        if not self.shared:
            with torch.no_grad():
                for parameter, weight in zip(self.parameters, self._views(self.master), strict=True):
                    parameter.copy_(weight)
        for changed in self.on_publish:
            changed()


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) on a flat float32 vector."""

    def __init__(
        self,
        size: int,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float,
        zeros: Callable[[int], Tensor] = torch.zeros,
    ) -> None:
        self.betas, self.weight_decay, self.eps = betas, weight_decay, eps
        self.first, self.second = zeros(size), zeros(size)
        self.count = 0

    def step_(self, weights: Tensor, grad: Tensor, lr: float) -> None:
        beta1, beta2 = self.betas
        self.count += 1
        self.first.lerp_(grad, 1 - beta1)
        self.second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction1, correction2 = 1 - beta1**self.count, 1 - beta2**self.count
        if self.weight_decay:
            weights.mul_(1 - lr * self.weight_decay)
        denominator = self.second.sqrt().div_(math.sqrt(correction2)).add_(self.eps)
        weights.addcdiv_(self.first, denominator, value=-lr / correction1)

    def state(self) -> dict[str, Tensor]:
        return {"first": self.first, "second": self.second, "count": torch.tensor(self.count)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.first.copy_(state["first"])
        self.second.copy_(state["second"])
        self.count = int(state["count"])

    def to(self, device: torch.device) -> AdamW:
        self.first, self.second = self.first.to(device), self.second.to(device)
        return self


# Quintic Newton-Schulz coefficients of Muon (Jordan et al. 2024): steep at 0, singular values end in about [0.7, 1.2].
_NS_A, _NS_B, _NS_C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices_BMN: Tensor, steps: int = 5, products: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrices, approximately, by `steps` Newton-Schulz iterations; M <= N is cheapest.

    The iteration forgives rounding: with `products` in bfloat16, as Muon was published, singular values end within
    a few percent of where they would (tests/training/test_optim.py).
    """
    x = (matrices_BMN / (matrices_BMN.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(products)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_NS_B, alpha=_NS_C), x, beta=_NS_A)
    return x.to(matrices_BMN.dtype)


@dataclass(frozen=True)
class _MatrixPart:
    """Rows [start, end) of a two-dimensional parameter, orthogonalised on their own (query apart from key)."""

    name: str
    start: int
    end: int


class Muon:
    """Muon for matrices inside the layers, AdamW for the embedding, head, norms and biases.

    Each rank orthogonalises its share of the matrices and one all-reduce joins them: the work is not done twice.
    Update: w -= lr * sqrt(max(1, rows / columns)) * orthogonalise(nesterov momentum of g). (Jordan et al. 2024.)
    """

    def __init__(
        self,
        flat: FlatParameters,
        settings: OptimizerSettings,
        world: World,
        products: torch.dtype = torch.float32,
    ) -> None:
        self.flat, self.settings, self.world, self.products = flat, settings, world, products
        self.parts = list(_matrix_parts(flat))
        is_matrix = torch.zeros_like(flat.master, dtype=torch.bool)
        self.matrices = sorted({part.name for part in self.parts})
        marks = flat.named_views(is_matrix)
        for name in self.matrices:
            marks[name].fill_(True)
        self.other = (~is_matrix).nonzero().squeeze(1)
        self._allocate()

    def _allocate(self) -> None:
        self.momentum = torch.zeros_like(self.flat.master)
        self.update = torch.zeros_like(self.flat.master)
        adam = AdamW(len(self.other), self.settings.betas, 0.0, self.settings.eps)
        self.adam = adam.to(self.flat.master.device)

    def step_(self, lr_scale: float) -> None:
        """One update; `lr_scale` multiplies both learning rates (warm-up and decay)."""
        s, flat = self.settings, self.flat
        grad = flat.grad.float()
        self.momentum.lerp_(grad, 1 - s.momentum)
        nesterov = grad.lerp(self.momentum, s.momentum)
        self.update.zero_()
        views, updates = flat.named_views(nesterov), flat.named_views(self.update)
        for shape_parts in self._by_shape():
            stack = torch.stack([_wide(views[p.name][p.start : p.end]) for p in shape_parts])
            for part, ortho in zip(shape_parts, orthogonalise(stack, products=self.products), strict=True):
                target = updates[part.name][part.start : part.end]
                rows, columns = target.shape
                scale = max(1.0, rows / columns) ** 0.5
                target.copy_(ortho.t() if rows > columns else ortho).mul_(scale)
        self.world.all_reduce_(self.update, "muon")
        if s.weight_decay:
            weights = flat.named_views(flat.master)
            for name in self.matrices:
                weights[name].mul_(1.0 - s.lr * lr_scale * s.weight_decay)
        flat.master.add_(self.update, alpha=-s.lr * lr_scale)
        others = flat.master[self.other]
        self.adam.step_(others, grad[self.other], (s.adam_lr or s.lr) * lr_scale)
        flat.master[self.other] = others
        flat.publish()

    def _by_shape(self) -> Iterator[list[_MatrixPart]]:
        """This rank's parts, those of one wide shape together, so that each iteration is one batched product."""
        groups: dict[tuple[int, ...], list[_MatrixPart]] = {}
        shapes = {name: view.shape for name, view in self.flat.named_views(self.flat.master).items()}
        for part in self.parts:
            rows, columns = part.end - part.start, shapes[part.name][1]
            groups.setdefault((min(rows, columns), max(rows, columns)), []).append(part)
        for parts in groups.values():
            mine = self.world.shard(parts)
            if mine:
                yield mine

    def state(self) -> dict[str, Tensor]:
        return {"momentum": self.momentum, **{f"adam.{k}": v for k, v in self.adam.state().items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.momentum.copy_(state["momentum"])
        self.adam.load_state({k.removeprefix("adam."): v for k, v in state.items() if k.startswith("adam.")})


class FlatAdamW:
    """AdamW over all parameters."""

    def __init__(self, flat: FlatParameters, settings: OptimizerSettings) -> None:
        self.flat, self.settings = flat, settings
        adam = AdamW(flat.master.numel(), settings.betas, settings.weight_decay, settings.eps)
        self.adam = adam.to(flat.master.device)

    def step_(self, lr_scale: float) -> None:
        self.adam.step_(self.flat.master, self.flat.grad.float(), self.settings.lr * lr_scale)
        self.flat.publish()

    def state(self) -> dict[str, Tensor]:
        return self.adam.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.adam.load_state(state)


def make_optimizer(flat: FlatParameters, settings: OptimizerSettings, world: World) -> Muon | FlatAdamW:
    """The optimiser a recipe names."""
    makers: dict[str, Callable[[], Muon | FlatAdamW]] = {
        "muon": lambda: Muon(flat, settings, world),
        "adamw": lambda: FlatAdamW(flat, settings),
    }
    if settings.name not in makers:
        raise ValueError(f"optimizer.name is {settings.name!r}: expected one of {sorted(makers)}")
    return makers[settings.name]()


def schedule(step: int, total: int, *, warmup: int, decay: str, minimum: float = 0.0) -> float:
    """Learning-rate factor of `step` (counted from 0): linear warm-up, then constant, linear or cosine to `minimum`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if decay == "constant":
        return 1.0
    if decay == "linear":
        return 1.0 - (1.0 - minimum) * progress
    if decay == "cosine":
        return minimum + (1.0 - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"decay is {decay!r}: expected 'constant', 'linear' or 'cosine'")


def warmup_length(settings: Any, stage: str, total: int) -> int:
    """Steps in which the learning rate rises. UserError where it would never reach its peak."""
    warmup = settings.warmup_steps or round(settings.warmup_share * total)
    if warmup > total:
        raise UserError(
            f"{stage}: warmup_steps is {warmup}, but the data make {total} steps: the learning rate would never reach "
            "lr; lower warmup_steps or train longer"
        )
    return int(warmup)


def _wide(matrix: Tensor) -> Tensor:
    return matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix


def _matrix_parts(flat: FlatParameters) -> Iterator[_MatrixPart]:
    """The matrices Muon owns: fused ones are taken apart, since each part is a map of its own."""
    config = getattr(flat.model, "config", None)
    for name, parameter in zip(flat.names, flat.parameters, strict=True):
        if parameter.ndim != 2 or "layers." not in name:
            continue
        rows = parameter.shape[0]
        if name.endswith(".qkv") and config is not None:
            bounds = [0, config.query_width, config.query_width + config.kv_width, rows]
        elif name.endswith(".gate_up"):
            bounds = [0, rows // 2, rows]
        else:
            bounds = [0, rows]
        for start, end in pairwise(bounds):
            yield _MatrixPart(name, start, end)

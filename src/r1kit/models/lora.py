"""Low-rank adapters on the matrices of a language model (Hu et al. 2021, arXiv 2106.09685).

    W = W0 + (alpha / rank) * B A        A [rank, in] random, B [out, rank] zero at the start, W0 frozen

The sum is made before the forward pass, and written into the inner model after every optimiser step: what samples, what
trains and what is saved are one plain model, so nothing has to be merged later and engine and trainer cannot disagree.
The model without its adapters, which preference and RL losses take as the reference, costs no memory beside W0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from r1kit.config.errors import UserError
from r1kit.models.checkpoint import write_decoder
from r1kit.models.decoder import Attend, Decoder
from r1kit.models.loading import LanguageModel


class LoRAModel(nn.Module):
    """`inner` behind the same interface; the only parameters are the adapters'.

    Adapters stand on every matrix inside the layers; a fused one (query, key and value; gate and up) shares its A.
    """

    inner: LanguageModel
    base: dict[str, Tensor]

    def __init__(self, inner: LanguageModel, *, rank: int, alpha: float, seed: int = 0) -> None:
        super().__init__()
        # Not a submodule: its weights are not this module's parameters.
        self.__dict__["inner"] = inner.requires_grad_(False)
        self.scale = alpha / rank
        self.targets = [n for n, p in inner.named_parameters() if p.ndim == 2 and "layers." in n]
        if not self.targets:
            raise UserError(
                f"lora: {type(getattr(inner, 'inner', inner)).__name__} has no matrices under the name 'layers', where "
                "adapters are put: leave lora out to train all of its weights, or choose another architecture"
            )
        weights = dict(inner.named_parameters())
        self.__dict__["base"] = {name: weights[name].detach().clone() for name in self.targets}
        generator = torch.Generator().manual_seed(seed)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for name in self.targets:
            rows, columns = weights[name].shape
            draw = torch.randn(rank, columns, generator=generator) * columns**-0.5
            self.down.append(nn.Parameter(draw.to(weights[name])))
            self.up.append(nn.Parameter(weights[name].new_zeros(rows, rank)))

    @property
    def config(self) -> Any:
        return self.inner.config

    @property
    def head_weight(self) -> Tensor:
        return self.inner.head_weight

    def merged(self) -> dict[str, Tensor]:
        """The adapted matrices by name, with gradient to the adapters."""
        parts = zip(self.targets, self.up, self.down, strict=True)
        return {name: torch.addmm(self.base[name], up, down, alpha=self.scale) for name, up, down in parts}

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D]; see `Decoder.forward`."""
        weights = self.merged() if torch.is_grad_enabled() else {}
        return functional_call(self.inner, weights, (token_ids_T, positions_T, attend))

    @torch.no_grad()
    def merge_(self) -> None:
        """Write the adapted matrices into the inner model; to be called whenever the adapters have changed."""
        weights = dict(self.inner.named_parameters())
        for name, matrix in self.merged().items():
            weights[name].copy_(matrix)

    def write(self, directory: str | Path) -> None:
        """The inner model, merged: a plain checkpoint."""
        if isinstance(self.inner, Decoder):
            write_decoder(self.inner, directory)
        else:
            self.inner.write(directory)


class BaseOf:
    """The model under the adapters, as it was before training: the reference of a LoRA policy."""

    def __init__(self, policy: LoRAModel) -> None:
        self.policy = policy

    @property
    def head_weight(self) -> Tensor:
        return self.policy.head_weight

    def state_dict(self) -> dict[str, Tensor]:
        """Its weights by name, those of the model that the adapters were put on."""
        return {**self.policy.inner.state_dict(), **self.policy.base}

    def __call__(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        return functional_call(self.policy.inner, self.policy.base, (token_ids_T, positions_T, attend))


def adapters(lora: Any, seed: int) -> Callable[[LanguageModel], LoRAModel] | None:
    """What puts a recipe's adapters (a LoRASettings) on a model; None where all weights are trained."""
    if lora is None:
        return None
    return lambda model: LoRAModel(model, rank=lora.rank, alpha=lora.alpha, seed=seed)


def plain_model(model: Any) -> Any:
    """The model that samples and is saved: what is under the adapters, merged; the model itself where it has none."""
    return model.inner if isinstance(model, LoRAModel) else model

"""The critic of PPO: a value for every token, from a trunk of its own or from one more head on the policy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from r1kit.algorithms.value_loss import value_loss
from r1kit.models.heads import ValueModel
from r1kit.models.loading import load_model
from r1kit.training.beside import compiled, restore_trained, scaled_optimizer, trained_tensors
from r1kit.training.examples import Example, MicroTokens, at_trained_tokens, micro_batches
from r1kit.training.optim import FlatParameters, make_optimizer
from r1kit.training.parallel import World


class _Head(nn.Module):
    """One number from a hidden state; zero at the start, so that the first values say nothing."""

    def __init__(self, output_VD: Tensor) -> None:
        """Of the width, type and device of the policy's output matrix."""
        super().__init__()
        self.weight = nn.Parameter(output_VD.new_zeros(output_VD.shape[1]))
        self.bias = nn.Parameter(output_VD.new_zeros(1))

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return hidden_TD.float() @ self.weight.float() + self.bias.float()


class Critic:
    """Values, their update, and their state. `settings` is a CriticSettings, `optimizer` the policy's settings."""

    def __init__(
        self,
        settings: Any,
        optimizer: Any,
        policy: Any,
        model_path: Path,
        world: World,
        dtype: str,
        native: str = "off",
    ) -> None:
        self.settings, self.world = settings, world
        self.shared = settings.trunk == "shared"
        self.head: Callable[[Tensor], Tensor]
        self._trunk: Any = None
        if self.shared:
            head = _Head(policy.head_weight)
            self.head, self.flat = head, FlatParameters(head, world)
        else:
            model = ValueModel(load_model(model_path, dtype=dtype, device=world.device), bias=True)
            self.head, self.flat = model.values, FlatParameters(model, world)
            self._trunk = compiled(model.trunk, native, self.flat)
        self.optimizer = make_optimizer(self.flat, scaled_optimizer(optimizer, settings.lr_factor), world)

    def values_of(self, tokens: MicroTokens, policy: Any) -> Tensor:
        """Values at the trained tokens of a micro-batch, [T]: those of the states in which they were chosen."""
        return self.head(tokens.forward(policy if self.shared else self._trunk))

    def score(self, policy: Any, examples: Sequence[Example], token_budget: int) -> Tensor:
        """Values of all trained tokens, float32 [T], equal on every rank."""
        return at_trained_tokens(lambda tokens: self.values_of(tokens, policy), examples, token_budget, self.world)

    def loss(self, tokens: MicroTokens, values_T: Tensor, z: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Value loss of a micro-batch: its part of the mean over the `z` trained tokens of the step."""
        old, returns = ([getattr(e, name) for e in tokens.examples] for name in ("old_values", "returns"))
        return value_loss(values_T, tokens.trained(old), tokens.trained(returns), z, clip=self.settings.clip)

    def update(
        self, policy: Any, examples: Sequence[Example], token_budget: int, lr_scale: float, grad_clip: float
    ) -> dict[str, float]:
        """Optimiser steps on the critic's own parameters, a trunk that is not shared included; equal on every rank."""
        totals, norms = {"value_loss": 0.0, "value_error": 0.0, "value_clip": 0.0}, []
        minibatches = [m for m in np.array_split(np.arange(len(examples)), self.settings.minibatches) if len(m)]
        for minibatch in minibatches:
            chosen = [examples[i] for i in minibatch]
            z = sum(e.trained_tokens for e in chosen)
            if not z:
                continue
            self.flat.zero_grad()
            for tokens in micro_batches(chosen, token_budget, self.world):
                loss, metrics = self.loss(tokens, self._trained_values(tokens, policy), float(z))
                loss.backward()
                for name, value in {"value_loss": loss.detach(), **metrics}.items():
                    totals[name] += value.item()
            norms.append(self.step_(lr_scale, grad_clip))
        names, count = list(totals), max(sum(e.trained_tokens for e in examples), 1)
        sums = dict(zip(names, self.world.sum([totals[n] for n in names], "value metrics"), strict=True))
        return {
            "value_loss": sums["value_loss"] / max(len(norms), 1),
            "value_error": sums["value_error"] / count,
            "value_clip": sums["value_clip"] / count,
            "value_grad_norm": float(np.mean(norms)) if norms else 0.0,
        }

    def _trained_values(self, tokens: MicroTokens, policy: Any) -> Tensor:
        if not self.shared:
            return self.values_of(tokens, policy)
        with torch.no_grad():
            hidden = tokens.forward(policy)
        return self.head(hidden)

    def step_(self, lr_scale: float, grad_clip: float) -> float:
        """Sum gradients over ranks, clip, one optimiser step; the norm before clipping."""
        self.world.all_reduce_(self.flat.grad, "critic gradients")
        norm = self.flat.clip_grad_(grad_clip)
        self.optimizer.step_(lr_scale)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        return trained_tensors(self.flat, self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        restore_trained(self.flat, self.optimizer, tensors)

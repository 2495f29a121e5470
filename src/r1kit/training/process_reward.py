"""PRIME's implicit process reward model: trained online on outcomes, it scores every token of a response.

Its model starts as the policy did and is compared with that start, which stays frozen (arXiv:2502.01456).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.implicit_prm import implicit_prm_loss, step_rewards, token_rewards
from r1kit.models.loading import load_model
from r1kit.training.beside import compiled, restore_trained, scaled_optimizer, trained_tensors
from r1kit.training.examples import Example, MicroTokens, at_trained_tokens, micro_batches
from r1kit.training.optim import FlatParameters, make_optimizer
from r1kit.training.parallel import World


class ProcessReward:
    """Token rewards, their online update, and their state. `settings` is a ProcessRewardSettings."""

    def __init__(
        self,
        settings: Any,
        optimizer: Any,
        model_path: Path,
        tokenizer: Any,
        world: World,
        dtype: str,
        native: str = "off",
    ) -> None:
        self.settings, self.world = settings, world
        model = load_model(model_path, dtype=dtype, device=world.device)
        self.flat = FlatParameters(model, world)
        self.network = compiled(model, native, self.flat)
        self.start = load_model(model_path, dtype=dtype, device=world.device)  # runs without gradient only
        self._start = compiled(self.start, native)
        self.optimizer = make_optimizer(self.flat, scaled_optimizer(optimizer, settings.lr_factor), world)
        self._ends_line: np.ndarray | None = None
        if settings.granularity == "step":
            texts = [tokenizer.decode([i]) for i in range(model.head_weight.shape[0])]
            self._ends_line = np.array(["\n" in text for text in texts])

    def rewards_of(self, tokens: MicroTokens) -> Tensor:
        """beta * log-ratio of each trained token of a micro-batch, at temperature 1, with gradient: [T]."""
        ours, _ = tokens.logprobs(self.network, 1.0)
        with torch.no_grad():
            theirs, _ = tokens.logprobs(self._start, 1.0)
        return token_rewards(ours, theirs, self.settings.beta)

    def score(self, examples: Sequence[Example], token_budget: int) -> tuple[Tensor, Tensor | None]:
        """(rewards [T] of all trained tokens, where they stand: None is at every token); equal on every rank."""
        rewards_T = at_trained_tokens(self.rewards_of, examples, token_budget, self.world)
        if self._ends_line is None:
            return rewards_T, None
        ends = np.concatenate([self._ends_line[e.targets[e.mask]] for e in examples])
        return step_rewards(rewards_T, torch.from_numpy(ends), torch.tensor([e.trained_tokens for e in examples]))

    def update(self, examples: Sequence[Example], token_budget: int, lr_scale: float) -> dict[str, float]:
        """One optimiser step on the outcomes of `examples`. Metrics, equal on every rank."""
        count = sum(e.trained_tokens > 0 for e in examples)
        self.flat.zero_grad()
        loss_sum, right = 0.0, 0.0
        for tokens in micro_batches(examples, token_budget, self.world):
            labels = torch.tensor([e.outcome for e in tokens.examples], device=tokens.device)
            rewards_T, owners = self.rewards_of(tokens), tokens.owners_T
            loss = implicit_prm_loss(rewards_T, owners, labels, float(count))
            loss.backward()
            loss_sum += loss.item()
            scores = rewards_T.new_zeros(len(labels)).index_add(0, owners, rewards_T.detach())
            right += ((scores > 0) == (labels > 0.5)).float().sum().item()
        self.world.all_reduce_(self.flat.grad, "process reward gradients")
        norm = self.flat.clip_grad_(self.settings.grad_clip)
        self.optimizer.step_(lr_scale)
        loss_sum, right = self.world.sum([loss_sum, right], "process reward metrics")
        return {"process_loss": loss_sum, "process_accuracy": right / max(count, 1), "process_grad_norm": norm}

    def tensors(self) -> dict[str, Tensor]:
        return trained_tensors(self.flat, self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        restore_trained(self.flat, self.optimizer, tensors)

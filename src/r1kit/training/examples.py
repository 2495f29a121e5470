"""Rollouts as the trainer sees them: arrays over predicted tokens, micro-batches, passes over a whole step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.models.attention import packed_attention, positions
from r1kit.models.native.head import token_logprobs
from r1kit.records import Rollout
from r1kit.training.packing import MicroBatch, balanced_shards, plan
from r1kit.training.parallel import World


@dataclass(frozen=True, eq=False)
class Example:
    """One rollout: arrays over its predicted tokens, [T - 1]. `mask` is True where the policy chose the token.

    `weights`: of a correction of what engine and trainer disagree on; `carries`: where policy gradient is taken;
    `old_values` and `returns`: the critic's; None where there is no such thing. `outcome` in [0, 1]: was it right.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    old_logprobs: np.ndarray
    temperatures: np.ndarray
    advantages: np.ndarray
    weights: np.ndarray | None = None
    carries: np.ndarray | None = None
    old_values: np.ndarray | None = None
    returns: np.ndarray | None = None
    outcome: float = 0.0

    @classmethod
    def of(cls, rollout: Rollout, advantage: float = 0.0, weights: np.ndarray | None = None) -> Example:
        """`weights`: along the whole stream of the rollout, as its other arrays."""
        ids = rollout.token_ids.astype(np.int64)
        return cls(
            ids[:-1],
            ids[1:],
            rollout.loss_mask[1:],
            rollout.logprobs[1:],
            np.where(rollout.loss_mask[1:], rollout.temperatures[1:], np.float32(1.0)),
            np.full(len(ids) - 1, advantage, dtype=np.float32),
            weights=None if weights is None else weights[1:],
            outcome=outcome(rollout),
        )

    @cached_property
    def trained_tokens(self) -> int:
        return int(np.count_nonzero(self.mask))

    def along(self, values: np.ndarray) -> np.ndarray:
        """Values of its trained tokens laid out along the stream, 0 elsewhere: [T - 1]."""
        stream = np.zeros(len(self.inputs), dtype=values.dtype)
        stream[self.mask] = values
        return stream


def outcome(rollout: Rollout) -> float:
    """Whether a response is right, in [0, 1]: its accuracy verdict, or its reward where there is no such verdict."""
    verdict = rollout.verdicts.get("accuracy")
    value = rollout.reward if verdict is None or verdict.score is None else verdict.score
    return min(max(float(value), 0.0), 1.0)


class MicroTokens:
    """The tensors of one micro-batch of `examples`, on `device`. Arrays named `_T` are over its trained tokens only.

    `self.examples` are those that are in it, in its order, and `owners_T` counts in them.
    """

    def __init__(self, micro: MicroBatch, examples: Sequence[Example], device: str = "cpu") -> None:
        own, micro = micro.alone()
        self.micro, self.examples, self.device = micro, [examples[i] for i in own], device
        examples = self.examples
        self.inputs = micro.tensor([e.inputs for e in examples], 0).to(device)
        self.chosen = micro.tensor([e.mask for e in examples], False).nonzero().squeeze(1).to(device)
        self.positions = positions(micro.segments).to(device)
        self.attend = packed_attention(micro.segments)
        self.targets_T = self.trained([e.targets for e in examples])
        self.temperatures_T = self.trained([e.temperatures for e in examples])
        self.owners_T = self.trained([np.full(len(e.inputs), i) for i, e in enumerate(examples)])

    def trained(self, arrays: Sequence[Any]) -> Tensor:
        """One array for each example, over its predicted tokens, as one tensor over trained tokens."""
        return self.micro.tensor(arrays, 0).to(self.device)[self.chosen]

    def forward(self, model: Any) -> Tensor:
        """What `model` makes of the tokens, at those that predict a trained one: [T, D] (values: [T]).

        The one place where models run in an update.
        """
        found: Tensor = model(self.inputs, self.positions, self.attend)
        return found.index_select(0, self.chosen)  # its gradient is several times as fast as that of found[chosen]

    def logprobs(self, model: Any, temperatures_T: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """(log-prob of each trained token, entropy there) under `model`, at the sampling temperatures by default."""
        at = self.temperatures_T if temperatures_T is None else temperatures_T
        return token_logprobs(model, self.forward(model), self.targets_T, at)


def share_of(examples: Sequence[Example], world: World) -> list[int]:
    """Indices of this rank's share; an example without a trained token is in none."""
    some = [i for i, e in enumerate(examples) if e.trained_tokens]
    return [some[i] for i in balanced_shards([len(examples[i].inputs) for i in some], world.size)[world.rank]]


def micro_batches(examples: Sequence[Example], token_budget: int, world: World) -> list[MicroTokens]:
    """This rank's share of `examples`, cut into micro-batches."""
    mine = [examples[i] for i in share_of(examples, world)]
    return [MicroTokens(micro, mine, world.device) for micro in plan([len(e.inputs) for e in mine], token_budget)]


@torch.no_grad()
def at_trained_tokens(
    compute: Callable[[MicroTokens], Tensor], examples: Sequence[Example], token_budget: int, world: World
) -> Tensor:
    """`compute` (a value for each trained token of a micro-batch) over all examples: float32 [T] on the CPU, in their
    order.

    Each rank runs its share; the sum over ranks adds zeros only, so every rank holds the same bits.
    """
    starts = np.concatenate([[0], np.cumsum([e.trained_tokens for e in examples])])
    flat = torch.zeros(int(starts[-1]))
    mine = share_of(examples, world)
    own = [examples[i] for i in mine]
    for micro in plan([len(e.inputs) for e in own], token_budget):
        tokens = MicroTokens(micro, own, world.device)
        values = compute(tokens).float().cpu().split([e.trained_tokens for e in tokens.examples])
        for i, part in zip(micro.alone()[0], values, strict=True):
            flat[starts[mine[i]] : starts[mine[i] + 1]] = part
    return world.all_reduce_(flat, "scores")


def by_example(values_T: Tensor, examples: Sequence[Example]) -> list[np.ndarray]:
    """Values of all trained tokens, along the stream of each example."""
    parts = values_T.numpy().astype(np.float32, copy=False)
    ends = np.cumsum([e.trained_tokens for e in examples])[:-1]
    return [e.along(part) for e, part in zip(examples, np.split(parts, ends), strict=True)]

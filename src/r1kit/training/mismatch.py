"""Measures and corrects the gap between the engine that sampled and the trainer, on the groups of a step.

The trainer computes the log-probs of the sampled tokens itself, before the update. The gap is measured before anything
is masked. Where a correction is on, the trainer's log-probs become the old log-probs of the policy loss, and each token
gets a weight (three policies: engine, trainer before the update, trainer during it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.mismatch import correction_weights, gap_statistics
from r1kit.records import Group
from r1kit.training.examples import Example, at_trained_tokens, by_example
from r1kit.training.parallel import World

# The noise floor is measured on at most so many responses.
NOISE_RESPONSES = 64


@dataclass(frozen=True)
class Corrected:
    """Groups as they are to be trained, the weights of the tokens by id() of their rollout (None: all 1), and what was
    measured."""

    groups: list[Group]
    weights: dict[int, np.ndarray] | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Sides:
    """What tells the engine from the trainer: whether both hold the same parameters, and the types in which each
    multiplies matrices ("float32", "bfloat16")."""

    own_weights: bool
    engine: str
    trainer: str

    @classmethod
    def of(cls, engine: Any, policy: Any, settings: Any, dtype: str) -> Sides:
        """Of an RL stage: compiled passes have a type of their own, everything else multiplies in `dtype`."""
        natives = (settings.engine.native, settings.native)
        types = (dtype if native == "off" else native for native in natives)
        return cls(engine.model is policy, *types)

    @property
    def alike(self) -> bool:
        """True where the engine is the trainer's own: nothing but the order of sums is left to differ."""
        return self.own_weights and self.engine == self.trainer

    def __str__(self) -> str:
        if not self.own_weights:
            return "the engine has weights of its own"
        if self.alike:
            return f"the engine has the trainer's weights, and both multiply in {self.engine}"
        return f"the engine multiplies in {self.engine}, the trainer in {self.trainer}"


class Mismatch:
    """`settings` is a MismatchSettings; `auto` corrects where engine and trainer are not alike.

    `measured`: the stage has done so once, which is all that a checkpoint keeps of it.
    """

    def __init__(self, settings: Any, sides: Sides, *, world: World, measured: bool = False) -> None:
        self.settings, self.sides, self.world, self.measured = settings, sides, world, measured
        auto = "off" if sides.alike else "token_tis"
        self.correction: Any = auto if settings.correction == "auto" else settings.correction

    def described(self) -> str:
        """What is done about the gap, and why, in one line."""
        why = f"auto: {self.sides}" if self.settings.correction == "auto" else f"by the recipe; {self.sides}"
        return f"mismatch correction: {self.correction} ({why})"

    def apply(self, model: Any, groups: Sequence[Group], token_budget: int) -> Corrected:
        """Measure and correct, where a correction is on; else measure the first groups. Equal on every rank."""
        groups = list(groups)
        rollouts = [rollout for group in groups for rollout in group]
        if (self.correction == "off" and self.measured) or not any(rollout.loss_mask.any() for rollout in rollouts):
            return Corrected(groups, None, {})
        examples = [Example.of(rollout) for rollout in rollouts]
        trainer_T = trainer_logprobs(model, examples, token_budget, self.world)
        engine_T = torch.from_numpy(np.concatenate([e.old_logprobs[e.mask] for e in examples]))
        owners_T = _owners(examples)
        metrics = gap_statistics(trainer_T, engine_T, owners_T)
        if not self.measured:
            metrics |= self._noise_floor(model, examples, trainer_T)
        self.measured = True
        if self.correction == "off":
            return Corrected(groups, None, metrics)
        weights_T = correction_weights(self.correction, trainer_T, engine_T, owners_T, **self._bounds())
        metrics["correction_weight"] = weights_T.mean().item()
        metrics["correction_masked"] = (weights_T == 0).float().mean().item()
        # Streams begin with a token that nothing predicts.
        recomputed = iter(np.pad(row, (1, 0)) for row in by_example(trainer_T, examples))
        groups = [replace(g, rollouts=tuple(replace(r, logprobs=next(recomputed)) for r in g)) for g in groups]
        weights = (np.pad(row, (1, 0)) for row in by_example(weights_T, examples))
        return Corrected(groups, {id(r): next(weights) for g in groups for r in g}, metrics)

    def _bounds(self) -> dict[str, Any]:
        s = self.settings
        if self.correction == "geometric_mask":
            return {"low": s.geometric_low, "high": s.geometric_high}
        return {"cap": s.cap, "low": s.low, "high": s.high}

    def _noise_floor(self, model: Any, examples: Sequence[Example], trainer_T: Tensor) -> dict[str, float]:
        """The trainer against itself with other micro-batches: no engine can agree with it better than this."""
        counts = [e.trained_tokens for e in examples]
        some = [i for i, count in enumerate(counts) if count][:NOISE_RESPONSES]
        chosen = [examples[i] for i in some]
        again_T = trainer_logprobs(model, chosen, max(len(e.inputs) for e in chosen), self.world)
        parts = trainer_T.split(counts)
        found = gap_statistics(again_T, torch.cat([parts[i] for i in some]), _owners(chosen))
        return {f"noise_{name}": found[f"gap_{name}"] for name in ("mean", "p95", "max", "sequence_max")}


def _owners(examples: Sequence[Example]) -> Tensor:
    """Index of the response of each trained token, [T]."""
    counts = torch.tensor([e.trained_tokens for e in examples])
    return torch.repeat_interleave(torch.arange(len(examples)), counts)


def describe(metrics: dict[str, float]) -> str:
    """One line for the start of a run: the gap beside the noise floor."""

    def spread(kind: str) -> str:
        mean, p95, most, whole = (metrics[f"{kind}_{name}"] for name in ("mean", "p95", "max", "sequence_max"))
        return f"{mean:.2g} a token (p95 {p95:.2g}, max {most:.2g}), {whole:.2g} at most a response"

    return f"log-probs: engine and trainer differ by {spread('gap')}; the trainer from itself by {spread('noise')}"


def trainer_logprobs(model: Any, examples: Sequence[Example], token_budget: int, world: World) -> Tensor:
    """The model's own log-prob of every trained token at the temperature it was sampled at: float32 [T]."""
    return at_trained_tokens(lambda tokens: tokens.logprobs(model)[0], examples, token_budget, world)

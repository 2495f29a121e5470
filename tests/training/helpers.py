"""A tiny policy, made-up groups, and the update of one step on them: shared by tests and by rank_jobs.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from r1kit.config.parts import OptimizerSettings
from r1kit.config.schema import RLSettings
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.records import Group, Message, Problem, Rollout
from r1kit.training import packing
from r1kit.training.neftune import EmbeddingNoise
from r1kit.training.optim import FlatParameters, Muon
from r1kit.training.parallel import World
from r1kit.training.roles import Roles
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, token_step
from r1kit.training.update import update

VOCABULARY = 23
NO_TOKENIZER: Any = None


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Decoder:
    """A decoder of a few thousand parameters whose logits are far from uniform."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 4,
        "intermediate_size": 24,
        "model_type": "llama",
        "max_positions": 64,
    }
    model = Decoder(DecoderConfig(**{**sizes, **changes}))
    initialise(model, seed, std=0.3)
    return model.to(dtype)


def problem(name: str, prompt: str = "Q:1>1\n") -> Problem:
    return Problem(name, (Message("text", prompt),), "countdown", {"target": 1})


def random_group(name: str, generator: np.random.Generator, *, samples: int = 3) -> Group:
    """Rollouts of different lengths: some tokens forced, two temperatures, log-probs that are somewhat off."""
    rollouts = []
    prompt = int(generator.integers(1, 5))
    for sample in range(samples):
        length = prompt + int(generator.integers(1, 14))
        mask = np.arange(length) >= prompt
        mask[prompt:-1] &= generator.random(length - prompt - 1) > 0.15
        temperature = float(generator.choice([0.7, 1.0]))
        rollouts.append(
            Rollout(
                problem_id=name,
                sample=sample,
                prompt_length=prompt,
                token_ids=generator.integers(0, VOCABULARY, length),
                loss_mask=mask,
                logprobs=np.where(mask, generator.normal(-3.0, 1.0, length), 0.0),
                policy_versions=np.where(mask, 4, -1),
                temperatures=np.where(mask, temperature, 0.0),
                finish="stopped",
                rewards={"accuracy": float(generator.integers(0, 3)) / 2},
            )
        )
    return Group(problem(name), tuple(rollouts))


def random_groups(count: int, seed: int = 0) -> list[Group]:
    generator = np.random.default_rng(seed)
    return [random_group(f"p{i}", generator) for i in range(count)]


def with_rewards(groups: Sequence[Group], factor: float) -> list[Group]:
    """The same rollouts with every reward multiplied."""
    return [
        replace(g, rollouts=tuple(r.scored(r.verdicts, {"accuracy": factor * r.reward}) for r in g)) for g in groups
    ]


def rl_settings(**changes: Any) -> RLSettings:
    """Recipe settings of an `rl` stage; plain gradient descent is not offered, so tests read the gradient itself."""
    values: dict[str, Any] = {
        "model": "base",
        "token_budget": 400,
        "sampling": {"max_tokens": 20},
        "algorithm": {"clip_low": 0.2, "clip_high": 0.28},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "grad_clip": 0.0,
    }
    return RLSettings.model_validate({**values, **changes})


def session(world: World | None = None, model: Decoder | None = None, optimizer: Any = None) -> Session:
    """A training session in memory, started from `model`."""
    made = model or tiny_model()
    settings = optimizer or rl_settings().optimizer
    nowhere = Path("no-such-directory")
    return Session(
        nowhere, world or World.single(), settings, lambda: made, NO_TOKENIZER, dtype="float32", keep_checkpoints=1
    )


@dataclass(frozen=True)
class UpdateCase:
    """One way to cut up the same step."""

    token_budget: int = 400
    reverse: bool = False
    segment_cost: int = packing.SEGMENT_COST_TOKENS
    aggregation: str = "token_mean"


# The same step whole, in small micro-batches, in another order, with a segment for every length, and with one for all.
UPDATE_CASES = {
    "whole": UpdateCase(),
    "small budget": UpdateCase(token_budget=21),
    "reversed": UpdateCase(token_budget=60, reverse=True),
    "no padding": UpdateCase(token_budget=60, segment_cost=0),
    "much padding": UpdateCase(token_budget=120, segment_cost=10_000),
}


def updated(world: World, case: UpdateCase) -> dict[str, np.ndarray]:
    """The gradient of one step (after the sum over ranks), the weights after it, and its metrics."""
    groups = random_groups(6)
    if case.reverse:
        groups = [replace(g, rollouts=g.rollouts[::-1]) for g in groups[::-1]]
    algorithm = {"clip_low": 0.2, "clip_high": 0.28, "kl_coef": 0.1, "aggregation": case.aggregation}
    settings = rl_settings(token_budget=case.token_budget, algorithm=algorithm)
    state = session(world)
    with patch.object(packing, "SEGMENT_COST_TOKENS", case.segment_cost):
        metrics = update(state, groups, settings, 1.0, Roles(tiny_model(seed=9).requires_grad_(False)))
    steady = {name: value for name, value in metrics.items() if name != "padding"}
    return {
        "grad": state.flat.grad.numpy(),
        "weights": state.flat.master.numpy(),
        "padding": np.array(metrics["padding"]),
        "metrics": np.array([steady[name] for name in sorted(steady)]),
    }


def token_sequences(count: int = 7, seed: int = 0) -> list[TokenSequence]:
    """Sequences of different lengths, some of their tokens context, thought and answer of different weight."""
    generator = np.random.default_rng(seed)
    made = []
    for key in range(count):
        length = int(generator.integers(4, 20))
        weights = generator.choice(np.array([0.0, 0.5, 1.0], dtype=np.float32), length)
        weights[-1] = 1.0
        made.append(TokenSequence(generator.integers(0, VOCABULARY, length), weights, key))
    return made


def token_stepped(world: World) -> dict[str, np.ndarray]:
    """The gradient of one supervised step (after the sum over ranks), with noise on the embeddings, and its result."""
    state = session(world)
    noise = EmbeddingNoise(state.model, 5.0, seed=3)
    result = token_step(state, token_sequences(), rl_settings(token_budget=40), 1.0, accuracy=True, noise=noise)
    return {"grad": state.flat.grad.numpy(), "result": np.array([result.loss, result.norm, result.accuracy])}


def muon_steps(world: World, steps: int = 3) -> dict[str, np.ndarray]:
    """Weights after a few Muon steps on made-up gradients that are equal on every rank."""
    model = tiny_model(qkv_bias=True)
    flat = FlatParameters(model)
    settings = OptimizerSettings(name="muon", lr=0.02, adam_lr=3e-3, weight_decay=0.1)
    optimizer = Muon(flat, settings, world)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        flat.grad.copy_(torch.randn(flat.grad.shape, generator=generator))
        optimizer.step_(1.0)
    return {"weights": flat.master.numpy(), "momentum": optimizer.momentum.numpy()}

"""One update of any preset on made-up groups, cut up in any way: over ranks, micro-batches, packings and orders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from r1kit.config.rl import RLSettings
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.training import packing
from r1kit.training.credit import filter_groups
from r1kit.training.packing import balanced_shards, plan
from r1kit.training.parallel import World
from r1kit.training.roles import Roles
from r1kit.training.session import Session
from r1kit.training.update import update

from .helpers import random_groups, rl_settings

# What the presets do not use, each as a variation of one that is like it.
VARIATIONS: dict[str, dict[str, Any]] = {
    "opo": {"baseline": "length_weighted"},
    "gdpo": {"preset": "grpo", "per_reward": True},
    "lite_ppo": {"advantage": "batch_std"},
    "gmpo": {"preset": "gspo", "objective": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
    "k3_k2": {"kl_coef": 0.3, "kl_estimator": "k3_k2"},
    "gfpo": {"group_filter": {"kind": "gfpo", "keep": 2}},
    "roc": {"group_filter": {"kind": "roc", "keep": 2}},
    "80/20": {"entropy": {"top_share": 0.2}},
    "entropy bonus": {"entropy": {"coef": 0.05}},
    "shared critic": {"preset": "ppo_orz", "critic": {"trunk": "shared", "minibatches": 1}},
    "step rewards": {"preset": "prime", "process": {"granularity": "step", "update": "before"}},
}


@dataclass(frozen=True)
class Cut:
    """One way to cut up the same step. `parts`: micro-batches of each rank."""

    ranks: int = 1
    parts: int = 1
    segment_cost: int = packing.SEGMENT_COST_TOKENS
    reverse: bool = False


def preset_settings(name: str, **changes: Any) -> RLSettings:
    """A preset or one of VARIATIONS. A critic has one minibatch: which responses share one depends on their order."""
    algorithm = dict(VARIATIONS.get(name) or {"preset": name.split()[0]})
    if name == "ppo_orz":
        algorithm["critic"] = {"minibatches": 1}
    return rl_settings(**{"algorithm": algorithm, "samples_per_problem": 3, **changes})


def opened(name: str, base: Path, world: World, **changes: Any) -> tuple[Session, Roles, RLSettings]:
    """Session and roles at `base`, the roles moved away from where they start, as they are after some steps."""
    settings = preset_settings(name, **changes)
    session = Session(
        Path("no-such-directory"), world, settings.optimizer, lambda: load_model(base, device=world.device),
        load_tokenizer(base),
        dtype="float32", keep_checkpoints=1, native=settings.native,
    )  # fmt: skip
    roles = Roles.open([settings], base, session, "float32")
    generator = torch.Generator().manual_seed(3)
    for role in (roles.critic, roles.process):
        if role is not None:
            noise = 0.1 * torch.randn(role.flat.master.shape, generator=generator)
            role.flat.master.add_(noise.to(world.device))
            role.flat.publish()
    if roles.reference is not None:
        with torch.no_grad():
            for parameter in roles.reference.parameters():
                parameter.add_((0.05 * torch.randn(parameter.shape, generator=generator)).to(world.device))
    return session, roles, settings


def preset_gradients(world: World, name: str, base: Path, cut: Cut, native: str = "off") -> dict[str, np.ndarray]:
    """Gradients of policy, critic and process reward model after one update, and its metrics."""
    groups = random_groups(6)
    if cut.reverse:
        groups = [replace(g, rollouts=g.rollouts[::-1]) for g in groups[::-1]]
    kept = filter_groups(groups, preset_settings(name).algorithm)
    budget = budget_of([len(r.token_ids) - 1 for g in kept for r in g], cut)
    session, roles, settings = opened(name, base, world, token_budget=budget, native=native)
    metrics = update(session, groups, settings, 1.0, roles, step=100)
    found = {"policy": session.flat.grad}
    found |= {role: getattr(roles, role).flat.grad for role in ("critic", "process") if getattr(roles, role)}
    steady = {key: value for key, value in metrics.items() if key != "padding"}
    arrays = {key: gradient.cpu().numpy() for key, gradient in found.items()}
    return {**arrays, "metrics": np.array([steady[key] for key in sorted(steady)])}


def budget_of(lengths: Sequence[int], cut: Cut) -> int:
    """The smallest token budget with which each rank has just as many micro-batches as the cut says."""
    shards = [[lengths[i] for i in shard] for shard in balanced_shards(lengths, cut.ranks)]
    for budget in range(max(lengths), len(lengths) * max(lengths) + 1):
        if all(len(plan(shard, budget)) == cut.parts for shard in shards):
            return budget
    raise ValueError(f"no budget makes {cut.parts} micro-batches of the sequences of each of {cut.ranks} ranks")


def gradients_on_ranks(name: str, base: Path, cut: Cut) -> list[dict[str, np.ndarray]]:
    """`preset_gradients` on each rank of a cut. What a segment costs is set around them all: threads share it."""
    with patch.object(packing, "SEGMENT_COST_TOKENS", cut.segment_cost):
        return on_ranks(partial(preset_gradients, name=name, base=base, cut=cut), cut.ranks)


class ThreadWorld(World):
    """Ranks as threads of one process: the same calls as gloo's, cheap enough for every combination."""

    def __init__(self, rank: int, size: int, shared: list[Any], barrier: threading.Barrier) -> None:
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "size", size)
        self.__dict__.update(shares=False, shared=shared, meeting=barrier)

    def barrier(self, stage: str = "barrier") -> None:
        self.meeting.wait(30)

    def all_reduce_(self, tensor: Tensor, stage: str = "all_reduce") -> Tensor:
        self.shared[self.rank] = tensor.clone()
        self.meeting.wait(30)
        total = sum(self.shared[1:], start=self.shared[0])
        self.meeting.wait(30)
        return tensor.copy_(total)


def on_ranks(job: Callable[[World], dict[str, np.ndarray]], size: int) -> list[dict[str, np.ndarray]]:
    """What `job` gives on each of `size` ranks, run as threads."""
    if size == 1:
        return [job(World.single())]
    results: list[Any] = [None] * size
    shared, barrier = [None] * size, threading.Barrier(size)

    def run(rank: int) -> None:
        try:
            results[rank] = job(ThreadWorld(rank, size, shared, barrier))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
            raise result
    return results

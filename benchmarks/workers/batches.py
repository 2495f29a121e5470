"""What the training benchmarks train on, equal for ours and the peer, and how their useful work is counted.

Two kinds: "pretrain" (the recipe's documents, next-token loss) and "rl" (rollouts sampled from the checkpoint
before the clock starts, clipped policy loss). Useful tokens are those the model must process, padding apart;
useful flops count the head only where the loss needs logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.workload import read_recipe, rl_settings, stage_of
from r1kit.config.machine import resolve_dtype, resolve_native
from r1kit.models.checkpoint import from_hf_config, read_config
from r1kit.records import Group
from r1kit.tasks import make_task
from r1kit.training.examples import Example
from r1kit.training.parallel import World
from r1kit.training.pretraining import encoded_documents, next_batch
from r1kit.training.recorder import NullRecorder

WARM_UP_STEPS = 2


@dataclass
class Work:
    """Useful tokens of timed steps: those the model must process, and those whose logits the loss needs."""

    processed: int = 0
    scored: int = 0

    def add(self, processed: int, scored: int) -> None:
        self.processed += processed
        self.scored += scored


class Batches:
    """Recipe and world of one measuring process. Options: "checkpoint", "recipe", "store", "folder"."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.options, self.rank, self.size = options, rank, size
        self.recipe = read_recipe(options["recipe"])
        self.dtype = resolve_dtype(self.recipe.dtype)
        self.checkpoint = Path(options["checkpoint"])
        self.world = World.connect(options["store"], rank, size)
        # Sessions look for a checkpoint to resume from: there is none.
        self.nowhere = Path(options["folder"]) / "none"
        self.pretraining = stage_of(self.recipe, "pretrain")

    def documents(self, order: dict[str, Any]) -> Any:
        """The endless stream of token arrays of pre-training."""
        stage = self.pretraining
        return encoded_documents(self.recipe.task, stage.corpus, order["seed"], stage.document_length)

    def document_steps(self, order: dict[str, Any]) -> list[list[np.ndarray]]:
        """The documents of warm-up and timed steps."""
        stream = self.documents(order)
        count = WARM_UP_STEPS + order["steps"]
        return [next_batch(stream, self.pretraining.tokens_per_step) for _ in range(count)]

    def native(self, order: dict[str, Any]) -> str:
        """The type of products of ours in C++ where the order asks for it, else off."""
        return resolve_native("on") if order.get("native") else "off"

    def sampler(self, order: dict[str, Any]) -> Any:
        """An RL run at its first step."""
        from r1kit.training.rl import RLRun

        settings = rl_settings(self.recipe, problems=order["problems"], max_tokens=order["max_tokens"], drop=True)
        settings = settings.model_copy(update={"native": self.native(order)})
        task = make_task(self.recipe.task)
        return RLRun(
            settings,
            "rl",
            self.checkpoint,
            task,
            order["seed"],
            self.world,
            NullRecorder(),
            self.nowhere,
            self.dtype,
        )

    def group_steps(self, rl: Any, order: dict[str, Any]) -> list[list[Group]]:
        """The groups that carry a gradient, of warm-up and timed steps; equal on every rank."""
        steps = []
        for _ in range(WARM_UP_STEPS + order["steps"]):
            _, chosen, _ = rl.sample_and_select()
            if not chosen:
                raise ValueError(
                    f"{self.checkpoint}: no group has responses of different reward, there is nothing to train on; "
                    "give a checkpoint that solves some problems"
                )
            steps.append([c.group for c in chosen])
        return steps

    def figures(self, work: Work, phases: dict[str, float]) -> dict[str, Any]:
        """Totals over all ranks, told by rank 0; the phases of each."""
        if self.rank:
            return {"phases": phases}
        config = from_hf_config(read_config(self.checkpoint))
        head = config.vocab_size * config.hidden_size
        flops = 6.0 * ((config.matmul_parameters - head) * work.processed + head * work.scored)
        return {"tokens": work.scored, "gflop": flops / 1e9, "phases": phases}


def examples_of(groups: Sequence[Group]) -> list[Example]:
    """Rollouts with their advantages (reward - group mean), in order."""
    return [
        Example.of(rollout, float(advantage))
        for group in groups
        for rollout, advantage in zip(group, group.rewards - group.rewards.mean(), strict=True)
    ]

"""Reinforcement learning as R1-Zero does it, with DAPO's repairs: one step, read from top to bottom.

    1. sample    draw problems, answer each G times with the current policy
    2. judge     rule rewards for accuracy and format
    3. select    drop groups whose rewards are all equal, carry useful surplus to the next step
    4. update    advantages within each group, clipped policy loss, token mean over the whole step
    5. record    metrics, rollouts, evaluation on held-out problems, checkpoint

GRPO is DAPO with one clip; Dr. GRPO is GRPO without the division by the standard deviation: they are settings here, not
trainers. (Shao et al. 2024, arXiv 2402.03300; DeepSeek-AI 2025, arXiv 2501.12948; Yu et al. 2025, arXiv 2503.14476.)
"""

from __future__ import annotations

import base64
import copy
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from r1kit.algorithms.dynamic_sampling import UsefulShare, problems_to_sample, take_groups, useful_groups
from r1kit.engines.local import LocalEngine
from r1kit.models.loading import LanguageModel, load_model, load_tokenizer
from r1kit.records import Problem
from r1kit.rewards import make_reward
from r1kit.tasks import Task
from r1kit.training.exchange import SampledGroup, interleave, pack_groups, unpack_groups
from r1kit.training.held_out import HeldOut
from r1kit.training.optim import schedule
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, Recorder, StageOutcome
from r1kit.training.sampling import GroupSampler, derived_seed, problem_at
from r1kit.training.session import Session
from r1kit.training.update import update


def train_rl(
    settings: Any,
    *,
    stage: str,
    model_path: Path,
    task: Task,
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Train the policy at `model_path` on the task's train problems, or go on from the last checkpoint."""
    run = RLRun(settings, stage, model_path, task, seed, world, recorder, directory, dtype)
    if run.step == 0:
        run.held_out.run(0)
    while run.step < settings.steps:
        run.advance()
        stop = world.broadcast(recorder.should_stop(), "stop")
        if run.step % settings.checkpoint_every == 0 or run.step == settings.steps or stop:
            run.save()
        if stop and run.step < settings.steps:
            raise Interrupted(
                f"{stage}: stopped after step {run.step} of {settings.steps}; the same command goes on from there"
            )
    return StageOutcome(
        model=directory / f"step-{settings.steps:06d}",
        tokens={name: int(value) for name, value in run.spent().items()},
        eval=run.held_out.last,
    )


class RLRun:
    """The state of one RL stage: policy, optimiser, engine, problem stream, carried groups."""

    def __init__(
        self,
        settings: Any,
        stage: str,
        model_path: Path,
        task: Task,
        seed: int,
        world: World,
        recorder: Recorder,
        directory: Path,
        dtype: str,
    ) -> None:
        self.settings, self.stage, self.seed = settings, stage, seed
        self.world, self.recorder = world, recorder
        tokenizer = load_tokenizer(model_path)
        self.session = Session(
            directory,
            world,
            settings.optimizer,
            lambda: load_model(model_path, dtype=dtype),
            tokenizer,
            dtype=dtype,
            keep_checkpoints=settings.keep_checkpoints,
        )
        self.problems: Sequence[Problem] = task.problems("train")
        self.engine = LocalEngine(
            self.session.model,
            tokenizer=tokenizer,
            slots=settings.engine.slots,
            deterministic=settings.engine.deterministic,
            native=settings.engine.native,
        )
        reward = make_reward(settings.reward, steps=settings.steps, seed=derived_seed(seed, stage, "reward"))
        self.sampler = GroupSampler(
            self.engine, tokenizer, task, reward, settings.sampling, settings.samples_per_problem
        )
        self.held_out = HeldOut(
            settings.evaluate,
            stage,
            task,
            self.engine,
            tokenizer,
            seed,
            world,
            recorder,
            self.session.state.get("held_out"),
        )
        self.reference = self._reference(model_path, dtype)
        self._restore(self.session.state)
        # Where nothing was saved yet the whole stage is done again, its evaluation at step 0 included.
        recorder.truncate(stage, self.session.last_recorded)

    def _reference(self, model_path: Path, dtype: str) -> LanguageModel | None:
        """The frozen policy the KL penalty pulls towards; None where there is no penalty."""
        if not self.settings.algorithm.kl_coef:
            return None
        reference = load_model(model_path, dtype=dtype).requires_grad_(False)
        if self.session.extra:
            for name, parameter in reference.named_parameters():
                parameter.copy_(self.session.extra[name])
        return reference

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = self.session.start_step
        self.cursor = int(state.get("cursor", 0))
        self.share = UsefulShare(**state.get("share", {}))
        self.carried = unpack_groups(base64.b64decode(state["carried"])) if state.get("carried") else []
        self.tokens = defaultdict(float, state.get("tokens", {"sampled": 0, "trained": 0, "discarded": 0}))
        self.engine.load_weights(self.step)

    def save(self) -> Path:
        # A reference that never changes is read from the model the stage started from.
        refreshed = self.settings.algorithm.reference_refresh > 0
        return self.session.save(
            self.step,
            {
                "cursor": self.cursor,
                "share": {"useful": self.share.useful, "sampled": self.share.sampled},
                "carried": base64.b64encode(pack_groups(self.carried)).decode(),
                "tokens": dict(self.tokens),
                "held_out": self.held_out.state(),
            },
            extra=dict(self.reference.named_parameters()) if self.reference and refreshed else None,
        )

    def spent(self) -> dict[str, float]:
        """Tokens by what became of them; held-out evaluation samples too, as in pre-training."""
        return {**self.tokens, "sampled": self.tokens["sampled"] + self.held_out.tokens_sampled}

    def advance(self) -> None:
        """One step of the algorithm."""
        s, clock = self.settings, {}
        started = time.perf_counter()

        # 1. sample and 2. judge
        fresh = self.sample_groups()
        clock["sample_s"] = time.perf_counter() - started

        # 3. select
        chosen, counts = self.select(fresh)

        # 4. update
        updated = time.perf_counter()
        lr_scale = schedule(self.step, s.steps, warmup=s.warmup_steps, decay=s.decay)
        metrics = {"lr": s.optimizer.lr * lr_scale}
        if chosen:
            groups = [c.group for c in chosen]
            metrics |= update(self.session, groups, s, lr_scale, self.reference)
        self.step += 1
        self.engine.load_weights(self.step)
        self.refresh_reference()
        clock["train_s"] = time.perf_counter() - updated

        # 5. record
        metrics |= counts | summary(fresh)
        self.tokens["sampled"] += metrics["tokens_sampled"]
        self.tokens["trained"] += metrics.get("tokens_trained", 0.0)
        self.tokens["discarded"] += metrics["tokens_discarded"]
        clock["step_s"] = time.perf_counter() - started
        clock["tokens_per_s"] = metrics["tokens_sampled"] / clock["step_s"]
        self.record(metrics, clock, fresh)

    def sample_groups(self) -> list[SampledGroup]:
        """As many judged groups as should give the step its useful ones; equal on every rank."""
        s, wanted = self.settings, self.settings.problems_per_step
        factor = s.dynamic_sampling.max_factor if s.dynamic_sampling.enabled else 1.0
        count = problems_to_sample(wanted - len(self.carried), self.share, max_factor=factor)
        problems = [problem_at(self.problems, self.cursor + i, self.seed) for i in range(count)]
        self.cursor += count
        distinct = list({p.id: p for p in problems}.values())
        mine = self.sampler.sample(
            self.world.shard(distinct), derived_seed(self.seed, self.stage, self.step), self.step + 1
        )
        shards = [unpack_groups(part) for part in self.world.gather_bytes(pack_groups(mine), "rollouts")]
        return interleave(shards)

    def select(self, fresh: Sequence[SampledGroup]) -> tuple[list[SampledGroup], dict[str, float]]:
        """Groups to train on now, and what became of the others."""
        dynamic, wanted = self.settings.dynamic_sampling, self.settings.problems_per_step
        judged = [f for f in fresh if not f.group.failed]
        useful = judged
        if dynamic.enabled and judged:
            keep = useful_groups(torch.tensor(np.stack([f.group.rewards for f in judged])))
            useful = [f for f, kept in zip(judged, keep.tolist(), strict=True) if kept]
            self.share = self.share.observe(len(useful), len(judged))
        taken_over = len(self.carried)
        chosen, surplus = take_groups(self.carried, useful, wanted)
        self.carried = surplus if dynamic.carry else []
        lost = [f for f in fresh if f not in useful] + ([] if dynamic.carry else surplus)
        counts = {
            "groups_sampled": len(fresh),
            "groups_trained": len(chosen),
            "groups_failed": len(fresh) - len(judged),
            "useful_groups": len(useful) / max(1, len(judged)),
            "carried_in": taken_over,
            "carried": len(self.carried),
            "tokens_discarded": float(sum(r.response_length for f in lost for r in f.group)),
        }
        return chosen, counts

    def refresh_reference(self) -> None:
        """Reference := policy every `reference_refresh` steps; checkpoints hold it, so that a resumed run has it."""
        every = self.settings.algorithm.reference_refresh
        if self.reference is None or not every or self.step % every:
            return
        self.reference = copy.deepcopy(self.session.model).requires_grad_(False)

    def record(self, metrics: dict[str, float], clock: dict[str, float], fresh: Sequence[SampledGroup]) -> None:
        s, recorder = self.settings, self.recorder
        if self.step % s.log_every == 0 or self.step == s.steps:
            recorder.metrics(self.stage, self.step, metrics, clock)
        if s.rollouts_every and (self.step % s.rollouts_every == 0 or self.step in (1, s.steps)):
            recorder.rollouts(self.stage, self.step, [f.group for f in fresh])
        # Where the carried groups fill the step nothing is sampled, and these have no value.
        shown = {n: metrics[n] for n in ("reward", "accuracy", "response_tokens") if n in metrics}
        recorder.progress(self.stage, self.step, s.steps, **shown, tokens_per_s=clock["tokens_per_s"])
        self.held_out.maybe_run(self.step, s.steps)


def summary(fresh: Sequence[SampledGroup]) -> dict[str, float]:
    """Means over all rollouts sampled in a step, dropped groups included: what the policy does now."""
    rollouts = [r for f in fresh for r in f.group if all(v.outcome == "score" for v in r.verdicts.values())]
    statistics = [s for f in fresh for s in f.statistics]
    values: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.rewards:  # none where another rollout of its group could not be judged
            values["reward"].append(rollout.reward)
        values["response_tokens"].append(rollout.response_length)
        values["truncated"].append(rollout.truncated)
        for name, verdict in rollout.verdicts.items():
            values[name].append(float(verdict.score or 0.0))
        for name, part in rollout.rewards.items():
            values[f"reward_{name}"].append(part)
    for row in statistics:
        for name, value in row.items():
            values[name].append(value)
    means = {name: float(np.mean(column)) for name, column in sorted(values.items())}
    means["tokens_sampled"] = float(sum(r.response_length for f in fresh for r in f.group))
    return means

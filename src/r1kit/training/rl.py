"""Reinforcement learning as R1-Zero does it, with DAPO's repairs: one step, read from top to bottom.

    1. sample    draw problems, answer each G times with the current policy
    2. judge     rule rewards for accuracy and format
    3. select    drop groups whose rewards are all equal, carry useful surplus to the next step
    4. update    advantages within each group, clipped policy loss, token mean over the whole step
    5. record    metrics, rollouts, evaluation on held-out problems, checkpoint
    6. watch     alarms, and the schedule's next phase

GRPO is DAPO with one clip; Dr. GRPO is GRPO without the division by the standard deviation: they are settings here, not
trainers. (Shao et al. 2024, arXiv 2402.03300; DeepSeek-AI 2025, arXiv 2501.12948; Yu et al. 2025, arXiv 2503.14476.)
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit.engines.local import LocalEngine
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.models.lora import adapters, plain_model
from r1kit.models.vocabulary import sampling_warnings
from r1kit.rewards import RewardFunction, make_reward
from r1kit.tasks import Task
from r1kit.training.alarms import Alarm, Alarms
from r1kit.training.exchange import SampledGroup, interleave, pack_groups, unpack_groups
from r1kit.training.group_queue import GroupQueue, as_trained
from r1kit.training.held_out import HeldOut
from r1kit.training.mismatch import Mismatch, Sides, describe
from r1kit.training.monitors import summary
from r1kit.training.optim import schedule
from r1kit.training.parallel import World
from r1kit.training.pools import ProblemPool
from r1kit.training.recompute import recompute_activations
from r1kit.training.recorder import Interrupted, Paused, Recorder, StageOutcome
from r1kit.training.roles import Roles
from r1kit.training.rollback import GoodSteps, roll_back
from r1kit.training.sampling import GroupSampler, derived_seed
from r1kit.training.schedules import PhaseWalk
from r1kit.training.score_sources import ScoreSource, score_sources
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
    judges: Mapping[str, Path] | None = None,
) -> StageOutcome:
    """Train the policy at `model_path` on the task's train problems, or go on from the last checkpoint.

    `judges`: the reward models of reward parts, by the part's name.
    """
    valued = settings.valued_parts
    needed = {name: path for name, path in (judges or {}).items() if name in valued}
    sources = score_sources(settings.reward, needed, dtype, world.device)
    while True:
        run = RLRun(settings, stage, model_path, task, seed, world, recorder, directory, dtype, sources)
        try:
            return run.train()
        except RolledBack:
            del run  # its memory goes before the next is opened, which resumes from the checkpoint gone back to


class RolledBack(Exception):
    """The stage went back to an earlier checkpoint; whoever holds it has to open it again."""


class RLRun:
    """The state of one RL stage: policy, optimiser, engine, problem stream, carried groups, phase, alarms."""

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
        sources: Mapping[str, ScoreSource] | None = None,
    ) -> None:
        self.settings, self.stage, self.seed = settings, stage, seed
        self.sources = sources or {}
        self.world, self.recorder, self.directory = world, recorder, directory
        tokenizer = load_tokenizer(model_path)
        self.session = Session(
            directory,
            world,
            settings.optimizer,
            lambda: load_model(model_path, dtype=dtype, device=world.device, tokenizer=tokenizer),
            tokenizer,
            dtype=dtype,
            keep_checkpoints=settings.keep_checkpoints,
            adapt=adapters(settings.lora, derived_seed(seed, stage, "lora")),
            native=settings.native,
        )
        policy = plain_model(self.session.model)
        if settings.recompute:
            recompute_activations(policy)
        e = settings.engine
        self.engine = LocalEngine(policy, tokenizer, slots=e.slots, deterministic=e.deterministic, native=e.native)
        state = self.session.state
        self.phases = PhaseWalk(settings, state.get("phases", {}))
        problems = task.problems("train")[: settings.problems]
        self.pool = ProblemPool(problems, seed, state)
        self.queue = GroupQueue(state)
        self.alarms = Alarms(settings.alarms, state.get("alarms", {}))
        self.mismatch = Mismatch(
            settings.mismatch,
            Sides.of(self.engine, policy, settings, dtype),
            world=world,
            measured=bool(state.get("gap_measured", False)),
        )
        longest = min(settings.token_budget, self.engine.max_length)
        self.sampler = GroupSampler(
            self.engine, tokenizer, task, self._reward(), settings.sampling, settings.samples_per_problem, longest
        )
        self.held_out = HeldOut(
            settings.evaluate, stage, task, self.engine, tokenizer, seed, world, recorder, state.get("held_out")
        )
        self.roles = Roles.open(self.phases.all, model_path, self.session, dtype)
        self._restore(state)
        # Where nothing was saved yet the whole stage is done again, its evaluation at step 0 included.
        recorder.truncate(stage, self.session.last_recorded)
        if not self.session.resumed:
            for line in sampling_warnings(policy, tokenizer, problems, model_path):
                recorder.note(stage, line)

    def _reward(self, before: RewardFunction | None = None) -> RewardFunction:
        """The reward of the next step; `before`: that of the last one."""
        s, seed = self.phases.now, derived_seed(self.seed, self.stage, "reward")
        return make_reward(s.reward, steps=s.steps, seed=seed, sources=self.sources, before=before)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = self.session.start_step
        self.tokens = defaultdict(float, state.get("tokens", {"sampled": 0, "trained": 0, "masked": 0, "discarded": 0}))
        windows = [alarm.window for alarm in self.alarms.settings.values() if alarm.action == "rollback"]
        self.good = GoodSteps(max(windows, default=1), state.get("good", ()))
        # Rollbacks so far, and alarm rows that the next step has to write because the rows after its own are gone.
        self.rollbacks = int(state.get("rollbacks", 0))
        self.announce: list[dict[str, Any]] = list(state.get("announce", ()))
        self.lr_factor = float(state.get("lr_factor", 1.0))
        self.engine.load_weights(self.step)

    def train(self) -> StageOutcome:
        """From here to the last step. Raises Interrupted, Paused or RolledBack."""
        s = self.settings
        for line in self.opening():
            self.recorder.note(self.stage, line)
        if not self.session.resumed:
            self.held_out.run(0)
            self._settle()
            if s.alarms.may_roll_back:
                self.save()  # there is always somewhere to go back to
        while self.step < s.steps:
            alarms = self.advance()
            stop = self.world.broadcast(self.recorder.should_stop(), "stop")
            if any(alarm.action == "rollback" for alarm in alarms):
                self._roll_back(next(alarm for alarm in alarms if alarm.action == "rollback"))
            pause = [alarm for alarm in alarms if alarm.action == "pause"]
            if self.step % s.checkpoint_every == 0 or self.step == s.steps or stop or pause:
                self.save()
            if pause and self.step < s.steps:
                raise Paused(f"{self.stage}: paused by {pause[0].message}. The same command goes on from there")
            if stop and self.step < s.steps:
                raise Interrupted(
                    f"{self.stage}: stopped after step {self.step} of {s.steps}; the same command goes on from there"
                )
        return StageOutcome(
            model=self.directory / f"step-{s.steps:06d}",
            tokens={name: int(value) for name, value in self.spent().items()},
            eval=self.held_out.last,
        )

    def opening(self) -> list[str]:
        """What a person should know of the stage before its first step."""
        s, phases = self.phases.now, len(self.settings.schedule)
        lines = [s.algorithm.described()] if s.algorithm.preset else []
        lines += [s.reward.described(), self.mismatch.described()]
        return lines + ([f"phase {self.phases.named} of {phases}: {self.phases.changes}"] if phases else [])

    def save(self) -> Path:
        # One that the user or an alarm asked for is no place to go back to: a run left alone has none there.
        if self.step % self.settings.checkpoint_every == 0:
            self.good.saved(self.step, quiet=self.alarms.quiet)
        return self.session.save(
            self.step,
            {
                **self.pool.state(),
                **self.queue.state(),
                **self.roles.state(),
                "tokens": dict(self.tokens),
                "held_out": self.held_out.state(),
                "gap_measured": self.mismatch.measured,
                "phases": self.phases.state(),
                "alarms": self.alarms.state(),
                "good": self.good.steps,
                "rollbacks": self.rollbacks,
                "announce": self.announce,
                "lr_factor": self.lr_factor,
            },
            extra=self.roles.tensors(self.settings.algorithm),
            protected=self.good.steps if self.settings.alarms.may_roll_back else (),
        )

    def spent(self) -> dict[str, float]:
        """Tokens by what became of them; held-out evaluation samples too, as in pre-training."""
        return {**self.tokens, "sampled": self.tokens["sampled"] + self.held_out.tokens_sampled}

    def advance(self) -> list[Alarm]:
        """One step of the algorithm; the alarms that fired after it."""
        s, clock = self.phases.now, {}
        started = time.perf_counter()

        # 1. sample, 2. judge and 3. select
        fresh, chosen, counts = self.sample_and_select()
        clock["reward_s"] = self.sampler.seconds["judge"]
        clock["sample_s"] = time.perf_counter() - started - clock["reward_s"]

        # 4. update
        updated = time.perf_counter()
        lr_scale = self.lr_factor * schedule(self.step, s.steps, warmup=s.warmup_steps, decay=s.decay)
        metrics = {"lr": s.optimizer.lr * lr_scale}
        if chosen:
            metrics |= self.train_on(chosen, lr_scale)
        self.step += 1
        self.engine.load_weights(self.step)
        self.roles.refresh(self.step, s.algorithm, self.session.model)
        clock["train_s"] = time.perf_counter() - updated

        # 5. record
        # What a group filter leaves out was sampled for nothing, as a group without signal was.
        counts["tokens_discarded"] += metrics.get("tokens_filtered", 0.0)
        metrics |= counts | summary(fresh) | self.pool.metrics(s.pools) | self.phases.metrics()
        self.tokens["sampled"] += metrics["tokens_sampled"]
        self.tokens["trained"] += metrics.get("tokens_trained", 0.0)
        self.tokens["masked"] += metrics.get("tokens_masked", 0.0)
        self.tokens["discarded"] += metrics["tokens_discarded"]
        clock["step_s"] = time.perf_counter() - started
        clock["tokens_per_s"] = metrics["tokens_sampled"] / clock["step_s"]
        clock["sample_tokens_per_s"] = metrics["tokens_sampled"] / max(clock["sample_s"], 1e-9)
        clock["train_tokens_per_s"] = metrics.get("tokens_trained", 0.0) / max(clock["train_s"], 1e-9)
        evaluation = self.record(metrics, clock, fresh)

        # 6. watch
        return self.watch(metrics, evaluation)

    def sample_and_select(self) -> tuple[list[SampledGroup], list[SampledGroup], dict[str, float]]:
        """(all groups sampled, those to train on now, what became of the others); equal on every rank."""
        s, queue, fresh = self.phases.now, self.queue, list[SampledGroup]()
        self.sampler.sampling, self.sampler.group_size = s.sampling, s.samples_per_problem
        self.sampler.seconds = {"sample": 0.0, "judge": 0.0}
        queue.begin(s, self.step)
        for number in range(s.dynamic_sampling.rounds):
            count = queue.problems(s)
            if not count:
                break
            groups = self.sample_groups(count, number)
            self.pool.observe(groups, s.pools)
            queue.add(groups, s)
            fresh += groups
        selection = queue.take(s, last=self.step + 1 == s.steps)
        return fresh, selection.chosen, selection.counts

    def sample_groups(self, count: int, number: int = 0) -> list[SampledGroup]:
        """Judged groups of the next `count` problems, in the `number`-th round of the step; equal on every rank."""
        problems = self.pool.draw(count, self.phases.now.pools)
        again = ("round", number) if number else ()
        # A stage that was rolled back with a new seed must not sample its way into the same hole.
        if self.rollbacks and self.settings.alarms.rollback.new_seed:
            again = (*again, "rollback", self.rollbacks)
        mine = self.sampler.sample(
            self.world.shard(problems), derived_seed(self.seed, self.stage, self.step, *again), self.step + 1
        )
        shards = [unpack_groups(part) for part in self.world.gather_bytes(pack_groups(mine), "rollouts")]
        return interleave(shards)

    def train_on(self, chosen: Sequence[SampledGroup], lr_scale: float) -> dict[str, float]:
        """The update on the chosen groups; its metrics, and those of the gap to the engine."""
        s = self.phases.now
        groups = as_trained(chosen, s.dynamic_sampling)
        corrected = self.mismatch.apply(self.session.network, groups, s.token_budget)
        if "noise_mean" in corrected.metrics:
            self.recorder.note(self.stage, describe(corrected.metrics))
        metrics = update(self.session, corrected.groups, s, lr_scale, self.roles, corrected.weights, step=self.step)
        return metrics | corrected.metrics

    def record(
        self, metrics: dict[str, float], clock: dict[str, float], fresh: Sequence[SampledGroup]
    ) -> dict[str, float] | None:
        """Write the step; its row of held-out evaluation, where one was made."""
        s, recorder = self.settings, self.recorder
        for row in self.announce:
            recorder.metrics(self.stage, self.step, row, {}, kind="alarm")
        self.announce = []
        if self.step % s.log_every == 0 or self.step == s.steps:
            recorder.metrics(self.stage, self.step, metrics, clock)
        if s.rollouts_every and (self.step % s.rollouts_every == 0 or self.step in (1, s.steps)):
            recorder.rollouts(self.stage, self.step, [f.group for f in fresh])
        # Where the carried groups fill the step nothing is sampled, and these have no value.
        shown = {n: metrics[n] for n in ("reward", "accuracy", "response_tokens") if n in metrics}
        recorder.progress(self.stage, self.step, s.steps, **shown, tokens_per_s=clock["tokens_per_s"])
        return self.held_out.maybe_run(self.step, s.steps)

    def watch(self, metrics: Mapping[str, float], evaluation: Mapping[str, float] | None) -> list[Alarm]:
        """Raise alarms and go on to the next phase where it is time."""
        alarms = [self._decided(alarm) for alarm in self.alarms.observe(self.step, metrics, evaluation)]
        for alarm in alarms:
            self.recorder.note(self.stage, f"alarm: {alarm.message} ({alarm.action})")
            if alarm.action != "rollback":  # its row would be taken back with the step
                self.recorder.metrics(self.stage, self.step, alarm.row(), {}, kind="alarm")
        self.phases.observe(metrics, evaluation)
        self._settle()
        return alarms

    def _settle(self) -> None:
        told = self.phases.settle(self.step)
        for line in told:
            self.recorder.note(self.stage, line)
        if told or self.phases.ramps:
            self.sampler.reward = self._reward(self.sampler.reward)

    def _decided(self, alarm: Alarm) -> Alarm:
        """The alarm with the action that is left: rollbacks are bounded."""
        limit = self.settings.alarms.rollback.limit
        if alarm.action != "rollback" or self.rollbacks < limit:
            return alarm
        message = f"{alarm.message}. {self.rollbacks} rollbacks did not help"
        return Alarm(alarm.name, "pause", alarm.step, message, alarm.numbers)

    def _roll_back(self, alarm: Alarm) -> None:
        """Go back to the last good checkpoint, with another seed or a lower learning rate as the recipe says."""
        told, back = self.settings.alarms.rollback, self.good.before(self.step)
        assert back is not None  # the stage saved its start
        lr_factor = self.lr_factor * told.lr_factor
        self.recorder.note(
            self.stage,
            f"rolls back from step {self.step} to step {back} "
            f"({self.rollbacks + 1} of at most {told.limit}; learning rate x {lr_factor:g}"
            f"{', new seed' if told.new_seed else ''})",
        )
        row = {**alarm.row(), "fired_at": self.step, "back_to": back, "lr_factor": lr_factor}
        if self.world.is_main:
            tokens = self.held_out.tokens_sampled
            roll_back(
                self.directory,
                back,
                lambda state: {
                    **state,
                    "rollbacks": self.rollbacks + 1,
                    "lr_factor": lr_factor,
                    "announce": [*state["announce"], row],
                    "tokens": _taken_back(self.tokens, state["tokens"]),
                    "held_out": {**state["held_out"], "tokens_sampled": tokens},
                },
            )
        self.world.barrier("rollback")
        raise RolledBack


def _taken_back(now: Mapping[str, float], then: Mapping[str, float]) -> dict[str, float]:
    """Token counts of a stage that goes back: all that was sampled since is spent, and discarded."""
    lost = now["sampled"] - then["sampled"]
    return {**then, "sampled": now["sampled"], "discarded": then["discarded"] + lost}

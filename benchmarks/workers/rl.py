"""Whole RL steps: r1kit's own stage code, and TRL's GRPOTrainer brought to the same step.

Same checkpoint, same prompts in the same order, same group size, cap, reward, learning rate, clipping and
loss (token mean over the whole step, advantage = reward - group mean, no KL), one AdamW step for each batch
of rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from harness.phases import PhaseClock
from harness.workload import read_recipe, rl_settings
from r1kit.models.loading import load_tokenizer
from r1kit.records import Problem, Rollout
from r1kit.rewards import make_reward
from r1kit.tasks import make_task
from r1kit.training.parallel import World
from r1kit.training.recorder import NullRecorder
from r1kit.training.sampling import problem_at

WARM_UP_STEPS = 1
# All responses of a process at once, in either form of decoding.
SLOTS = 128


class Rows(NullRecorder):
    """Keeps what a stage reports."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []
        self.clocks: list[dict[str, float]] = []

    def metrics(
        self,
        stage: str,
        step: int,
        values: Mapping[str, float],
        clock: Mapping[str, float],
        kind: str = "train",
    ) -> None:
        self.values.append(dict(values))
        self.clocks.append(dict(clock))


class OurSteps:
    """`RLRun.advance` of the recipe's RL stage, started anew from the checkpoint for every order."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.options, self.world = options, World.connect(options["store"], rank, size)
        self.recipe = read_recipe(options["recipe"])
        self.task = make_task(self.recipe.task)

    def prepare(self, order: dict[str, Any]) -> None:
        from r1kit.config.machine import resolve_dtype, resolve_native
        from r1kit.training.rl import RLRun

        o = self.options
        settings = rl_settings(self.recipe, problems=o["problems"], max_tokens=o["max_tokens"], drop=order["drop"])
        native = resolve_native("on") if order["native"] else "off"
        engine = settings.engine.model_copy(update={"native": native, "slots": SLOTS})
        settings = settings.model_copy(update={"engine": engine, "native": native})
        self.steps, self.rows = order["steps"], Rows()
        self.rl = RLRun(
            settings,
            "rl",
            Path(o["checkpoint"]),
            self.task,
            order["seed"],
            self.world,
            self.rows,
            Path(o["folder"]) / "none",
            resolve_dtype(self.recipe.dtype),
        )
        for _ in range(WARM_UP_STEPS):
            self.rl.advance()

    def run(self) -> dict[str, Any]:
        self.rows.values.clear()
        self.rows.clocks.clear()
        for _ in range(self.steps):
            self.rl.advance()
        phases = {
            "sample": sum(c["sample_s"] for c in self.rows.clocks),
            "judge": sum(c["reward_s"] for c in self.rows.clocks),
            "train": sum(c["train_s"] for c in self.rows.clocks),
        }
        phases["other"] = sum(c["step_s"] for c in self.rows.clocks) - sum(phases.values())
        if not self.world.is_main:
            # Every rank knows the whole step; it is counted once.
            return {"phases": phases}
        return {
            "tokens": sum(v["tokens_sampled"] for v in self.rows.values),
            "responses": sum(v["groups_sampled"] for v in self.rows.values) * self.rl.sampler.group_size,
            "trained": sum(v.get("tokens_trained", 0.0) for v in self.rows.values),
            "phases": phases,
        }


class _StepTimes:
    """The clock of whole trainer steps, from the first one after the warm-up to the end of the last."""

    def __init__(self, steps: int) -> None:
        self.last = WARM_UP_STEPS + steps
        self.started = self.ended = self.cpu = 0.0

    def begin(self, done: int) -> bool:
        """Called before every step; True where the timed ones begin."""
        if done != WARM_UP_STEPS:
            return False
        self.cpu, self.started = time.process_time(), time.perf_counter()
        return True

    def end(self, done: int) -> None:
        if done == self.last:
            self.ended, self.cpu = time.perf_counter(), time.process_time() - self.cpu


class TrlSteps:
    """GRPOTrainer on the CPU; one or several processes over gloo.

    options["dtype"] "float32" trains in float32; "bfloat16" loads the weights in bfloat16 and computes in it.
    order["micro"] is its per-device batch size; all rollouts of a step are generated in one call in any case.
    """

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.options, self.rank, self.size = options, rank, size
        self.recipe = read_recipe(options["recipe"])
        self.tokenizer = load_tokenizer(options["checkpoint"])
        self.settings = rl_settings(
            self.recipe, problems=options["problems"], max_tokens=options["max_tokens"], drop=False
        )
        self.task = make_task(self.recipe.task)
        self.clock = PhaseClock()
        self.lengths: list[list[int]] = []

    def prepare(self, order: dict[str, Any]) -> None:
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, TrainerCallback
        from trl import GRPOTrainer

        self.steps = order["steps"]
        self.lengths, self.clock = [], PhaseClock()
        self.times = times = _StepTimes(self.steps)
        phases = self.clock.seconds
        count = (WARM_UP_STEPS + self.steps) * self.options["problems"]
        train = self.task.problems("train")
        self.problems = [problem_at(train, i, order["seed"]) for i in range(count)]
        prompts = [prompt_text(self.tokenizer, p) for p in self.problems]

        class Watch(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                if times.begin(state.global_step):
                    phases.clear()

            def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                times.end(state.global_step)

        self.trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(self.options["checkpoint"], dtype=self.options["dtype"]),
            reward_funcs=self.reward,
            args=self.arguments(order),
            train_dataset=Dataset.from_dict({"prompt": prompts, "index": list(range(count))}),
            processing_class=self.tokenizer,
            callbacks=[Watch()],
        )

    def arguments(self, order: dict[str, Any]) -> Any:
        """GRPOConfig of the recipe's step. What TRL switches on by default and only costs time here is off."""
        from trl import GRPOConfig

        s, rollouts = self.settings, self.settings.problems_per_step * self.settings.samples_per_problem
        each = order["micro"] * self.size
        if rollouts % each:
            raise ValueError(f"micro {order['micro']} x {self.size} processes does not divide {rollouts} rollouts")
        return GRPOConfig(
            output_dir=self.options["folder"],
            max_steps=WARM_UP_STEPS + self.steps,
            per_device_train_batch_size=order["micro"],
            gradient_accumulation_steps=rollouts // each,
            num_generations=s.samples_per_problem,
            max_completion_length=s.sampling.max_tokens,
            temperature=s.sampling.temperature,
            loss_type="dapo",
            scale_rewards="none" if s.algorithm.advantage == "none" else "group",
            epsilon=s.algorithm.clip_low,
            epsilon_high=s.algorithm.clip_high,
            beta=0.0,
            learning_rate=s.optimizer.lr,
            lr_scheduler_type="constant",
            adam_beta1=s.optimizer.betas[0],
            adam_beta2=s.optimizer.betas[1],
            weight_decay=s.optimizer.weight_decay,
            max_grad_norm=s.grad_clip,
            bf16=self.options["dtype"] == "bfloat16",
            gradient_checkpointing=False,
            shuffle_dataset=False,
            seed=order["seed"],
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def reward(
        self,
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        index: Sequence[int],
        **rest: Any,
    ) -> list[float | None]:
        """The recipe's reward, judged by the same verifier; counts the tokens that were sampled."""
        self.lengths.append([len(ids) for ids in completion_ids])
        rule, cap = make_reward(self.settings.reward, steps=self.settings.steps), self.settings.sampling.max_tokens
        rewards: list[float | None] = []
        for text, ids, i in zip(completions, completion_ids, index, strict=True):
            problem = self.problems[i]
            rollout = _judgeable(problem, ids, text).scored(self.task.verify(problem, text), {})
            rewards.append(sum(rule.one(problem, rollout, max_tokens=cap, step=1).values()))
        return rewards

    def run(self) -> dict[str, Any]:
        with ExitStack() as stack:
            watched = {
                "_generate_single_turn": "sample",
                "_generate_and_score_completions": "reward",
                "training_step": "train",
            }
            for name, phase in watched.items():
                stack.enter_context(self.clock.wrapped(self.trainer, name, phase))
            self.trainer.train()
        # Clipping, optimiser and trainer: what the watched methods leave of the steps.
        phases = dict(self.clock.seconds)
        phases["other"] = max(0.0, self.times.ended - self.times.started - sum(phases.values()))
        timed = [length for step in self.lengths[WARM_UP_STEPS:] for length in step]
        return {
            "tokens": sum(timed),
            "responses": len(timed),
            "trained": sum(timed),
            "phases": phases,
            "started": self.times.started,
            "ended": self.times.ended,
            "cpu_seconds": self.times.cpu,
        }


def prompt_text(tokenizer: Any, problem: Problem) -> str:
    """The prompt as text that encodes to what ours is given, <bos> included."""
    if problem.prompt[0].role != "text":
        raise ValueError("this benchmark compares plain text prompts: use a task template for base models")
    return f"{tokenizer.bos_token or ''}{problem.prompt[0].content}{problem.prefill}"


def _judgeable(problem: Problem, ids: Sequence[int], text: str) -> Rollout:
    """As much of a rollout as the reward looks at."""
    length = len(ids) + 1
    return Rollout(
        problem_id=problem.id,
        sample=0,
        prompt_length=1,
        token_ids=np.zeros(length, np.int32),
        loss_mask=np.arange(length) > 0,
        logprobs=np.zeros(length, np.float32),
        policy_versions=np.zeros(length, np.int32),
        temperatures=np.ones(length, np.float32),
        finish="stopped",
        text=text,
    )

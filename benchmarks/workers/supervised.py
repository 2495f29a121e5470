"""Supervised fine-tuning steps on the same made-up sequences: r1kit's own step, and TRL's SFTTrainer with its packing.

Sequences have lengths drawn log-uniformly from SHORTEST to order["longest"], random tokens, and a first quarter that is
context. Tokens are those the model must process, context with them, padding apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.phases import PhaseClock
from harness.workload import read_recipe, stage_of
from r1kit.config.parts import OptimizerSettings
from r1kit.models.decoder import Decoder
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, token_step
from workers.training import watched

WARM_UP_STEPS = 2
SHORTEST = 16
CONTEXT_SHARE = 0.25
LEARNING_RATE = 1e-4
IGNORED = -100


def sequences(count: int, longest: int, vocabulary: int, seed: int) -> list[TokenSequence]:
    """Made-up sequences of mixed length, equal for everyone."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.uniform(np.log(SHORTEST), np.log(longest + 1), count)).astype(np.int64)
    made = []
    for length in lengths:
        weights = (np.arange(length) >= int(CONTEXT_SHARE * length)).astype(np.float32)
        made.append(TokenSequence(generator.integers(3, vocabulary, length), weights))
    return made


class _Model:
    """The miniature model of the recipe's pre-training stage, with random weights."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.options, self.rank, self.size = options, rank, size
        self.shape = stage_of(read_recipe(options["recipe"]), "pretrain").model
        self.tokenizer = build_tiny_tokenizer()
        self.clock = PhaseClock()

    def made(self) -> Decoder:
        return make_tiny(self.shape, self.tokenizer, seed=0)

    def data(self, order: dict[str, Any], steps: int) -> list[list[TokenSequence]]:
        """The sequences of each step."""
        each = order["sequences"]
        every = sequences(steps * each, order["longest"], len(self.tokenizer), order["seed"])
        return [every[i * each : (i + 1) * each] for i in range(steps)]


class OurSteps(_Model):
    """`token_step` on each step's sequences; order "steps", "sequences", "longest", "budget", "native", "seed".

    "curve" asks for the losses of the steps, without warm-up, instead of a rate.
    """

    def prepare(self, order: dict[str, Any]) -> None:
        self.settings = SimpleNamespace(token_budget=order["budget"], grad_clip=1.0)
        self.session = Session(
            Path(self.options["folder"]) / "none",
            World.connect(self.options["store"], self.rank, self.size) if not hasattr(self, "world") else self.world,
            OptimizerSettings(lr=LEARNING_RATE, betas=(0.9, 0.999)),
            self.made,
            self.tokenizer,
            dtype="float32",
            keep_checkpoints=1,
            native=order["native"],
        )
        self.world = self.session.world
        warm = 0 if order.get("curve") else WARM_UP_STEPS
        steps = self.data(order, warm + order["steps"])
        for batch in steps[:warm]:
            token_step(self.session, batch, self.settings, 1.0)
        self.timed = steps[warm:]

    def run(self) -> dict[str, Any]:
        self.clock = PhaseClock()
        with watched(self.clock, self.session):
            losses = [token_step(self.session, batch, self.settings, 1.0).loss for batch in self.timed]
        if self.rank:
            return {"phases": self.clock.seconds}
        tokens = sum(len(s.token_ids) for batch in self.timed for s in batch)
        return {"tokens": tokens, "losses": losses, "phases": self.clock.seconds}


class TrlSteps(_Model):
    """SFTTrainer on the CPU; one or several processes over gloo. options["dtype"]: float32 or bfloat16 weights.

    order["strategy"]: "bfd" (documents apart, flattened into one row), "wrapped" (documents joined and cut; they see
    their neighbours) or "none" (a padded batch of the step's own sequences). order["rows"] x order["row_length"] are
    one forward pass; an optimiser step accumulates about as many tokens as ours.
    """

    def prepare(self, order: dict[str, Any]) -> None:
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import SFTTrainer

        self.curve, self.steps = bool(order.get("curve")), order["steps"]
        warm = 0 if self.curve else WARM_UP_STEPS
        self.first, self.last = warm, warm + self.steps
        # Packing makes fewer rows of them than there are sequences: enough, and some to spare.
        steps = self.data(order, self.last + (0 if self.curve else 2))
        rows = [{"input_ids": s.token_ids.tolist(), "labels": _labels(s)} for batch in steps for s in batch]
        self.tokens, self.losses = [0] * (self.last + 1), [0.0] * (self.last + 1)
        self.clock, self.started, self.ended, self.cpu = PhaseClock(), 0.0, 0.0, 0.0
        outer = self

        class Watch(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                outer.now = state.global_step
                if state.global_step == outer.first:
                    outer.clock.seconds.clear()
                    outer.cpu, outer.started = time.process_time(), time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                if state.global_step == outer.last:
                    outer.ended, outer.cpu = time.perf_counter(), time.process_time() - outer.cpu

        self.trainer = SFTTrainer(
            model=self._transformers_model(),
            args=self.arguments(order),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
            callbacks=[Watch()],
        )

    def _transformers_model(self) -> Any:
        """The same weights in plain Transformers."""
        from transformers import AutoModelForCausalLM

        from r1kit.models.loading import write_model

        folder = Path(self.options["folder"]) / f"model-{self.rank}"
        if not folder.exists():
            write_model(self.made(), self.tokenizer, folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=self.options["dtype"])

    def arguments(self, order: dict[str, Any]) -> Any:
        """SFTConfig of the same step. What TRL switches on by default and only costs time here is off."""
        from trl import SFTConfig

        packed = order["strategy"] != "none"
        # Mean of the log-uniform lengths, for the number of forward passes of a step.
        mean = (order["longest"] - SHORTEST) / np.log(order["longest"] / SHORTEST)
        each = order["rows"] * self.size * (order["row_length"] if packed else mean)
        accumulate = max(1, round(order["sequences"] * mean / each))
        return SFTConfig(
            output_dir=self.options["folder"],
            max_steps=self.last,
            per_device_train_batch_size=order["rows"],
            gradient_accumulation_steps=accumulate,
            packing=packed,
            packing_strategy=order["strategy"] if packed else "bfd",
            max_length=order["row_length"] if packed else None,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            bf16=self.options["dtype"] == "bfloat16",
            activation_checkpointing=False,
            train_sampling_strategy="sequential",
            seed=order["seed"],
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def run(self) -> dict[str, Any]:
        step = self.trainer.training_step

        def counted(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            self.tokens[self.now] += int(inputs["input_ids"].numel() if mask is None else mask.sum())
            loss = step(model, inputs, *rest, **named)
            self.losses[self.now] += float(loss)
            return loss

        self.trainer.training_step = counted
        with ExitStack() as stack:
            stack.enter_context(self.clock.wrapped(self.trainer, "training_step", "forward and backward"))
            self.trainer.train()
        phases = dict(self.clock.seconds)
        phases["other"] = max(0.0, self.ended - self.started - sum(phases.values()))
        return {
            "tokens": sum(self.tokens[self.first : self.last]),
            "losses": self.losses[self.first : self.last],
            "phases": phases,
            "started": self.started,
            "ended": self.ended,
            "cpu_seconds": self.cpu,
        }


def _labels(sequence: TokenSequence) -> list[int]:
    learned: Sequence[bool] = (sequence.weights > 0).tolist()
    return [int(t) if kept else IGNORED for t, kept in zip(sequence.token_ids, learned, strict=True)]

"""Supervised fine-tuning: read from top to bottom, one step at a time.

    1. data      conversations to token streams, each token context, thought or answer (training/conversations.py)
    2. batch     the step's sequences, shuffled anew in every epoch (training/batches.py)
    3. update    mean loss over the learned tokens of the whole step (training/token_step.py)
    4. record    metrics, held-out loss, evaluation, checkpoint
    5. select    at the end of an epoch: is its model the best so far?

Continued training, distillation and the cold start of R1 are this stage with other data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.config.errors import UserError
from r1kit.engines.local import LocalEngine
from r1kit.models.chat_templates import CHATML_TOKENS, set_chat_template
from r1kit.models.conversation import ConversationEncoder
from r1kit.models.loading import LanguageModel, load_model, load_tokenizer
from r1kit.models.lora import adapters, plain_model
from r1kit.models.own_tokenizer import require_own_tokenizer, special_ids
from r1kit.models.positions import set_positions
from r1kit.models.vocabulary import add_tokens, fit_vocabulary, set_end_of_turn, token_warnings
from r1kit.tasks import Task
from r1kit.tasks.thinking import STYLES
from r1kit.training.batches import Batch, Batches
from r1kit.training.checkpoints import checkpoint_path
from r1kit.training.conversations import EncodedData, as_sequence, encode_data
from r1kit.training.held_out import HeldOut
from r1kit.training.neftune import EmbeddingNoise
from r1kit.training.optim import schedule, warmup_length
from r1kit.training.parallel import World
from r1kit.training.recompute import recompute_activations
from r1kit.training.recorder import Interrupted, Recorder, StageOutcome
from r1kit.training.sampling import derived_seed
from r1kit.training.session import Session
from r1kit.training.token_step import StepResult, evaluate_tokens, token_step


def train_sft(
    settings: Any,
    *,
    stage: str,
    model_path: Path,
    data_paths: Mapping[int, Path],
    task: Task,
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Fine-tune the model at `model_path`, or go on from the last checkpoint in `directory`.

    `data_paths` are the data sets that earlier stages made, by their index in `settings.data`.
    """
    run = SFTRun(settings, stage, model_path, data_paths, task, seed, world, recorder, directory, dtype)
    while not run.done:
        run.advance()
        stop = world.broadcast(recorder.should_stop(), "stop") if run.step % 10 == 0 or run.done else False
        if run.step % settings.checkpoint_every == 0 or run.done or stop or run.must_save:
            run.save()
        if stop and not run.done:
            raise Interrupted(
                f"{stage}: stopped after step {run.step} of {run.total}; the same command goes on from there"
            )
    return run.outcome()


class SFTRun:
    """The state of one stage: model, optimiser, data, and the best epoch so far."""

    def __init__(
        self,
        settings: Any,
        stage: str,
        model_path: Path,
        data_paths: Mapping[int, Path],
        task: Task,
        seed: int,
        world: World,
        recorder: Recorder,
        directory: Path,
        dtype: str,
    ) -> None:
        self.settings, self.stage, self.recorder, self.base = settings, stage, recorder, model_path
        self.tokenizer, self.added = prepared_tokenizer(model_path, settings)
        self.base_eos = self.tokenizer.eos_token
        self.encoder = ConversationEncoder(self.tokenizer, settings.thinking)
        self.data = encode_data(settings, data_paths, self.encoder)
        self.streams = [s for one in self.data.sets for s in one]
        self.batches = make_batches(settings, self.data, derived_seed(seed, stage, "batches"))
        self.total = min(self.batches.steps, settings.max_steps or self.batches.steps)
        self.warmup = warmup_length(settings, stage, self.total)
        self.session = Session(
            directory,
            world,
            settings.optimizer,
            lambda: self._fresh(load_model(model_path, dtype=dtype, device=world.device)),
            self.tokenizer,
            dtype=dtype,
            keep_checkpoints=settings.keep_checkpoints,
            adapt=adapters(settings.lora, derived_seed(seed, stage, "lora")),
            native="off" if python_only(settings) else settings.native,
        )
        self.tokenizer.eos_token = self.encoder.end
        self.model: LanguageModel = plain_model(self.session.model)
        self._refuse_unlearnable()
        self.noise = self._noise(derived_seed(seed, stage, "noise"))
        if settings.recompute:
            recompute_activations(self.model)
        state, evaluations = self.session.state, self._evaluations()
        # Where nothing is sampled there is no engine: its cache is large.
        self.engine = LocalEngine(self.model, self.tokenizer) if evaluations.every else None
        engine: Any = self.engine
        self.held_out = HeldOut(
            evaluations, stage, task, engine, self.tokenizer, seed, world, recorder, state.get("held_out")
        )
        self.step, self.trained = self.session.start_step, int(state.get("trained", 0))
        self.best: dict[str, Any] | None = state.get("best")
        self.stopped, self.must_save = bool(state.get("stopped", False)), False
        recorder.truncate(stage, self.session.last_recorded)
        if not self.session.resumed:
            for line in self.notes():
                recorder.note(stage, line)

    def _fresh(self, model: LanguageModel) -> LanguageModel:
        require_own_tokenizer(model, self.tokenizer, self.base, len(self.added))
        set_positions(model, self.settings.max_positions, self.settings.rope_theta)
        fit_vocabulary(model, self.tokenizer, self.added)
        set_end_of_turn(model, self.tokenizer, self.encoder.end)
        return model

    def _refuse_unlearnable(self) -> None:
        """UserError for tokens and positions that this stage would never train."""
        if self.settings.lora and self.added:
            raise UserError(
                f"{self.stage}: {' '.join(self.added)} would be new tokens, and lora never trains the embeddings: take "
                "a model that has them, train all weights (lora: null), or leave delimiters as they are "
                "(delimiters: as_is)"
            )
        longest = max(map(len, [*self.streams, *self.data.held_out]))
        if longest > self.model.config.max_positions:
            raise UserError(
                f"{self.stage}: a sequence has {longest} tokens, but the model knows {self.model.config.max_positions} "
                "positions: lower max_tokens, or set max_positions (and rope_theta) to let it learn longer ones"
            )

    def _noise(self, seed: int) -> EmbeddingNoise | None:
        alpha = self.settings.neftune_alpha
        return EmbeddingNoise(self.model, alpha, seed) if alpha else None

    def _evaluations(self) -> Any:
        """Evaluation settings: where epochs are chosen by pass@1, one is due at the end of each."""
        evaluate = self.settings.evaluate
        if self.settings.select == "pass@1" and not evaluate.every:
            return evaluate.model_copy(update={"every": self.total})
        return evaluate

    def notes(self) -> list[str]:
        """What a person should know before the first step."""
        lines = list(self.data.notes)
        if self.settings.native != "off" and python_only(self.settings):
            lines.append(f"native is off in this stage: {python_only(self.settings)} need PyTorch's own pass")
        if self.base_eos != self.encoder.end:
            lines.append(
                f"responses end with {self.encoder.end}, as the chat template ends a turn; the model's eos token was "
                f"{self.base_eos} and is changed in the checkpoint"
            )
        if self.added:
            lines.append(f"new tokens, at the mean of the others: {' '.join(self.added)}")
        return lines + token_warnings(self.model, self.tokenizer, self._control_tokens(), self.base)

    def _control_tokens(self) -> set[int]:
        """Special and added tokens that are learned: all of the template and the delimiters, and those in the data.
        Those that the stage itself adds are told of apart."""
        seen = np.zeros(self.model.head_weight.shape[0], dtype=bool)
        for stream in self.streams:
            seen[stream.token_ids] = True
        in_data = special_ids(self.tokenizer) & set(np.flatnonzero(seen).tolist())
        return (in_data | self.encoder.control_tokens()) - set(self.tokenizer.convert_tokens_to_ids(self.added))

    @property
    def done(self) -> bool:
        return self.stopped or self.step >= self.total

    def advance(self) -> None:
        """One step."""
        s, started = self.settings, time.perf_counter()
        batch = self.batches.at(self.step)
        sequences = [as_sequence(self.streams[i], i, s) for i in batch.indices]
        lr_scale = schedule(self.step, self.total, warmup=self.warmup, decay=s.decay, minimum=s.lr_floor)
        logged = (self.step + 1) % s.log_every == 0 or self.step + 1 == self.total
        if self.noise is not None:
            self.noise.step = self.step
        result = token_step(self.session, sequences, s, lr_scale, accuracy=logged, noise=self.noise)
        self.step += 1
        if self.engine is not None:
            self.engine.load_weights(self.step)
        tokens = sum(len(sequence) for sequence in sequences)
        self.trained += tokens
        seconds = time.perf_counter() - started
        if logged:
            self._record(result, batch, lr_scale, seconds, tokens)
        self.recorder.progress(self.stage, self.step, self.total, loss=result.loss, tokens_per_s=tokens / seconds)
        self.must_save = False
        if batch.ends_epoch or self.step == self.total:
            self._end_epoch(batch.epoch + 1)
        else:
            self.held_out.maybe_run(self.step, self.total, extra={"tokens": self.trained})

    def _record(self, result: StepResult, batch: Batch, lr_scale: float, seconds: float, tokens: int) -> None:
        values = {
            "loss": result.loss,
            "token_accuracy": result.accuracy or 0.0,
            "lr": self.settings.optimizer.lr * lr_scale,
            "grad_norm": result.norm,
            "tokens": self.trained,
            "epoch": batch.epoch + 1,
        }
        self.recorder.metrics(self.stage, self.step, values, {"step_s": seconds, "tokens_per_s": tokens / seconds})

    def _end_epoch(self, epoch: int) -> None:
        """Measure what is due at the end of an epoch. Is its model the best so far? Equal is not better: the earlier
        one has seen less."""
        select, value = self.settings.select, 0.0
        if self.data.held_out:
            held_out = [as_sequence(stream, i, self.settings) for i, stream in enumerate(self.data.held_out)]
            loss, accuracy = evaluate_tokens(self.session, held_out, self.settings.token_budget)
            row = {"held_out_loss": loss, "held_out_accuracy": accuracy, "epoch": epoch}
            self.recorder.metrics(self.stage, self.step, row, {}, kind="eval")
            value = -loss
        if select == "pass@1":
            self.held_out.run(self.step, {"tokens": self.trained})
            value = self.held_out.last["pass@1"]["value"] if self.held_out.last else 0.0
        else:
            self.held_out.maybe_run(self.step, self.total, extra={"tokens": self.trained})
        if select == "last":
            return
        if self.best is None or value > self.best["value"]:
            self.best = {"value": value, "epoch": epoch, "step": self.step}
            self.must_save = True
        elif self.settings.patience and epoch - self.best["epoch"] >= self.settings.patience:
            self.stopped = True
            self.recorder.note(
                self.stage, f"stopped after epoch {epoch}: none was better than epoch {self.best['epoch']}"
            )

    def save(self) -> None:
        self.session.save(
            self.step,
            {
                "trained": self.trained,
                "held_out": self.held_out.state(),
                "best": self.best,
                "stopped": self.stopped,
            },
            protected=(self.best["step"],) if self.best else (),
        )

    def outcome(self) -> StageOutcome:
        chosen = self.best["step"] if self.best else self.step
        counts = self.data.counts
        metrics = {"steps": float(self.step), "selected_step": float(chosen)}
        metrics |= {name: float(counts[name]) for name in ("conversations", "sequences", "skipped", "dropped", "cut")}
        return StageOutcome(
            model=checkpoint_path(self.session.directory, chosen),
            tokens={"sampled": self.held_out.tokens_sampled, "trained": self.trained, "discarded": 0},
            eval=self.held_out.last,
            metrics=metrics,
        )


def python_only(settings: Any) -> str:
    """The settings that the compiled pass does not know, in words; "" where there are none."""
    asked = {"neftune_alpha": settings.neftune_alpha, "recompute": settings.recompute, "lora": settings.lora}
    return " and ".join(name for name, value in asked.items() if value)


def prepared_tokenizer(model_path: Path, settings: Any) -> tuple[Any, list[str]]:
    """The model's tokenizer with the recipe's template, tokens and delimiters, and the tokens that were added."""
    tokenizer = load_tokenizer(model_path)
    wanted = settings.add_tokens
    if settings.delimiters == "tokens":
        wanted = (*STYLES[settings.thinking].tokens, *wanted)
    if settings.chat_template:
        set_chat_template(tokenizer, settings.chat_template)
        if settings.chat_template.startswith("chatml"):
            wanted = (*CHATML_TOKENS, *wanted)
    return tokenizer, add_tokens(tokenizer, wanted)


def make_batches(settings: Any, data: EncodedData, seed: int) -> Batches:
    """The batches of a stage, from the sizes of its data sets."""
    mixed = settings.order == "mixed"
    passes = [d.epochs or settings.epochs for d in settings.data]
    return Batches([len(one) for one in data.sets], passes, mixed=mixed, batch_size=settings.batch_size, seed=seed)

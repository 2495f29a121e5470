"""Pre-training of a tiny base from random weights on generated text.

Each step takes the next documents of the stream until `tokens_per_step` tokens are full, deals them to the ranks,
and takes one optimiser step on the mean next-token loss over all of them. Documents never attend to one another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.engines.local import LocalEngine
from r1kit.models.loading import DTYPES
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer, corpus_encoder, vocabulary
from r1kit.tasks import Task
from r1kit.tasks.corpus import documents
from r1kit.training.held_out import HeldOut
from r1kit.training.optim import schedule
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, Recorder, StageOutcome
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, token_step


def pretrain(
    settings: Any,
    *,
    stage: str,
    task: Task,
    task_settings: Any,
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Train a base from scratch, or go on from the last checkpoint in `directory`."""
    tokenizer = build_tiny_tokenizer()
    session = Session(
        directory,
        world,
        settings.optimizer,
        lambda: make_tiny(settings.model, tokenizer, seed=seed, dtype=DTYPES[dtype]).to(world.device),
        tokenizer,
        dtype=dtype,
        keep_checkpoints=settings.keep_checkpoints,
        native=settings.native,
    )
    engine = LocalEngine(session.model, tokenizer, native=settings.native)
    held_out = HeldOut(
        settings.evaluate, stage, task, engine, tokenizer, seed, world, recorder, session.state.get("held_out")
    )
    total = settings.steps
    step, read, trained = session.start_step, session.state.get("documents", 0), session.state.get("trained", 0)
    recorder.truncate(stage, session.last_recorded)
    stream = encoded_documents(task_settings, settings.corpus, seed, settings.document_length, skip=read)

    def save() -> Path:
        return session.save(step, {"documents": read, "trained": trained, "held_out": held_out.state()})

    path = directory
    while step < total:
        started = time.perf_counter()
        batch = next_batch(stream, settings.tokens_per_step)
        lr_scale = schedule(step, total, warmup=settings.warmup_steps, decay=settings.decay)
        loss, norm = train_step(session, batch, settings, lr_scale)
        step, read = step + 1, read + len(batch)
        tokens = sum(len(d) - 1 for d in batch)
        trained += tokens
        seconds = time.perf_counter() - started
        if step % settings.log_every == 0 or step == total:
            values = {"loss": loss, "lr": settings.optimizer.lr * lr_scale, "grad_norm": norm, "tokens": trained}
            recorder.metrics(stage, step, values, {"step_s": seconds, "tokens_per_s": tokens / seconds})
        recorder.progress(stage, step, total, loss=loss, tokens_per_s=tokens / seconds)
        engine.load_weights(step)
        held_out.maybe_run(step, total, extra={"tokens": trained})
        stop = world.broadcast(recorder.should_stop(), "stop") if step % 10 == 0 or step == total else False
        if step % settings.checkpoint_every == 0 or step == total or stop:
            path = save()
        if stop and step < total:
            raise Interrupted(f"{stage}: stopped after step {step} of {total}; the same command goes on from there")
    return StageOutcome(
        model=path if session.start_step < total else session.directory / f"step-{total:06d}",
        tokens={"sampled": held_out.tokens_sampled, "trained": trained, "discarded": 0},
        eval=held_out.last,
    )


def encoded_documents(
    task_settings: Any, corpus: Any, seed: int, longest: int, *, skip: int = 0
) -> Iterator[np.ndarray]:
    """Endless token arrays `<bos> document <eos>`, cut to `longest` tokens; the first `skip` are passed over."""
    encode = corpus_encoder()
    ids = vocabulary()
    for text in islice(documents(task_settings, corpus, seed), skip, None):
        yield np.array([ids["<bos>"], *encode(text), ids["<eos>"]][:longest], dtype=np.int64)


def next_batch(stream: Iterator[np.ndarray], tokens_per_step: int) -> list[np.ndarray]:
    """Documents until their predicted tokens reach `tokens_per_step`.

    ValueError for a document without a predicted token: of such documents a batch would never be full.
    """
    batch: list[np.ndarray] = []
    tokens = 0
    while tokens < tokens_per_step:
        batch.append(next(stream))
        if len(batch[-1]) < 2:
            raise ValueError(
                f"a document has {len(batch[-1])} tokens: at least 2 are needed to predict one; raise document_length"
            )
        tokens += len(batch[-1]) - 1
    return batch


def train_step(session: Session, batch: list[np.ndarray], settings: Any, lr_scale: float) -> tuple[float, float]:
    """One optimiser step on the mean next-token loss of `batch`; (loss in nats per token, gradient norm)."""
    sequences = [TokenSequence(d, np.ones(len(d), dtype=np.float32)) for d in batch]
    result = token_step(session, sequences, settings, lr_scale, best_fit=False)
    return result.loss, result.norm

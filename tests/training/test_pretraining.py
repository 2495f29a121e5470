"""Pre-training: the loss it says it lowers, the documents it says it reads, and a resume that changes nothing.

Why this matters: the base decides whether reasoning can emerge at all. A document skipped or read twice after a resume,
or a mean over the wrong denominator, gives another base than the recipe's.

Not exercised here: the contents of the corpus (tests/tasks); how well a base learns.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from r1kit.config.corpus import CorpusSettings
from r1kit.config.schema import PretrainSettings
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import read_safetensors
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.tasks.corpus import documents
from r1kit.training.parallel import World
from r1kit.training.pretraining import encoded_documents, next_batch, pretrain, train_step
from r1kit.training.recorder import Interrupted, StageOutcome

from .helpers import VOCABULARY, session, tiny_model
from .stage import TASK, TASK_SETTINGS, ListRecorder

CORPUS = CorpusSettings()
SHAPE = {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "intermediate": 16}


def settings(**changes: Any) -> PretrainSettings:
    values: dict[str, Any] = {
        "model": SHAPE,
        "tokens": 15 * 128,
        "tokens_per_step": 128,
        "document_length": 40,
        "token_budget": 90,
        "warmup_steps": 2,
        "log_every": 1,
        "checkpoint_every": 7,
        "evaluate": {"every": 6, "problems": 2, "samples": 2, "max_tokens": 4},
        "grad_clip": 0.0,
    }
    return PretrainSettings.model_validate({**values, **changes})


def batch_of(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, VOCABULARY, n) for n in lengths]


@pytest.mark.parametrize("token_budget", [40, 90, 1000])
def test_a_step_follows_the_mean_over_all_predicted_tokens(token_budget: int) -> None:
    """The plain way: one document at a time, cross-entropy summed, divided by the tokens of the whole batch."""
    batch = batch_of([40, 3, 17, 17, 2, 29])
    model = tiny_model()
    total = torch.zeros(())
    for document in batch:
        ids = torch.from_numpy(document)
        segments = [Segment(1, len(ids) - 1)]
        hidden = model(ids[:-1], positions(segments), packed_attention(segments))
        total = total + F.cross_entropy(model.logits(hidden), ids[1:], reduction="sum")
    want = total / sum(len(d) - 1 for d in batch)
    want.backward()

    state = session()
    loss, norm = train_step(state, batch, settings(token_budget=token_budget, document_length=40), 1.0)
    assert loss == pytest.approx(want.item(), rel=1e-5)
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert norm == pytest.approx(expected.norm().item(), rel=1e-5)
    assert (state.flat.grad - expected).norm() <= 1e-5 * expected.norm()


def test_documents_are_the_corpus_between_bos_and_eos() -> None:
    tokenizer = build_tiny_tokenizer()
    texts = list(islice(documents(TASK_SETTINGS, CORPUS, 3), 20))
    for text, ids in zip(texts, encoded_documents(TASK_SETTINGS, CORPUS, 3, 10_000), strict=False):
        assert tokenizer.decode(ids) == f"<bos>{text}<eos>"
        assert ids[1:-1].tolist() == tokenizer.encode(text, add_special_tokens=False)


def test_documents_are_cut_and_passed_over() -> None:
    whole = list(islice(encoded_documents(TASK_SETTINGS, CORPUS, 3, 12), 30))
    later = list(islice(encoded_documents(TASK_SETTINGS, CORPUS, 3, 12, skip=10), 20))
    assert max(map(len, whole)) == 12
    for ours, theirs in zip(later, whole[10:], strict=True):
        assert np.array_equal(ours, theirs)


def test_a_batch_is_just_full() -> None:
    stream = iter(batch_of([10, 10, 10, 10]))
    assert [len(d) for d in next_batch(stream, 19)] == [10, 10, 10]
    assert len(list(stream)) == 1


def test_a_document_without_a_predicted_token_is_refused() -> None:
    with pytest.raises(ValueError, match="raise document_length"):
        next_batch(iter(batch_of([10, 1, 10])), 19)


def train(directory: Path, recorder: ListRecorder, dtype: str = "float32") -> StageOutcome:
    return pretrain(
        settings(),
        stage="base",
        task=TASK,
        task_settings=TASK_SETTINGS,
        seed=1,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype=dtype,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_stage_equals_the_one_left_alone(tmp_path: Path, dtype: str) -> None:
    alone = ListRecorder()
    outcome = train(tmp_path / "alone", alone, dtype)
    recorder = ListRecorder(stop_after=10)
    with pytest.raises(Interrupted, match="stopped after step 10 of 15"):
        train(tmp_path / "broken", recorder, dtype)
    recorder.stop_after = None
    resumed = train(tmp_path / "broken", recorder, dtype)
    assert recorder.rows == alone.rows
    assert replace(resumed, model=None) == replace(outcome, model=None)
    one, other = outcome.model, resumed.model
    assert one is not None
    assert other is not None
    for name in ("model.safetensors", "trainer.safetensors", "trainer.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    # A finished stage asked again has nothing to do and says the same.
    assert train(tmp_path / "broken", ListRecorder(), dtype).model == other
    # Compute is in the recipe's dtype, the master weights are float32 in either.
    assert {str(t.dtype) for t in read_safetensors(one / "model.safetensors").values()} == {f"torch.{dtype}"}
    assert ("master" in read_safetensors(one / "trainer.safetensors")) is (dtype == "bfloat16")


def test_the_loss_falls(tmp_path: Path) -> None:
    recorder = ListRecorder()
    outcome = train(tmp_path, recorder)
    losses = [row["loss"] for row in recorder.rows if row["kind"] == "train"]
    assert losses[0] == pytest.approx(np.log(len(build_tiny_tokenizer())), rel=0.02)
    assert losses[-1] < losses[0] - 0.25
    assert outcome.tokens["trained"] == recorder.rows[-1]["tokens"]
    assert outcome.tokens["sampled"] > 0

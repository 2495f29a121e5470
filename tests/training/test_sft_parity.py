"""Supervised losses and gradients against TRL's SFTTrainer, and checkpoints of real shapes against Transformers.

Why this matters: two trainers that agree on one batch to rounding do the same thing; what r1kit trained has to be the
model that everybody else's software loads. What equal means in either precision is said in parity.py. Of TRL 1.16's two
losses nll is compared; dft is not ours.

Not exercised here: real sizes (test_full_width.py); speed (benchmarks/sft.py); how text becomes tokens
(tests/models/test_conversation.py).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from models.families import random_model, saved
from r1kit.config.parts import OptimizerSettings
from r1kit.models.checkpoint import from_hf_config, read_config, to_hf_state
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model, write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, backward, token_step

from .parity import assert_equal_gradients, assert_equal_loss, gradients, widened

TOKENIZER = build_tiny_tokenizer()
# Qwen2.5-0.5B and Llama-3.2-1B with their proportions and switches, everything else shrunk.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {
        "hidden_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 304,
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
    },
    "llama": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 256,
        "head_dim": 2,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
        },
    },
}


def peer(family: str) -> PreTrainedModel:
    return random_model(family, vocab_size=len(TOKENIZER), max_position_embeddings=128, **SHAPES[family])


def batch(count: int = 6, seed: int = 1) -> list[TokenSequence]:
    """Sequences of different lengths; prompts are context."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(generator.integers(8, 60))
        weights = (np.arange(length) >= generator.integers(1, length - 2)).astype(np.float32)
        made.append(TokenSequence(generator.integers(3, len(TOKENIZER), length), weights))
    return made


def open_session(checkpoint: Path, directory: Path, lr: float = 1e-3) -> Session:
    return Session(
        directory,
        World.single(),
        OptimizerSettings(lr=lr),
        lambda: widened(load_model(checkpoint)),
        TOKENIZER,
        dtype="float32",
        keep_checkpoints=1,
    )


def trl_loss_and_gradient(model: PreTrainedModel, sequences: list[TokenSequence], folder: Path) -> tuple[float, Any]:
    """What SFTTrainer computes for one step on these sequences, padded into one batch."""
    trl = pytest.importorskip("trl", reason="trl is not installed (extra: bench)")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra: data)")
    rows = [{"input_ids": s.token_ids.tolist(), "completion_mask": s.weights.astype(int).tolist()} for s in sequences]
    arguments = trl.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        completion_only_loss=True,
        max_length=None,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to=[],
    )
    trainer = trl.SFTTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=TOKENIZER
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    learned = (inputs["labels"][:, 1:] != -100).sum()
    assert int(learned) == sum(s.predicted for s in sequences)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=learned)
    loss.backward()
    return loss.item(), gradients(trainer.model)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("family", SHAPES)
def test_loss_and_gradient_equal_trls(family: str, tmp_path: Path) -> None:
    theirs, sequences = peer(family), batch()
    state = open_session(saved(theirs, tmp_path / "base"), tmp_path / "run")
    want_loss, want = trl_loss_and_gradient(theirs, sequences, tmp_path / "trl")
    loss, _ = backward(state, sequences, token_budget=100)
    assert_equal_loss(loss, want_loss)
    assert isinstance(state.model, Decoder)
    got = to_hf_state({n: p.grad for n, p in state.model.named_parameters()}, state.model.config)
    assert set(got) == set(want)
    assert_equal_gradients(got, want)


@pytest.mark.parametrize("family", SHAPES)
def test_three_steps_then_plain_transformers_gives_equal_logits(family: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_model(load_model(saved(peer(family), tmp_path / "hf")), TOKENIZER, base)
    state = open_session(base, tmp_path / "run")
    settings = SimpleNamespace(token_budget=100, grad_clip=1.0)
    losses = [token_step(state, batch(), settings, 1.0).loss for _ in range(3)]
    assert losses[2] < losses[0]
    path = state.save(3, {})
    assert from_hf_config(read_config(path)) == from_hf_config(read_config(base))
    # By bytes: Transformers reads the tokenizer of a model of this type as one of Qwen's or Llama's, whatever it is.
    assert (path / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    plain = AutoModelForCausalLM.from_pretrained(path).eval()
    assert type(plain).__name__ == {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[family]
    ids = torch.from_numpy(batch()[0].token_ids)
    plain.requires_grad_(False)
    assert float((_logits(state.model, ids) - plain(ids[None]).logits[0]).abs().max()) < 1e-4
    untrained = AutoModelForCausalLM.from_pretrained(base).eval().requires_grad_(False)
    assert float((plain(ids[None]).logits - untrained(ids[None]).logits).abs().max()) > 1e-2


def _logits(model: Any, ids: Tensor) -> Tensor:
    from r1kit.models.attention import Segment, packed_attention, positions

    segment = [Segment(1, len(ids))]
    with torch.no_grad():
        return model.logits(model(ids, positions(segment), packed_attention(segment)))

"""Checkpoints of real width: Qwen2.5-0.5B as it is with adapters and with fewer layers whole, Llama-3.2-1B likewise.

Why this matters: a hidden size of 896, fourteen heads over two of keys, 151,936 rows of tied embeddings, positions by
scaled frequencies: what holds at a width of 56 may fail where arrays are cut into chunks, matrices pass what one index
holds or a file is written in parts. Weights are random, trained for three steps, and read again by plain Transformers.

Not exercised here: published weights; text and its tokens (tests/models); equality with TRL, which the miniatures show
(test_sft_parity.py).
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from r1kit.config.parts import OptimizerSettings
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model
from r1kit.models.lora import LoRAModel
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, token_step

# As published, but for what a case changes below.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
    },
    "llama": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
    },
}
# Family, changes, parameters, and whether adapters are trained. Trained whole, a parameter takes 16 bytes and more in
# passing: less depth, and half of Llama's vocabulary where it has two matrices, stay below 8 GiB.
CASES: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "qwen2, adapters": ("qwen2", {}, 494_032_768, True),
    "qwen2, 8 of 24 layers": ("qwen2", {"num_hidden_layers": 8}, 255_434_624, False),
    "llama, untied, 2 of 16 layers": (
        "llama",
        {"num_hidden_layers": 2, "vocab_size": 64128, "tie_word_embeddings": False},
        384_313_344,
        False,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Gigabytes that are not kept for the failures of later runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def random_base(config: Any, parameters: int, path: Path) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == parameters
    model.save_pretrained(path, max_shard_size="1GB")
    return path


def batch(vocabulary: int) -> list[TokenSequence]:
    """Three sequences from all of the vocabulary, its last token among what is learnt."""
    generator = np.random.default_rng(0)
    made = []
    for length in (24, 17, 9):
        ids = generator.integers(0, vocabulary, length)
        ids[-1] = vocabulary - 1
        made.append(TokenSequence(ids, (np.arange(length) >= 4).astype(np.float32)))
    return made


@torch.no_grad()
def our_logits(model: Any, ids: Tensor) -> Tensor:
    segment = [Segment(1, len(ids))]
    hidden = model(ids, positions(segment), packed_attention(segment))
    return torch.nn.functional.linear(hidden, model.head_weight)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_three_steps_at_full_width(case: str, folder: Path) -> None:
    family, changes, parameters, adapters = CASES[case]
    config = AutoConfig.for_model(family, **{**SHAPES[family], **changes})
    base = random_base(config, parameters, folder / "base")
    sequences = batch(config.vocab_size)
    ids = torch.from_numpy(sequences[0].token_ids)
    state = Session(
        folder / "run",
        World.single(),
        OptimizerSettings(lr=1e-3 if adapters else 1e-4),
        lambda: load_model(base),
        build_tiny_tokenizer(),
        dtype="float32",
        keep_checkpoints=1,
        adapt=(lambda model: LoRAModel(model, rank=16, alpha=32.0)) if adapters else None,
    )
    assert isinstance(state.model.inner if adapters else state.model, Decoder)
    before = our_logits(state.model, ids)
    settings = SimpleNamespace(token_budget=64, grad_clip=1.0)
    losses = [token_step(state, sequences, settings, 1.0).loss for _ in range(3)]
    assert losses[0] == pytest.approx(np.log(config.vocab_size), rel=0.1)
    assert losses[2] < losses[1] < losses[0]
    path, trained = state.save(3, {}), our_logits(state.model, ids)
    del state
    gc.collect()
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    plain, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in plain.parameters()) == parameters
    with torch.no_grad():
        theirs = plain.eval()(ids[None]).logits[0]
    assert float((trained - theirs).abs().max()) < 1e-4
    assert float((trained - before).abs().max()) > 0.05

"""Positions and rotary frequencies set anew, equal to those of plain Transformers.

Why this matters: a model trained with one table of angles and loaded with another answers nonsense.

Not exercised here: whether a model learns to use the new positions.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError, write_decoder
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model
from r1kit.models.positions import set_positions

from .families import random_model, saved


@pytest.mark.parametrize("theta", [None, 300_000.0])
def test_plain_transformers_reads_the_new_positions(theta: float | None, tmp_path: Path) -> None:
    model = load_model(saved(random_model("qwen2"), tmp_path / "base"))
    assert isinstance(model, Decoder)
    set_positions(model, 200, theta)
    write_decoder(model, tmp_path / "long")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "long").eval()
    assert theirs.config.max_position_embeddings == 200
    ids = torch.randint(3, 48, (150,), generator=torch.Generator().manual_seed(0))
    segment = [Segment(1, 150)]
    with torch.no_grad():
        ours = model.logits(model(ids, positions(segment), packed_attention(segment)))
        torch.testing.assert_close(ours, theirs(ids[None]).logits[0], rtol=1e-4, atol=1e-4)


def test_nothing_asked_changes_nothing_and_other_models_refuse(tmp_path: Path) -> None:
    model = load_model(saved(random_model("olmo2"), tmp_path))
    set_positions(model, None, None)
    with pytest.raises(CheckpointError, match="positions can be set for Qwen2, Qwen3 and Llama only"):
        set_positions(model, 200, None)

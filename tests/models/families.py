"""Small random checkpoints of real architectures, made by Transformers, and its own logits and gradients of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from r1kit.models.attention import Segment

SIZES = {
    "vocab_size": 48,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

# Kept here: a test may compute in another precision, on the same weights.
DRAWN = torch.float32

# Packed as the trainer packs: sequences of several lengths in one flat run.
SEGMENTS = [Segment(1, 40), Segment(2, 9), Segment(1, 1)]


def random_model(model_type: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A Transformers model in which no parameter has a value that hides an error (biases 0, gains 1)."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=DRAWN)
            parameter.copy_(1.0 + 0.3 * noise if parameter.ndim == 1 else 0.15 * noise)
    return model.eval()


def saved(model: PreTrainedModel, directory: Path, **options: Any) -> Path:
    model.save_pretrained(directory, **options)
    return directory


def tokens(seed: int = 0) -> Tensor:
    """Random token ids for SEGMENTS, flat."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, SIZES["vocab_size"], (sum(s.tokens for s in SEGMENTS),), generator=generator)


def reference_logits(model: PreTrainedModel, token_ids_T: Tensor) -> Tensor:
    """Transformers' logits, one sequence at a time: [T, V]."""
    lengths = [s.length for s in SEGMENTS for _ in range(s.rows)]
    return torch.cat([model(ids[None], use_cache=False).logits[0] for ids in token_ids_T.split(lengths)])


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest value."""
    return ((got - want).abs().max() / want.abs().max()).item()

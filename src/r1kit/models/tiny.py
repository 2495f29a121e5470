"""Tiny bases: decoders of 0.2M to 5M parameters made from a recipe's `model:` settings."""

from __future__ import annotations

from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from r1kit.models.decoder import Decoder, DecoderConfig, initialise

MAX_POSITIONS = 4096


class ModelSettings(Protocol):
    """What the recipe's `model:` gives."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    tie_embeddings: bool
    qk_norm: bool


def make_tiny(
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    max_positions: int = MAX_POSITIONS,
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    """A decoder with random weights. Saved as Qwen3 where it normalises queries and keys, else as Llama.

    The weights are drawn in float32 whatever `dtype` they are kept in.
    """
    model = Decoder(
        DecoderConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            num_layers=settings.layers,
            num_heads=settings.heads,
            num_kv_heads=settings.kv_heads,
            head_dim=settings.head_dim,
            intermediate_size=settings.intermediate,
            model_type="qwen3" if settings.qk_norm else "llama",
            rope_theta=settings.rope_theta,
            tie_embeddings=settings.tie_embeddings,
            qk_norm=settings.qk_norm,
            max_positions=max_positions,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    initialise(model, seed)
    return model.to(dtype)

"""Activations made again in the backward pass, layer by layer (Chen et al. 2016, arXiv 1604.06174).

Only the input of each layer is kept: for long sequences the difference between tens of gigabytes and one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from r1kit.config.errors import UserError
from r1kit.models.decoder import Decoder


def recompute_activations(model: Any) -> None:
    """Let every layer of the decoder forget what is between its input and its output. UserError for other models."""
    if not isinstance(model, Decoder):
        raise UserError(
            "recompute: true needs the native decoder (Qwen2, Qwen3, Llama); this model runs through Transformers: "
            "lower token_budget and max_tokens instead"
        )
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

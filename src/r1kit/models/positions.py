"""More positions than a checkpoint was trained for: fine-tuning on long thoughts begins with this.

Open-R1 gives Qwen2.5-Math (4,096 positions, theta 10,000) a theta of 300,000 and trains it on 32,768.
"""

from __future__ import annotations

from dataclasses import replace

from r1kit.models.checkpoint import CheckpointError
from r1kit.models.decoder import Decoder, rotary_phases
from r1kit.models.loading import LanguageModel


def set_positions(model: LanguageModel, max_positions: int | None, rope_theta: float | None) -> None:
    """Let the decoder know so many positions, its rotary frequencies made from `rope_theta`; None keeps its own.

    CheckpointError for a model that runs through Transformers: its tables are its own.
    """
    if max_positions is None and rope_theta is None:
        return
    if not isinstance(model, Decoder):
        raise CheckpointError(
            f"{type(model.inner).__name__}: positions can be set for Qwen2, Qwen3 and Llama only; change config.json"
        )
    config, theta = model.config, rope_theta or model.config.rope_theta
    model.config = replace(
        config,
        max_positions=max_positions or config.max_positions,
        rope_theta=theta,
        rope_parameters={**config.rope_parameters, "rope_theta": theta},
    )
    model.phase_PC = rotary_phases(model.config).to(model.embedding.device)

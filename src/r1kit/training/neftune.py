"""Noise on the embeddings in supervised training (NEFTune, Jain et al. 2023, arXiv 2310.05914, algorithm 1).

    x + u * alpha / sqrt(L d),   u ~ Uniform(-1, 1),   L the sequence's own length, d the width

Off by default. Keyed by (seed, step, sequence), so that batching and resuming do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.models.decoder import Decoder
from r1kit.models.loading import LanguageModel
from r1kit.training.packing import MicroBatch


class EmbeddingNoise:
    """Adds noise to what the first layer reads, while `set_batch` has named a micro-batch."""

    def __init__(self, model: LanguageModel, alpha: float, seed: int) -> None:
        self.alpha, self.seed, self.step = alpha, seed, 0
        self.noise_TD: Tensor | None = None
        if isinstance(model, Decoder):
            self.width = model.config.hidden_size
            model.layers[0].register_forward_pre_hook(self._before_layer)
        else:
            self.width = model.config.hidden_size
            model.inner.get_input_embeddings().register_forward_hook(self._behind_embedding)

    def set_batch(self, micro: MicroBatch, lengths: Sequence[int], keys: Sequence[int]) -> None:
        """Draw the noise of a micro-batch: `lengths` and `keys` (names) of all sequences, by index."""
        draws = [self._draw(length, key) for length, key in zip(lengths, keys, strict=True)]
        flat = np.zeros((micro.tokens, self.width), dtype=np.float32)
        start = 0
        for segment, rows in zip(micro.segments, micro.members, strict=True):
            for index in rows:
                flat[start : start + len(draws[index])] = draws[index]
                start += segment.length
        self.noise_TD = torch.from_numpy(flat)

    def clear(self) -> None:
        self.noise_TD = None

    def _draw(self, length: int, key: int) -> np.ndarray:
        uniform = np.random.default_rng([self.seed, self.step, key]).random((length, self.width), dtype=np.float32)
        return (2 * uniform - 1) * (self.alpha / math.sqrt(length * self.width))

    def _added(self, x: Tensor) -> Tensor:
        return x if self.noise_TD is None else x + self.noise_TD.to(dtype=x.dtype, device=x.device).view_as(x)

    def _before_layer(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._added(args[0]), *args[1:])

    def _behind_embedding(self, _: Any, __: Any, output: Tensor) -> Tensor:
        return self._added(output)

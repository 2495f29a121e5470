"""Runs the model for the engine: prompts in one pass, then one token of every running response per pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.attention import DecodeAttention
from r1kit.engines.cache import KVCache, Span
from r1kit.engines.invariance import MOST_ROWS, Model, Shapes
from r1kit.engines.sequence import Prefix, Prompt
from r1kit.models.attention import Segment, packed_attention


def in_batches(prompts: Sequence[Prompt], most: int, run: Callable[[Sequence[Prompt]], list[Prefix]]) -> list[Prefix]:
    """`run` over the prompts, the shortest first, together up to `most` tokens; a longer one alone."""
    batches: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i].stream)):
        length = len(prompts[i].stream)
        if not batches or tokens + length > most:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += length
    prefixes: dict[int, Prefix] = {}
    for batch in batches:
        prefixes.update(zip(batch, run([prompts[i] for i in batch]), strict=True))
    return [prefixes[i] for i in range(len(prompts))]


class Runner:
    """The model, its cache, and the two ways to call them. Everything per token is the model's own
    `forward`.
    """

    def __init__(self, model: Model, slots: int, shapes: Shapes) -> None:
        config, parameter = model.config, next(model.parameters())
        self.model, self.shapes = model, shapes
        self.device = parameter.device
        self.cache = KVCache(
            layers=config.num_layers,
            slots=slots,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            dtype=parameter.dtype,
            device=parameter.device,
        )
        rows = self._padded(slots)
        self._out = torch.zeros(rows, config.num_heads, config.head_dim, dtype=parameter.dtype, device=self.device)
        self.attention_seconds = 0.0

    def _padded(self, rows: int) -> int:
        return -(-rows // self.shapes.row_unit) * self.shapes.row_unit

    # -- prompts ---------------------------------------------------------------------------------------------

    def prefill(
        self, prompts: Sequence[Prompt], logprobs_of: Callable[[Tensor, Sequence[int], float], list[float]]
    ) -> list[Prefix]:
        """Keys, values and next-token logits of each prompt, forced tokens included.

        `logprobs_of(logits_FV, tokens, temperature)` scores the forced tokens. Prompts of equal length share
        one attention call; what a prompt gets depends on its own tokens only.
        """
        most = MOST_ROWS if self.shapes.prompts_together else 0
        return in_batches(prompts, most, lambda batch: self._prefill_batch(batch, logprobs_of))

    def _prefill_batch(
        self, prompts: Sequence[Prompt], logprobs_of: Callable[[Tensor, Sequence[int], float], list[float]]
    ) -> list[Prefix]:
        lengths = [len(p.stream) for p in prompts]
        total = sum(lengths)
        padded = self._padded(total)
        ids, positions = np.zeros(padded, np.int64), np.zeros(padded, np.int64)
        ids[:total] = np.concatenate([p.stream for p in prompts])
        positions[:total] = np.concatenate([np.arange(n) for n in lengths])
        segments = [Segment(lengths.count(n), n) for n in dict.fromkeys(lengths)]
        if padded > total:
            segments.append(Segment(padded - total, 1))
        keep: list[Tensor] = []
        attention = packed_attention(segments)

        def attend(layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor) -> Tensor:
            keep.append(torch.stack([k_TGK[:total], v_TGK[:total]]))
            return attention(layer, q_THK, k_TGK, v_TGK)

        hidden = self.model(self._upload(ids), self._upload(positions), attend)
        keys_values = torch.stack(keep, dim=1).transpose(2, 3)  # [2, layers, kv_heads, T, head_dim]
        ends = np.cumsum(lengths)
        last = self._logits(hidden[self._upload(ends - 1)])
        prefixes = []
        for row, (prompt, end, length) in enumerate(zip(prompts, ends.tolist(), lengths, strict=True)):
            scored: list[float] = []
            if prompt.forced:
                before = slice(end - len(prompt.forced) - 1, end - 1)
                scored = logprobs_of(self._logits(hidden[before]), prompt.forced, prompt.temperature)
            prefixes.append(Prefix(keys_values[..., end - length : end, :], last[row], length, tuple(scored)))
        return prefixes

    def _logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits [T, V], rows padded as everywhere."""
        rows = len(hidden_TD)
        hidden_TD = torch.nn.functional.pad(hidden_TD, (0, 0, 0, self._padded(rows) - rows))
        return self.model.logits(hidden_TD)[:rows]

    def with_logits(self, logits_nV: Tensor | None, more: Sequence[Tensor]) -> Tensor:
        """Logits of the running responses with those of `more` behind them."""
        return torch.cat([*([] if logits_nV is None else [logits_nV]), *(row[None] for row in more)])

    # -- one more token --------------------------------------------------------------------------------------

    def decode(self, token_ids: np.ndarray, positions: np.ndarray, spans: Callable[[int, int], list[Span]]) -> Tensor:
        """Logits [n, V] after one more token (int64 [n]) in each of the slots 0..n-1 at its position (int64
        [n]).

        `spans(start, stop)` cuts the slots of a pass into spans of similar length.
        """
        n = len(token_ids)
        passes = range(0, n, self.shapes.pass_rows)
        logits = [self._decode_pass(token_ids, positions, s, min(n, s + self.shapes.pass_rows), spans) for s in passes]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _decode_pass(
        self,
        token_ids: np.ndarray,
        positions: np.ndarray,
        start: int,
        stop: int,
        spans: Callable[[int, int], list[Span]],
    ) -> Tensor:
        n = stop - start
        inputs = np.zeros((2, self._padded(n)), np.int64)
        inputs[0, :n], inputs[1, :n] = token_ids[start:stop], positions[start:stop]
        ids, places = self._upload(inputs)
        index = self.cache.open(start, positions[start:stop])
        out_THK = self._out[: len(ids)]
        attention = DecodeAttention(self.cache, spans(start, stop), out_THK)

        def attend(layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor) -> Tensor:
            began = perf_counter()
            self.cache.append(layer, index, k_TGK[:n], v_TGK[:n])
            attention(layer, q_THK)
            self.attention_seconds += perf_counter() - began
            return out_THK

        return self.model.logits(self.model(ids, places, attend))[:n]

    def _upload(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

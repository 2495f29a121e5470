"""Runs the compiled passes for the engine: prompts, one token of every running response, or many steps in a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.blocks import blocks
from r1kit.engines.native import Done, NativeDecoder
from r1kit.engines.runner import in_batches
from r1kit.engines.sequence import Prefix, Prompt

_MOST_TOKENS = 1024  # of prompts in one pass, unless one alone is longer


class NativeRunner:
    """What `Runner` is for PyTorch, and `advance` beside it. A token's pass is the same in a prompt and sampled."""

    def __init__(self, decoder: NativeDecoder, slots: int) -> None:
        self.native, self.device = decoder, torch.device("cpu")
        self.cache = decoder.new_cache(slots)
        self._logits = decoder.new_logits(slots)
        self.attention_seconds = 0.0

    def prefill(
        self, prompts: Sequence[Prompt], logprobs_of: Callable[[Tensor, Sequence[int], float], list[float]]
    ) -> list[Prefix]:
        """See `Runner.prefill`."""
        return in_batches(prompts, _MOST_TOKENS, lambda batch: self._prefill_batch(batch, logprobs_of))

    def _prefill_batch(
        self, prompts: Sequence[Prompt], logprobs_of: Callable[[Tensor, Sequence[int], float], list[float]]
    ) -> list[Prefix]:
        streams = [p.stream for p in prompts]
        lengths = [len(stream) for stream in streams]
        ends = np.cumsum(lengths).tolist()
        # Of each prompt the row before every forced token, and the last.
        wanted = [range(end - len(p.forced) - 1, end) for p, end in zip(prompts, ends, strict=True)]
        rows = np.concatenate([np.arange(r.start, r.stop) for r in wanted])
        cache, logits = self.native.new_cache(len(prompts)), self.native.new_logits(len(rows))
        cache.reserve(max(lengths))
        self.native.decode(
            np.concatenate(streams),
            np.concatenate([np.arange(n) for n in lengths]),
            np.repeat(np.arange(len(prompts)), lengths),
            rows,
            cache,
            logits,
        )
        logits = logits[:, : self.native.config.vocab_size]
        prefixes: list[Prefix] = []
        last = -1
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            first, last = last + 1, last + 1 + len(prompt.forced)
            scored = logprobs_of(logits[first:last], prompt.forced, prompt.temperature) if prompt.forced else []
            prefixes.append(Prefix(cache.data[i, ..., : blocks(length), :], logits[last], length, tuple(scored)))
        return prefixes

    def _rows(self, n: int) -> Tensor:
        return self._logits[:n, : self.native.config.vocab_size]

    def with_logits(self, logits_nV: Tensor | None, more: Sequence[Tensor]) -> Tensor:
        """Logits of the running responses with those of `more` behind them."""
        n = 0 if logits_nV is None else len(logits_nV)
        for i, row in enumerate(more):
            self._rows(n + len(more))[n + i] = row
        return self._rows(n + len(more))

    def decode(self, token_ids: np.ndarray, positions: np.ndarray, *_: object) -> Tensor:
        """See `Runner.decode`."""
        n = len(token_ids)
        self.native.decode(token_ids, positions, self.cache.slots[:n], np.arange(n), self.cache, self._logits)
        return self._rows(n)

    def advance(self, columns: Mapping[str, np.ndarray], n: int, *, steps: int, enough: int) -> Done:
        """Many steps at once, on the logits that `with_logits` or `decode` gave last; see `NativeDecoder.advance`."""
        return self.native.advance({**columns, "slots": self.cache.slots}, n, steps, enough, self.cache, self._logits)

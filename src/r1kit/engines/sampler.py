"""From logits to tokens: inverse transform sampling with one counter-based uniform number per token.

Log-probs are natural logarithms of the distribution that was sampled from: softmax(logits / temperature),
restricted to allowed tokens, and, where top-k, top-p or min-p is on, truncated and renormalised. Two cases
have no such distribution and report the full softmax(logits / temperature) instead: greedy tokens
(temperature 0, reported at temperature 1, within the allowed tokens) and forced tokens (which may lie outside
what truncation or a mask leaves).
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch
from torch import Tensor

from r1kit.engines import native
from r1kit.engines.protocol import SamplingParams
from r1kit.engines.randomness import uniforms
from r1kit.engines.sequence import Sequence


class Sampler:
    """Samples one token for each of the first n slots; keeps the settings of every slot."""

    def __init__(self, slots: int, vocab_size: int, device: torch.device, *, native: bool = False) -> None:
        self.vocab_size, self.device, self.native = vocab_size, device, native
        self.keys = np.zeros(slots, np.uint64)
        self.temperatures = np.ones(slots, np.float32)
        self.greedy = np.zeros(slots, bool)
        # Slots whose distribution is more than softmax(logits / temperature) take a slower way of their own.
        self.special = np.zeros(slots, bool)
        self._params: list[SamplingParams] = [SamplingParams()] * slots
        self._any_scaled = self._any_greedy = self._any_special = False

    def place(self, slot: int, sequence: Sequence) -> None:
        params = sequence.params
        self.keys[slot] = sequence.key
        self.greedy[slot] = params.temperature == 0
        self.temperatures[slot] = params.temperature or 1.0
        restricted = params.allowed_token_ids is not None or bool(params.forbidden_token_ids)
        truncated = params.temperature > 0 and (params.top_p < 1 or params.top_k > 0 or params.min_p > 0)
        self.special[slot] = restricted or truncated
        self._params[slot] = params
        # Looked up in every step, so noted here, where slots 0..slot are taken; a little late when some leave.
        self._any_scaled = bool((self.temperatures[: slot + 1] != 1).any())
        self._any_greedy = bool(self.greedy[: slot + 1].any())
        self._any_special = bool(self.special[: slot + 1].any())

    def move(self, source: int, target: int) -> None:
        for column in (self.keys, self.temperatures, self.greedy, self.special):
            column[target] = column[source]
        self._params[target] = self._params[source]

    def sample(self, logits_nV: Tensor, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int64 [n] and log-probs float64 [n] of slots 0..n-1.

        `positions` int64 [n]: the place of the new token in its stream, prompt included, which with the key
        of the response picks the uniform number.
        """
        n = len(logits_nV)
        if not self.native:
            return self._sample(logits_nV, positions)
        # Which way a row goes depends on its own settings only, never on its neighbours'.
        chosen, logprobs = (np.empty(n, np.int64), np.empty(n)) if self.plain(n) else self._sample(logits_nV, positions)
        rows = np.flatnonzero(~self.special[:n])
        chosen[rows], logprobs[rows] = native.draw(
            logits_nV[torch.from_numpy(rows)],
            uniforms(self.keys[rows], positions[rows]),
            self.temperatures[rows],
            self.greedy[rows],
        )
        return chosen, logprobs

    def plain(self, n: int) -> bool:
        """Whether slots 0..n-1 all sample from softmax(logits / temperature), or the likeliest token."""
        return not self.special[:n].any()

    def _sample(self, logits_nV: Tensor, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same in PyTorch, for every kind of row."""
        n = len(logits_nV)
        logits = logits_nV.float()
        if self._any_scaled:
            logits = logits / torch.from_numpy(self.temperatures[:n, None]).to(self.device)
        if self._any_special and self.special[:n].any():
            logits = self._restrict(logits, np.flatnonzero(self.special[:n]))
        probs = torch.softmax(logits, dim=-1)
        uniform = torch.from_numpy(uniforms(self.keys[:n], positions)[:, None]).to(self.device)
        tokens = draw(probs, uniform)
        if self._any_greedy:
            greedy = torch.from_numpy(self.greedy[:n, None]).to(self.device)
            tokens = torch.where(greedy, logits.argmax(dim=-1, keepdim=True), tokens)
        # Scores that are not numbers draw the token behind the last; it is brought back and its log-prob is not
        # a number either, which the engine reports.
        tokens = tokens.clamp_(max=self.vocab_size - 1)
        chosen = torch.cat([tokens.double(), probs.gather(1, tokens).double()], dim=1)
        answer = chosen.cpu().numpy()  # one transfer, one wait
        return answer[:, 0].astype(np.int64), np.log(answer[:, 1])

    def _restrict(self, logits_nV: Tensor, rows: np.ndarray) -> Tensor:
        """Logits with -inf where the settings of `rows` leave no probability."""
        index = torch.from_numpy(rows).to(self.device)
        params = [self._params[row] for row in rows]
        chosen = logits_nV[index] + torch.stack([self._bias(p) for p in params])
        return logits_nV.index_copy(0, index, truncate(chosen, params))

    def _bias(self, params: SamplingParams) -> Tensor:
        """0 for tokens that may be sampled, -inf for the others: float32 [V]."""
        bias = torch.zeros(self.vocab_size)
        if params.allowed_token_ids is not None:
            bias.fill_(-torch.inf)
            bias[list(params.allowed_token_ids)] = 0
        if params.forbidden_token_ids:
            bias[list(params.forbidden_token_ids)] = -torch.inf
        return bias.to(self.device)


def draw(probs_nV: Tensor, uniform_n1: Tensor) -> Tensor:
    """The token whose interval of the cumulative distribution holds the uniform number: int64 [n, 1].

    In float64, where uniform * total stays below total (53 random bits), so the search always ends on a token
    that has probability: never past the last one, never on one of probability 0.
    """
    cumulative = probs_nV.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, uniform_n1 * cumulative[:, -1:], right=True)


def truncate(logits_nV: Tensor, params: Many[SamplingParams]) -> Tensor:
    """Logits with -inf outside of top-k, top-p and min-p, in that order; the likeliest token always stays.

    top-p keeps the smallest set of likeliest tokens whose probability reaches p (nucleus sampling, Holtzman
    et al. 2020), min-p those at least min_p times as likely as the likeliest (Nguyen et al. 2024). Ties fall
    to the lower id.
    """

    def column(name: str, dtype: torch.dtype) -> Tensor:
        values = [getattr(p, name) if p.temperature > 0 else getattr(SamplingParams(), name) for p in params]
        return torch.tensor(values, dtype=dtype, device=logits_nV.device)[:, None]

    ranked, order = logits_nV.sort(dim=-1, descending=True, stable=True)
    top_k, top_p, min_p = (
        column("top_k", torch.int64),
        column("top_p", torch.float64),
        column("min_p", torch.float64),
    )
    vocab = ranked.shape[-1]
    rank = torch.arange(vocab, device=ranked.device)
    ranked = ranked.masked_fill(rank >= torch.where(top_k > 0, top_k, vocab), -torch.inf)
    probs = torch.softmax(ranked.double(), dim=-1)
    before = probs.cumsum(dim=-1) - probs
    drop = (before >= top_p) & (top_p < 1) | (probs < min_p * probs[:, :1])
    drop[:, 0] = False
    return torch.empty_like(logits_nV).scatter_(1, order, ranked.masked_fill(drop, -torch.inf))


def forced_logprobs(logits_FV: Tensor, tokens: Many[int], temperature: float) -> list[float]:
    """Log-probs of given tokens under softmax(logits / temperature), untruncated; temperature 0 counts as
    1.
    """
    scaled = torch.log_softmax(logits_FV.float() / (temperature or 1.0), dim=-1)
    index = torch.tensor(tokens, device=logits_FV.device)[:, None]
    return scaled.gather(1, index)[:, 0].tolist()

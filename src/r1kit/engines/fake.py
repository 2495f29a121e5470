"""An engine without a model: for tests of everything that talks to engines, and the oracle of the conformance
suite.

The next-token scores are a plain function of the tokens so far. Sampling is written out for one sequence at a
time in NumPy float64, as slowly and plainly as it reads, so that it can serve as the reference of faster
engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from r1kit.engines.base import EngineBase
from r1kit.engines.protocol import EngineError, SamplingParams, TokenEvent
from r1kit.engines.randomness import uniforms
from r1kit.engines.sequence import Decodes, matched_stop_string
from r1kit.engines.sequence import Sequence as Response
from r1kit.records import Finish

Scores = Callable[[Sequence[int]], np.ndarray]


def hashed_scores(vocab_size: int, *, seed: int = 0, spread: float = 2.0) -> Scores:
    """Scores that look random but depend only on the tokens so far: normal with deviation `spread`, float64
    [V].
    """

    def scores(tokens: Sequence[int]) -> np.ndarray:
        text = f"{seed}:{','.join(map(str, tokens))}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "little")).normal(0, spread, vocab_size)

    return scores


class FakeEngine(EngineBase):
    """Answers from `scores(tokens so far) -> [V]`; `checksum` is what `load_weights` compares with, if
    given.
    """

    def __init__(
        self,
        vocab_size: int,
        scores: Scores | None = None,
        tokenizer: Decodes | None = None,
        *,
        max_length: int = 4096,
        policy_version: int = 0,
        checksum: str | None = None,
    ) -> None:
        super().__init__(vocab_size, tokenizer, max_length, policy_version)
        self.scores = scores or hashed_scores(vocab_size)
        self.checksum = checksum
        self._running: list[Response] = []

    def load_weights(self, version: int, checksum: str | None = None) -> None:
        with self._lock:
            if self._running:
                raise EngineError(
                    f"load_weights({version}): {len(self._running)} responses are running; finish them first"
                )
            if checksum is not None and checksum != self.checksum:
                raise EngineError(
                    f"load_weights({version}): the weights have checksum {self.checksum}, expected {checksum}"
                )
            self.policy_version = version

    def _advance(self, events: list[TokenEvent] | None) -> None:
        for response in [*self._running]:
            first = not response.tokens and response.params.forced_prefix
            added = self._force(response) if first else [self._sample(response)]
            ending = self._ending(response, forced=bool(first))
            if events is not None:
                for i, (token, logprob) in enumerate(added):
                    finish = ending[0] if ending and i == len(added) - 1 else None
                    events.append(TokenEvent(response.request.id, token, logprob, finish))
            if ending:
                self._running.remove(response)
                self._finish(response, *ending)

    def _force(self, response: Response) -> list[tuple[int, float]]:
        added = []
        plain = SamplingParams(temperature=response.params.temperature or 1.0)
        for token in response.params.forced_prefix:
            scores = self.scores([*response.request.prompt_ids, *response.tokens])
            logprob = float(np.log(distribution(scores, plain)[token]))
            response.extend([token], [logprob], forced=True)
            added.append((token, logprob))
        return added

    def _sample(self, response: Response) -> tuple[int, float]:
        stream = [*response.request.prompt_ids, *response.tokens]
        probs = distribution(self.scores(stream), response.params)
        if response.params.temperature == 0:
            token = int(probs.argmax())
        else:
            uniform = uniforms(np.array([response.key], np.uint64), np.array([len(stream)]))[0]
            cumulative = probs.cumsum()
            token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        logprob = float(np.log(probs[token]))
        response.extend([token], [logprob])
        return token, logprob

    def _ending(self, response: Response, *, forced: bool) -> tuple[Finish, str] | None:
        params = response.params
        if not forced and response.tokens[-1] in params.stop_token_ids:
            return "stopped", f"token {response.tokens[-1]}"
        if not forced and params.stop_strings and self.tokenizer is not None:
            found = matched_stop_string(self.tokenizer, response.tokens, params.stop_strings)
            if found is not None:
                return "stopped", f"string {found!r}"
        return ("length", "max_tokens") if len(response.tokens) >= params.max_tokens else None

    def _start(self, response: Response) -> None:
        self._running.append(response)

    def _stop(self, response: Response) -> None:
        self._running.remove(response)

    def _branch(self, response: Response, new_id: str, sample: int, params: SamplingParams | None) -> Response:
        return response.fork(new_id, sample, params)


def distribution(scores: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The distribution a token is sampled from: float64 [V], summing to 1. Temperature 0: that of temperature
    1.
    """
    scores = np.array(scores, np.float64)
    if params.allowed_token_ids is not None:
        scores[~np.isin(np.arange(len(scores)), params.allowed_token_ids)] = -np.inf
    scores[list(params.forbidden_token_ids)] = -np.inf
    scores = scores / (params.temperature or 1.0)
    probs = np.exp(scores - scores.max())
    probs /= probs.sum()
    if params.temperature == 0:
        return probs
    order = np.argsort(-probs, kind="stable")
    kept = order[: params.top_k] if params.top_k else order
    if params.top_p < 1:
        shares = probs[kept] / probs[kept].sum()
        enough = int(np.searchsorted(shares.cumsum(), params.top_p)) + 1  # the first k whose sum reaches p
        kept = kept[:enough]
    kept = kept[probs[kept] >= params.min_p * probs.max()]
    result = np.zeros_like(probs)
    result[kept] = probs[kept] / probs[kept].sum()
    return result

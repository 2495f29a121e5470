"""What every engine speaks: requests in, samples out, token by token.

An engine is anything that answers `generate(requests)` with samples (token ids, the log-prob of each, the
policy version, how it ended) and takes new weights by `load_weights(version, checksum)`. The local engine,
the fake one and the remote ones are held to one conformance suite (`tests/engines/conformance.py`).

Randomness is counter-based: the token at `position` of a sample is a pure function of (seed, problem, sample,
position) and of the distribution, so neither batching nor the number of workers changes what is sampled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from r1kit.records import Finish


class EngineError(RuntimeError):
    """The engine cannot do what was asked; the message names the request and the remedy."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample one response.

    temperature: 0 is greedy; else logits are divided by it. top_p in (0, 1], top_k (0 = off), min_p in [0, 1)
    are applied in the order temperature, top_k, top_p, min_p. max_tokens counts sampled and forced tokens
    alike. stop_token_ids end the response and are kept in it; stop_strings end it once the decoded text
    contains one. forced_prefix: token ids the response must begin with; their log-probs are recorded, they
    are not sampled. allowed_token_ids / forbidden_token_ids restrict the vocabulary at every sampled
    position.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    seed: int = 0
    forced_prefix: tuple[int, ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    forbidden_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, want: str) -> None:
            if not ok:
                raise EngineError(f"SamplingParams.{name} is {getattr(self, name)!r}: expected {want}")

        check(self.temperature >= 0, "temperature", "0 (greedy) or a positive number")
        check(0 < self.top_p <= 1, "top_p", "a number in (0, 1]")
        check(self.top_k >= 0, "top_k", "0 (off) or a positive integer")
        check(0 <= self.min_p < 1, "min_p", "a number in [0, 1)")
        check(self.max_tokens >= 1, "max_tokens", "at least 1")
        check(len(self.forced_prefix) <= self.max_tokens, "forced_prefix", "no more tokens than max_tokens")
        check(
            self.allowed_token_ids is None or len(self.allowed_token_ids) > 0,
            "allowed_token_ids",
            "at least one id",
        )
        check(all(self.stop_strings), "stop_strings", "no empty string")


@dataclass(frozen=True)
class Request:
    """One response to sample.

    `problem` and `sample` key the randomness together with `params.seed`. Requests of one `problem` with
    equal `prompt_ids` share one prefill. `id` must be unique among the requests an engine holds.
    """

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    problem: str = ""
    sample: int = 0


@dataclass(frozen=True)
class Sample:
    """One finished response. Parallel: token_ids, logprobs, forced (True where the token was given, not
    sampled).
    """

    request_id: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    forced: tuple[bool, ...]
    finish: Finish
    policy_version: int
    stop_reason: str = ""


@dataclass(frozen=True)
class TokenEvent:
    """One streamed token; the last event of a response carries its `finish`."""

    request_id: str
    token_id: int
    logprob: float
    finish: Finish | None = None


@runtime_checkable
class Engine(Protocol):
    """The face of every engine. Blocking calls first, then their asynchronous twins."""

    policy_version: int

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        """Sample every request to its end; the answers are in the order of the requests."""
        ...

    def submit(self, request: Request) -> str:
        """Queue a request without waiting; returns its id."""
        ...

    def step(self) -> list[TokenEvent]:
        """Advance every running request by one token; the tokens that came out."""
        ...

    def collect(self, request_id: str) -> Sample | None:
        """The finished sample of a submitted request, handed out once; None while it runs."""
        ...

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Sample one request, yielding its tokens as they come."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop a queued or running request; its sample ends as "aborted"."""
        ...

    def fork(self, request_id: str, new_id: str, *, sample: int, params: SamplingParams | None = None) -> str:
        """Copy a running request, tokens and cache, into a new one that goes on with its own randomness."""
        ...

    def load_weights(self, version: int, checksum: str | None = None) -> None:
        """Take the weights of policy `version`; a checksum that does not match raises EngineError."""
        ...

    async def agenerate(self, requests: Sequence[Request]) -> list[Sample]:
        """`generate` that leaves the event loop free."""
        ...

    def astream(self, request: Request) -> AsyncIterator[TokenEvent]:
        """`stream` for asyncio."""
        ...

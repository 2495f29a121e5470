"""One response in the making, and the prefix (cache and logits) it starts from."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from r1kit.engines.protocol import Request, Sample, SamplingParams
from r1kit.engines.randomness import request_key
from r1kit.records import Finish


class Decodes(Protocol):
    """All that an engine asks of a tokenizer."""

    def decode(self, token_ids: Any) -> Any: ...


@dataclass(frozen=True)
class Prompt:
    """What is computed once for all requests that share it.

    `forced` tokens follow the prompt; their log-probs depend on the temperature, which is therefore part of
    the identity where tokens are forced (and 1 where none are, so that it never separates a group).
    """

    token_ids: tuple[int, ...]
    forced: tuple[int, ...] = ()
    temperature: float = 1.0

    @classmethod
    def of(cls, request: Request) -> Prompt:
        forced = request.params.forced_prefix
        return cls(request.prompt_ids, forced, request.params.temperature if forced else 1.0)

    @property
    def stream(self) -> tuple[int, ...]:
        return self.token_ids + self.forced


@dataclass(frozen=True, eq=False)
class Prefix:
    """A computed beginning of `length` tokens: what the cache of the engine holds of it, and `logits` [V] of the
    next token.
    """

    keys_values: Tensor
    logits: Tensor
    length: int
    forced_logprobs: tuple[float, ...] = ()


@dataclass(eq=False)
class Sequence:
    """A request and what it holds so far.

    While a sequence runs, the scheduler's table keeps its tokens; `tokens`, `logprobs` and `forced` hold what
    came before it was placed (a forced prefix, the past of a fork) and, once it is finished, everything.
    """

    request: Request
    key: int
    prefix: Prefix | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    finish: Finish | None = None
    stop_reason: str = ""

    @classmethod
    def of(cls, request: Request) -> Sequence:
        return cls(request, request_key(request.params.seed, request.problem or request.id, request.sample))

    @property
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def limit(self) -> int:
        """Tokens of prompt and longest possible response together."""
        return len(self.request.prompt_ids) + self.params.max_tokens

    def end(self, finish: Finish, reason: str) -> None:
        self.finish, self.stop_reason = finish, reason

    def extend(self, tokens: Many[int], logprobs: Many[float], *, forced: bool = False) -> None:
        self.tokens += tokens
        self.logprobs += logprobs
        self.forced += [forced] * len(tokens)

    def fork(self, new_id: str, sample: int, params: SamplingParams | None) -> Sequence:
        """A copy with another id, its own randomness and, if given, other settings; the prefix is the
        caller's.
        """
        request = replace(self.request, id=new_id, sample=sample, params=params or self.params)
        key = request_key(request.params.seed, self.request.problem or self.request.id, sample)
        return Sequence(request, key, self.prefix, [*self.tokens], [*self.logprobs], [*self.forced])

    def sample(self, policy_version: int) -> Sample:
        if self.finish is None:
            raise AssertionError(f"request {self.request.id} has not finished")
        return Sample(
            request_id=self.request.id,
            token_ids=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            forced=tuple(self.forced),
            finish=self.finish,
            policy_version=policy_version,
            stop_reason=self.stop_reason,
        )


def matched_stop_string(tokenizer: Decodes, tokens: Many[int], stop_strings: Many[str]) -> str | None:
    """The stop string that the last of `tokens` completes, or None.

    Only the tail is decoded: a stop string of n bytes spans at most n tokens, and the tokens before it serve
    to tell what the last one added. A stop string that was complete before the last token does not count (it
    is in a prefix that the caller forced).
    """
    widest = max(len(stop.encode()) for stop in stop_strings)
    tail = list(tokens[-(widest + 4) :])
    before, now = tokenizer.decode(tail[:-1]), tokenizer.decode(tail)
    unchanged = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(before))
    for stop in stop_strings:
        if now.find(stop, max(0, unchanged - len(stop) + 1)) >= 0:
            return stop
    return None

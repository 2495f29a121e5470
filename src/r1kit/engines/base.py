"""What all engines that run in this process share: the desk where requests come in and samples go out.

An engine of this kind says how to start, advance, stop and fork a response; `EngineBase` makes the protocol
of it: `generate`, streaming, the asynchronous twins, and the bookkeeping of ids. One lock covers every public
call, so threads (and with them the event loop) may share an engine; requests of several callers run in one
batch.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from r1kit.engines.protocol import EngineError, Request, Sample, SamplingParams, TokenEvent
from r1kit.engines.sequence import Decodes
from r1kit.engines.sequence import Sequence as Response
from r1kit.records import Finish

# Steps between two looks at the event loop: fewer would spend the time on switching threads.
_STEPS_PER_TURN = 8


class EngineBase(ABC):
    """See `r1kit.engines.protocol.Engine` for what the public methods promise."""

    def __init__(self, vocab_size: int, tokenizer: Decodes | None, max_length: int, policy_version: int) -> None:
        """max_length: the most tokens of prompt and response together; tokenizer: needed for stop strings
        only.
        """
        self.vocab_size, self.tokenizer, self.max_length = vocab_size, tokenizer, max_length
        self.policy_version = policy_version
        self._lock = threading.RLock()
        self._open: dict[str, Response] = {}
        self._finished: dict[str, Sample] = {}
        self._streams: dict[str, deque[TokenEvent]] = {}

    # -- what an engine adds ---------------------------------------------------------------------------------

    @abstractmethod
    def _start(self, response: Response) -> None:
        """Queue a response."""

    @abstractmethod
    def _advance(self, events: list[TokenEvent] | None) -> None:
        """One more token for every running response; calls `_finish` for those that end.

        The tokens are added to `events`, unless it is None.
        """

    @abstractmethod
    def _stop(self, response: Response) -> None:
        """Let go of a queued or running response; its tokens so far are written into it."""

    @abstractmethod
    def _branch(self, response: Response, new_id: str, sample: int, params: SamplingParams | None) -> Response:
        """A copy of a queued or running response, ready for `_start`."""

    def _finish(self, response: Response, finish: Finish, reason: str) -> None:
        """Close a response whose tokens are complete."""
        response.end(finish, reason)
        del self._open[response.request.id]
        self._finished[response.request.id] = response.sample(self.policy_version)

    # -- the protocol ----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> str:
        self._submit([request])
        return request.id

    def _submit(self, requests: Sequence[Request]) -> None:
        """Queue all of the requests, or none where one is refused."""
        with self._lock:
            seen: set[str] = set()
            for request in requests:
                self._check(request, seen)
                seen.add(request.id)
            for request in requests:
                response = Response.of(request)
                self._open[request.id] = response
                self._start(response)

    def _check(self, request: Request, seen: Collection[str] = ()) -> None:
        if not request.id:
            raise EngineError("a request has an empty id: give every request its own")
        if request.id in seen or request.id in self._open or request.id in self._finished:
            raise EngineError(
                f"request id {request.id!r} is already in use: ids must differ until their sample is collected"
            )
        reason = refusal(request, self.vocab_size, self.max_length, with_text=self.tokenizer is not None)
        if reason:
            raise EngineError(f"request {request.id!r}: {reason}")

    def step(self) -> list[TokenEvent]:
        with self._lock:
            events: list[TokenEvent] = []
            self._advance(events)
            for event in events:
                if event.request_id in self._streams:
                    self._streams[event.request_id].append(event)
            return events

    def _run(self, pending: list[str], steps: int) -> bool:
        """Advance for `steps` steps at most, taking finished ids from the end of `pending`; whether none is
        left.
        """
        for _ in range(steps):
            with self._lock:
                while pending and pending[-1] in self._finished:
                    pending.pop()
                if not pending:
                    return True
                if pending[-1] not in self._open:
                    raise EngineError(f"request {pending[-1]!r} was collected by someone else while its caller waited")
                if self._streams:  # somebody reads tokens as they come
                    self.step()
                else:
                    self._advance(None)
        return False

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        self._submit(requests)
        wanted = [request.id for request in requests]
        try:
            self._run([*wanted], sys.maxsize)
            return [self._finished.pop(request_id) for request_id in wanted]
        finally:
            self._abandon(wanted)

    def _abandon(self, wanted: Collection[str]) -> None:
        """Forget requests whose caller has gone (interrupted, or failed)."""
        with self._lock:
            for request_id in wanted:
                if request_id in self._open:
                    self.cancel(request_id)
                self._finished.pop(request_id, None)
                self._streams.pop(request_id, None)

    def collect(self, request_id: str) -> Sample | None:
        with self._lock:
            if request_id in self._finished:
                return self._finished.pop(request_id)
            self._find(request_id)
            return None

    def _find(self, request_id: str) -> Response:
        if request_id not in self._open:
            raise EngineError(
                f"no queued or running request has the id {request_id!r}: it was never submitted, or is done"
            )
        return self._open[request_id]

    def cancel(self, request_id: str) -> None:
        with self._lock:
            response = self._find(request_id)
            self._stop(response)
            self._finish(response, "aborted", "cancelled")

    def fork(self, request_id: str, new_id: str, *, sample: int, params: SamplingParams | None = None) -> str:
        with self._lock:
            response = self._find(request_id)
            if params is not None and params.forced_prefix not in ((), response.params.forced_prefix):
                raise EngineError(
                    f"fork of {request_id!r}: forced_prefix cannot be added to a running response; submit a request "
                    "whose prompt ends with the tokens so far"
                )
            branch = self._branch(response, new_id, sample, params)
            self._check(branch.request)
            if len(branch.tokens) >= branch.params.max_tokens:
                raise EngineError(
                    f"fork of {request_id!r}: it has {len(branch.tokens)} tokens, max_tokens of the fork is "
                    f"{branch.params.max_tokens}; raise it"
                )
            self._open[new_id] = branch
            self._start(branch)
            return new_id

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Tokens of one request as they come. The stream is the answer: there is no sample to collect
        afterwards.
        """
        self._open_stream(request)
        try:
            while (batch := self._arrived(request.id)) is not None:
                yield from batch
        finally:
            self._abandon([request.id])

    def _open_stream(self, request: Request) -> None:
        with self._lock:
            self._submit([request])
            self._streams[request.id] = deque()

    def _arrived(self, request_id: str) -> list[TokenEvent] | None:
        """The next tokens of a stream, advancing the engine where none wait; None at its end."""
        with self._lock:
            arrived = self._streams[request_id]
            if not arrived and request_id in self._open:
                self.step()
            elif not arrived:
                return None
            return [arrived.popleft() for _ in range(len(arrived))]

    async def agenerate(self, requests: Sequence[Request]) -> list[Sample]:
        wanted = [request.id for request in requests]
        pending = [*wanted]
        async with self._caller(wanted, self._submit, requests):
            while not await asyncio.to_thread(self._run, pending, _STEPS_PER_TURN):
                pass
            return [self._finished.pop(request_id) for request_id in wanted]

    async def astream(self, request: Request) -> AsyncIterator[TokenEvent]:
        async with self._caller([request.id], self._open_stream, request):
            while (batch := await asyncio.to_thread(self._arrived, request.id)) is not None:
                for event in batch:
                    yield event

    @asynccontextmanager
    async def _caller(self, wanted: Sequence[str], submit: Callable[[Any], None], what: Any) -> AsyncIterator[None]:
        """Submit in a thread; when the caller is done, or cancelled at any moment, leave nothing behind."""
        submitting = asyncio.ensure_future(asyncio.to_thread(submit, what))
        try:
            await asyncio.shield(submitting)
            yield
        finally:
            await asyncio.wait([submitting])
            if submitting.exception() is None:  # else nothing was queued, and the ids may be somebody else's
                await asyncio.to_thread(self._abandon, wanted)


def refusal(request: Request, vocab_size: int, max_length: int, *, with_text: bool) -> str | None:
    """Why an engine of these limits cannot serve the request, and what to do, or None where it can."""
    params, total = request.params, len(request.prompt_ids) + request.params.max_tokens
    if not request.prompt_ids:
        return "the prompt is empty: there is nothing to predict from, give at least one token (<bos>)"
    if total > max_length:
        return (
            f"prompt of {len(request.prompt_ids)} tokens plus max_tokens {params.max_tokens} is {total}, more than the "
            f"{max_length} this engine holds; shorten one of them, or raise the engine's max_length"
        )
    if params.stop_strings and not with_text:
        return "stop_strings need a tokenizer: give one to the engine, or use stop_token_ids"
    for name, ids in (
        ("prompt_ids", request.prompt_ids),
        ("forced_prefix", params.forced_prefix),
        ("stop_token_ids", params.stop_token_ids),
        ("allowed_token_ids", params.allowed_token_ids or ()),
        ("forbidden_token_ids", params.forbidden_token_ids),
    ):
        wrong = next((i for i in ids if not 0 <= i < vocab_size), None)
        if wrong is not None:
            return f"{name} holds {wrong}: expected token ids from 0 to {vocab_size - 1}"
    allowed = range(vocab_size) if params.allowed_token_ids is None else params.allowed_token_ids
    if params.forbidden_token_ids and not set(allowed) - set(params.forbidden_token_ids):
        return "forbidden_token_ids leave no token to sample: allow at least one"
    return None

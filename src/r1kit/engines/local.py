"""The local engine: samples from the trainer's own module and parameters, in its process.

A small float32 model on a CPU is sampled through a second writing of its mathematics, with weights laid out for few
rows (engines/prepared.py, taken over anew before each batch); tests/engines/test_prepared.py holds the two together.
Every other model is sampled through the trainer's own `forward`.

    engine = LocalEngine(model, tokenizer, slots=128)
    params = SamplingParams(max_tokens=240, stop_token_ids=(2,))
    samples = engine.generate([Request("1", prompt_ids, params)])
    ...                             # the optimiser changes the parameters in place
    engine.load_weights(version=1)  # from here on samples are of the new policy

One step: (1) admit requests, prompts prefilled once for all that share them; (2) sample a token for every
running response; (3) let the finished ones go and close the gaps; (4) run the model on the new tokens. One
wait for the device per step, at (2). Scheduler, cache, runner and sampler each have a file of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from r1kit.engines.base import EngineBase
from r1kit.engines.invariance import Model, Shapes, settle
from r1kit.engines.native import PRECISIONS, NativeDecoder
from r1kit.engines.native_runner import NativeRunner
from r1kit.engines.prepared import PreparedDecoder, prepare
from r1kit.engines.protocol import EngineError, SamplingParams, TokenEvent
from r1kit.engines.runner import Runner
from r1kit.engines.sampler import Sampler, forced_logprobs
from r1kit.engines.scheduler import Scheduler
from r1kit.engines.sequence import Decodes, Prefix, Prompt, Sequence, matched_stop_string
from r1kit.models.checkpoint import weights_checksum
from r1kit.records import Finish

# Bytes of cache, per layer, that take as long to read as one more span takes to start (measured on a CPU).
_MERGE_BYTES = {"cpu": 200_000, "cuda": 32_000_000}
# The part of the slots that must be free before new requests start. A CPU does nothing for free slots, and
# responses that start together stay equally long: half was best in measurement. Elsewhere a step costs the
# same however few rows it has.
_REFILL = {"cpu": 1 / 2}
# Compiled passes are called for so many steps at once, unless somebody reads the tokens as they come; closing a gap
# costs them nothing, so they refill sooner.
_STEPS = 32
_NATIVE_REFILL = 1 / 8


@dataclass
class EngineStatistics:
    """What an engine has done since its counters were last reset.

    `row_steps` counts rows the model ran in decoding, `tokens` those sampled (the last token of a response
    needs no row). Seconds: `prefill` (admission included), `decode` (of which `attention`, cache writes
    included), `sample`, `schedule` (ending responses, closing gaps). On an asynchronous device the seconds
    tell where the host waited.
    """

    tokens: int = 0
    steps: int = 0
    row_steps: int = 0
    prompts: int = 0
    prompts_shared: int = 0
    prefill_tokens: int = 0
    moves: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    attention_seconds: float = 0.0
    sample_seconds: float = 0.0
    schedule_seconds: float = 0.0


class LocalEngine(EngineBase):
    """Continuous batching over the slots of one cache, for any model with the interface of `Decoder`.

    slots: responses that run at once. max_length: longest prompt plus response; the cache grows towards it as
    requests ask for it (default: the model's own limit). tokenizer: needed for stop strings only.
    deterministic: batching, slots and neighbours never change what is sampled, bit for bit; `determinism`
    says by which shapes, which are measured when the engine is made. native: decode in C++ with products of
    "float32" or "bfloat16", or "off".
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Decodes | None = None,
        *,
        slots: int = 128,
        max_length: int | None = None,
        deterministic: bool = True,
        native: str = "off",
        policy_version: int = 0,
    ) -> None:
        if slots < 1:
            raise EngineError(f"slots is {slots}: an engine needs at least 1")
        limit = model.config.max_positions
        if max_length is not None and not 1 < max_length <= limit:
            raise EngineError(f"max_length is {max_length}: expected 2 to {limit}, the positions this model knows")
        super().__init__(model.config.vocab_size, tokenizer, max_length or limit, policy_version)
        self.model = model
        self._prepared = prepare(model)
        self._native = None if native == "off" else self._compiled(native)
        self.shapes = settle(self._prepared) if deterministic and self._native is None else Shapes()
        self._runner: Runner | NativeRunner
        with torch.inference_mode():
            if self._native is None:
                self._runner = Runner(self._prepared, slots, self.shapes)
            else:
                self._runner = NativeRunner(self._native, slots)
            if not self.shapes.padding:
                self._runner.cache.reserve(self.max_length)
        cache, device = self._runner.cache, self._runner.device.type
        refill = _REFILL.get(device, 1 / 8) if self._native is None else _NATIVE_REFILL
        self._scheduler = Scheduler(
            slots,
            padding=self.shapes.padding if self._native is None else 0,
            cache_length=cache.length,
            merge_positions=_MERGE_BYTES.get(device, 0) // cache.bytes_per_position,
            refill_slots=int(slots * refill),
        )
        self._sampler = Sampler(slots, model.config.vocab_size, self._runner.device, native=self._native is not None)
        self._prefixes: dict[Prompt, Prefix] = {}
        self._logits: Tensor | None = None  # of the next token of every running response [running, V]
        self.statistics = EngineStatistics()

    def _compiled(self, precision: str) -> NativeDecoder:
        if precision not in PRECISIONS:
            raise EngineError(f"native is {precision!r}: expected off, {' or '.join(PRECISIONS)}")
        if not isinstance(self._prepared, PreparedDecoder):
            raise EngineError("engine.native: only small float32 decoders on the CPU are compiled; turn it off")
        return NativeDecoder(self._prepared, precision)

    @property
    def deterministic(self) -> bool:
        return self.shapes.exact or self._native is not None

    @property
    def determinism(self) -> str:
        """By which shapes results are independent of the batch, in words."""
        if self._native is None:
            return self.shapes.describe()
        return f"compiled in C++, {str(self._native.dtype).removeprefix('torch.')}: each row on its own"

    @property
    def cache_bytes(self) -> int:
        return self._runner.cache.nbytes

    def load_weights(self, version: int, checksum: str | None = None) -> None:
        """The parameters have changed in place: from now on samples carry `version`.

        With a checksum (`r1kit.models.checkpoint.weights_checksum` of what was meant to be loaded) the
        parameters are verified first. Refused while responses run: half of their cache would come from other
        weights.
        """
        with self._lock:
            if self._scheduler.running or any(s.prefix for s in self._scheduler.waiting):
                raise EngineError(
                    f"load_weights({version}): {len(self._scheduler.running)} responses are running; let them finish "
                    "or cancel them first"
                )
            if checksum is not None:
                found = weights_checksum(self.model)  # type: ignore[arg-type]
                if found != checksum:
                    raise EngineError(
                        f"load_weights({version}): the parameters have checksum {found[:16]}..., expected "
                        f"{checksum[:16]}...; the weights did not arrive whole, send them again"
                    )
            self._prefixes.clear()
            self.policy_version = version

    # -- one step --------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _advance(self, events: list[TokenEvent] | None) -> None:
        scheduler, stats = self._scheduler, self.statistics
        clock = [perf_counter()]
        self._admit(events)
        clock.append(perf_counter())
        if self._logits is None:
            return
        if self._leaps():
            stats.prefill_seconds += clock[1] - clock[0]
            self._leap(events)
            return
        tokens, logprobs = self._sampler.sample(self._logits, scheduler.lengths[: len(scheduler.running)])
        if not np.isfinite(logprobs).all():
            self._fail(int(np.flatnonzero(~np.isfinite(logprobs))[0]))
        clock.append(perf_counter())
        scheduler.record(tokens, logprobs)
        self._drop(self._ended(events), keep_logits=False)
        clock.append(perf_counter())
        self._decode()
        clock.append(perf_counter())
        stats.tokens += len(tokens)
        seconds = [end - start for start, end in pairwise(clock)]
        stats.prefill_seconds += seconds[0]
        stats.sample_seconds += seconds[1]
        stats.schedule_seconds += seconds[2]
        stats.decode_seconds += seconds[3]

    def _leaps(self) -> bool:
        """Whether a compiled call may do the whole of a step."""
        scheduler = self._scheduler
        plain = self._native is not None and self._sampler.plain(len(scheduler.running))
        return plain and not scheduler.with_stop_strings()

    def _leap(self, events: list[TokenEvent] | None) -> None:
        """Many steps in one compiled call, or one where somebody reads the tokens: until as many responses have ended
        as those that wait need.
        """
        scheduler, sampler, stats = self._scheduler, self._sampler, self.statistics
        if not isinstance(self._runner, NativeRunner):
            raise AssertionError("only compiled passes leap")
        columns = {**vars(scheduler), **vars(sampler)}
        n = len(scheduler.running)
        enough = scheduler.missing() if scheduler.waiting else n
        done = self._runner.advance(columns, n, steps=_STEPS if events is None else 1, enough=enough)
        began = perf_counter()
        failed = scheduler.running[done.failed] if done.failed >= 0 else None
        self._drop(self._ended(None if failed else events), keep_logits=True)
        if not scheduler.running:
            self._logits = None
        stats.tokens += done.tokens
        stats.steps += done.steps
        stats.row_steps += done.row_steps
        stats.decode_seconds += done.decode_seconds
        stats.attention_seconds += done.attention_seconds
        stats.sample_seconds += done.sample_seconds
        stats.schedule_seconds += perf_counter() - began
        if failed is not None:
            self._fail(scheduler.running.index(failed))

    def _admit(self, events: list[TokenEvent] | None) -> None:
        """Place waiting requests; compute the prompts among them that are new."""
        admitted = self._scheduler.admit()
        if not admitted:
            return
        if not self._scheduler.running and isinstance(self._prepared, PreparedDecoder):
            self._prepared.refresh()  # the parameters may have changed while nothing ran
            if self._native is not None:
                self._native.refresh()
        needed = max(sequence.limit for sequence in admitted)
        unit = self.shapes.padding or 1
        self._runner.cache.reserve(-(-needed // unit) * unit)
        prefixes = self._prefill(admitted)
        more = []
        for sequence, prefix in zip(admitted, prefixes, strict=True):
            if self._begin(sequence, prefix, events):
                slot = self._scheduler.place(sequence, prefix.length)
                self._runner.cache.load(slot, prefix)
                self._sampler.place(slot, sequence)
                more.append(prefix.logits)
        if more:
            self._logits = self._runner.with_logits(self._logits, more)

    def _prefill(self, admitted: list[Sequence]) -> list[Prefix]:
        """The prefix of each sequence; prompts that others wait for are kept."""
        prompts = {s: Prompt.of(s.request) for s in admitted if s.prefix is None}
        new = [prompt for prompt in dict.fromkeys(prompts.values()) if prompt not in self._prefixes]
        self._prefixes.update(zip(new, self._runner.prefill(new, forced_logprobs), strict=True))
        self.statistics.prompts += len(new)
        self.statistics.prompts_shared += len(prompts) - len(new)
        self.statistics.prefill_tokens += sum(len(prompt.stream) for prompt in new)
        prefixes = [s.prefix or self._prefixes[prompts[s]] for s in admitted]
        for prompt in set(prompts.values()):
            self._forget(prompt)
        return prefixes

    def _forget(self, prompt: Prompt) -> None:
        """Drop a prefix that no waiting request wants."""
        if prompt not in self._scheduler.wanted:
            self._prefixes.pop(prompt, None)

    def _begin(self, sequence: Sequence, prefix: Prefix, events: list[TokenEvent] | None) -> bool:
        """Write the forced tokens of a new sequence; False where they are all it may have."""
        forced = sequence.params.forced_prefix
        if sequence.prefix is not None or not forced:
            return True
        sequence.extend(forced, prefix.forced_logprobs, forced=True)
        full = len(forced) >= sequence.params.max_tokens
        if events is not None:
            last = len(forced) - 1
            for i, (token, logprob) in enumerate(zip(forced, prefix.forced_logprobs, strict=True)):
                events.append(TokenEvent(sequence.request.id, token, logprob, "length" if full and i == last else None))
        if full:
            self._finish(sequence, "length", "max_tokens")
        return not full

    def _ended(self, events: list[TokenEvent] | None) -> list[int]:
        """Close the responses that the newest tokens end; their slots, in ascending order."""
        scheduler = self._scheduler
        tokens, logprobs = scheduler.newest()
        reasons: dict[int, tuple[Finish, str]] = {}
        for slot in scheduler.ended(tokens):
            stopped = tokens[slot] in scheduler.stops[slot]
            reasons[slot] = ("stopped", f"token {tokens[slot]}") if stopped else ("length", "max_tokens")
        for slot in scheduler.with_stop_strings():
            found = self._stop_string(slot)
            if found is not None and reasons.get(slot, ("length",))[0] == "length":
                reasons[slot] = ("stopped", f"string {found!r}")
        if events is not None:
            for slot, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
                finish = reasons[slot][0] if slot in reasons else None
                events.append(TokenEvent(scheduler.running[slot].request.id, token, logprob, finish))
        for slot, (finish, reason) in reasons.items():
            self._finish(scheduler.release(slot), finish, reason)
        return sorted(reasons)

    def _stop_string(self, slot: int) -> str | None:
        stops = self._scheduler.running[slot].params.stop_strings
        if self.tokenizer is None:
            raise AssertionError("a request with stop strings was admitted without a tokenizer")
        return matched_stop_string(self.tokenizer, self._scheduler.response(slot), stops)

    def _fail(self, slot: int) -> NoReturn:
        """The scores of a slot are not numbers: end everything as "failed", clean the cache, and say so."""
        name, place = self._scheduler.running[slot].request.id, int(self._scheduler.lengths[slot])
        for response in [*self._open.values()]:
            self._stop(response)
            self._finish(response, "failed", "scores are not finite")
        self._runner.cache.data.zero_()  # what is not a number would stay one even behind a mask
        raise EngineError(
            f"request {name!r}: the model's scores at position {place} are not finite; the weights of policy version "
            f"{self.policy_version} have diverged or are damaged, load others"
        )

    def _drop(self, slots: list[int], *, keep_logits: bool) -> None:
        """Empty slots and close the gaps in every table."""
        if not slots:
            return
        moves = self._scheduler.remove(slots)
        for source, target, length in moves:
            self._runner.cache.move(source, target, length)
            self._sampler.move(source, target)
            if keep_logits and self._logits is not None:
                self._logits[target] = self._logits[source]
        if keep_logits and self._logits is not None:
            self._logits = self._logits[: len(self._scheduler.running)]
        self.statistics.moves += len(moves)

    def _decode(self) -> None:
        """Run the model on the newest token of every running response."""
        scheduler = self._scheduler
        n = len(scheduler.running)
        if not n:
            self._logits = None
            return
        newest, _ = scheduler.newest()
        attended = self._runner.attention_seconds
        self._logits = self._runner.decode(newest, scheduler.lengths[:n], scheduler.spans)
        self.statistics.attention_seconds += self._runner.attention_seconds - attended
        scheduler.lengths[:n] += 1
        self.statistics.steps += 1
        self.statistics.row_steps += n

    # -- requests --------------------------------------------------------------------------------------------

    def _start(self, response: Sequence) -> None:
        self._scheduler.add(response)

    def _stop(self, response: Sequence) -> None:
        if response in self._scheduler.waiting:
            self._scheduler.withdraw(response)
            self._forget(Prompt.of(response.request))
            return
        slot = self._scheduler.running.index(response)
        self._scheduler.release(slot)
        with torch.inference_mode():
            self._drop([slot], keep_logits=True)

    def _branch(self, response: Sequence, new_id: str, sample: int, params: SamplingParams | None) -> Sequence:
        branch = response.fork(new_id, sample, params)
        if response in self._scheduler.waiting:
            return branch
        slot = self._scheduler.running.index(response)
        count = self._scheduler.counts[slot]
        branch.extend(self._scheduler.tokens[slot, :count].tolist(), self._scheduler.logprobs[slot, :count].tolist())
        if self._logits is None:
            raise AssertionError("a response is running without logits")
        length = int(self._scheduler.lengths[slot])
        branch.prefix = Prefix(self._runner.cache.snapshot(slot, length), self._logits[slot].clone(), length)
        return branch

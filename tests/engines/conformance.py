"""The suite any engine must pass: subclass `EngineConformance` in a test module and say how to make the engine.

The oracle is `FakeEngine`: with the same next-token scores it must give the same tokens, since a token is a function
of (seed, problem, sample, position) and of the distribution alone. An engine that batches, caches or shares work must
not be distinguishable from one that recomputes everything for every token.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from r1kit.engines.fake import FakeEngine, distribution
from r1kit.engines.protocol import Engine, EngineError, Request, Sample, SamplingParams

VOCAB = 48
MAX_LENGTH = 96
PROMPTS = ((1, 5, 9), (1, 7), (1, 20, 21, 22, 23, 24), (1, 5, 9))

SETTINGS = {
    "plain": SamplingParams(max_tokens=12),
    "cold": SamplingParams(max_tokens=12, temperature=0.5),
    "hot": SamplingParams(max_tokens=12, temperature=1.7, seed=3),
    "greedy": SamplingParams(max_tokens=12, temperature=0.0),
    "top_k": SamplingParams(max_tokens=12, top_k=5),
    "top_p": SamplingParams(max_tokens=12, top_p=0.6),
    "min_p": SamplingParams(max_tokens=12, min_p=0.2),
    "all_three": SamplingParams(max_tokens=12, temperature=1.3, top_k=9, top_p=0.9, min_p=0.05),
    "allowed": SamplingParams(max_tokens=12, allowed_token_ids=(3, 4, 5, 6)),
    "forbidden": SamplingParams(max_tokens=12, forbidden_token_ids=tuple(range(0, VOCAB, 2))),
    "forbidden_and_cut": SamplingParams(max_tokens=12, forbidden_token_ids=tuple(range(24)), top_p=0.7),
    "greedy_allowed": SamplingParams(max_tokens=12, temperature=0.0, allowed_token_ids=(3, 4, 5)),
    "forced": SamplingParams(max_tokens=12, temperature=0.8, forced_prefix=(30, 31, 32)),
    "stops": SamplingParams(max_tokens=40, stop_token_ids=tuple(range(0, VOCAB, 6))),
}


class Letters:
    """A tokenizer of one printable character per token."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join(chr(ord("0") + token) for token in token_ids)


def requests(params: SamplingParams, count: int = 8, problem: str = "p") -> list[Request]:
    """`count` requests over PROMPTS, two samples of each problem."""
    return [Request(f"{problem}{i}", PROMPTS[i // 2 % 4], params, f"{problem}{i // 2}", i % 2) for i in range(count)]


class EngineConformance(ABC):
    """Tests of the protocol. `tolerance` bounds the error of a log-prob."""

    tolerance = 1e-5

    @abstractmethod
    def make(self, **settings: Any) -> Engine:
        """A fresh engine over VOCAB tokens, MAX_LENGTH positions, with `Letters` unless tokenizer=None is given."""

    @abstractmethod
    def scores(self, tokens: Sequence[int]) -> np.ndarray:
        """Next-token scores [VOCAB] of the policy the engine samples from, computed without the engine."""

    @abstractmethod
    def checksum(self, engine: Engine) -> str:
        """The checksum of the weights the engine has."""

    def oracle(self) -> FakeEngine:
        return FakeEngine(VOCAB, self.scores, Letters(), max_length=MAX_LENGTH)

    def check(self, found: Sequence[Sample], expected: Sequence[Sample]) -> None:
        assert [replace(s, logprobs=()) for s in found] == [replace(s, logprobs=()) for s in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=self.tolerance)

    # -- what is sampled ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", SETTINGS)
    def test_samples_are_those_of_the_oracle(self, name: str) -> None:
        asked = requests(SETTINGS[name])
        self.check(self.make().generate(asked), self.oracle().generate(asked))

    def test_one_batch_may_mix_all_settings(self) -> None:
        asked = [r for name, params in SETTINGS.items() for r in requests(params, 3, name)]
        self.check(self.make().generate(asked), self.oracle().generate(asked))

    def test_logprobs_are_of_the_distribution_sampled_from(self) -> None:
        asked = requests(SETTINGS["all_three"], 2)
        for request, sample in zip(asked, self.make().generate(asked), strict=True):
            for i, (token, logprob) in enumerate(zip(sample.token_ids, sample.logprobs, strict=True)):
                scores = self.scores([*request.prompt_ids, *sample.token_ids[:i]])
                expected = np.log(distribution(scores, request.params)[token])
                assert logprob == pytest.approx(expected, abs=self.tolerance)

    def test_answers_come_in_the_order_of_the_requests(self) -> None:
        asked = [
            replace(r, params=replace(r.params, max_tokens=1 + 7 * i % 5))
            for i, r in enumerate(requests(SETTINGS["plain"], 10))
        ]
        samples = self.make().generate(asked)
        assert [s.request_id for s in samples] == [r.id for r in asked]
        assert [len(s.token_ids) for s in samples] == [r.params.max_tokens for r in asked]
        assert all(s.finish == "length" and s.stop_reason == "max_tokens" for s in samples)

    def test_randomness_is_keyed_by_seed_problem_and_sample(self) -> None:
        base = Request("a", PROMPTS[0], SamplingParams(max_tokens=20), "problem", 0)
        variants = [
            base,
            replace(base, id="b"),  # only another name
            replace(base, id="c", sample=1),
            replace(base, id="d", problem="other"),
            replace(base, id="e", params=replace(base.params, seed=1)),
        ]
        tokens = [s.token_ids for s in self.make().generate(variants)]
        assert tokens[0] == tokens[1]
        assert len(set(tokens)) == 4

    def test_requests_without_a_problem_do_not_share_noise(self) -> None:
        asked = [Request(name, PROMPTS[0], SamplingParams(max_tokens=20)) for name in "ab"]
        first, second = self.make().generate(asked)
        assert first.token_ids != second.token_ids

    def test_a_response_cut_short_goes_on_as_if_it_had_not_been(self) -> None:
        whole = Request("whole", PROMPTS[0], SamplingParams(max_tokens=20), "p")
        (sample,) = self.make().generate([whole])
        rest = Request("rest", whole.prompt_ids + sample.token_ids[:8], SamplingParams(max_tokens=12), "p")
        (continued,) = self.make().generate([rest])
        assert continued.token_ids == sample.token_ids[8:]

    # -- how a response ends ------------------------------------------------------------------------------------

    def test_a_stop_token_ends_the_response_and_is_kept(self) -> None:
        (free,) = self.make().generate(requests(SamplingParams(max_tokens=20), 1))
        stop = free.token_ids[6]
        (sample,) = self.make().generate(requests(SamplingParams(max_tokens=20, stop_token_ids=(stop,)), 1))
        assert sample.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
        assert (sample.finish, sample.stop_reason) == ("stopped", f"token {stop}")

    def test_a_stop_string_may_span_tokens(self) -> None:
        (free,) = self.make().generate(requests(SamplingParams(max_tokens=20), 1))
        text = Letters().decode(list(free.token_ids))
        stop = text[5:8]
        params = SamplingParams(max_tokens=20, stop_strings=("never there", stop))
        (sample,) = self.make().generate(requests(params, 1))
        assert Letters().decode(list(sample.token_ids)) == text[: text.index(stop) + 3]
        assert (sample.finish, sample.stop_reason) == ("stopped", f"string {stop!r}")

    def test_a_stop_at_the_limit_is_a_stop(self) -> None:
        (free,) = self.make().generate(requests(SamplingParams(max_tokens=9), 1))
        params = SamplingParams(max_tokens=9, stop_strings=(Letters().decode(list(free.token_ids[-2:])),))
        (sample,) = self.make().generate(requests(params, 1))
        assert sample.finish == "stopped"

    def test_a_forced_prefix_is_recorded_and_does_not_stop(self) -> None:
        forced = (30, 31, 32)
        params = SamplingParams(
            max_tokens=8, forced_prefix=forced, stop_token_ids=(31,), stop_strings=(Letters().decode([30, 31]),)
        )
        asked = requests(params, 4)
        samples = self.make().generate(asked)
        for sample in samples:
            assert sample.token_ids[:3] == forced
            assert sample.forced == (True,) * 3 + (False,) * (len(sample.token_ids) - 3)
            assert len(sample.token_ids) > 3
        self.check(samples, self.oracle().generate(asked))

    def test_forced_tokens_may_be_all_there_is_room_for(self) -> None:
        asked = requests(SamplingParams(max_tokens=2, forced_prefix=(30, 31)), 2)
        samples = self.make().generate(asked)
        assert [(s.token_ids, s.finish) for s in samples] == [((30, 31), "length")] * 2
        self.check(samples, self.oracle().generate(asked))

    def test_a_forced_token_outside_of_the_allowed_has_a_finite_logprob(self) -> None:
        params = SamplingParams(max_tokens=3, forced_prefix=(30,), allowed_token_ids=(1, 2), top_k=1)
        (sample,) = self.make().generate(requests(params, 1))
        assert np.isfinite(sample.logprobs).all()

    # -- step by step -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", ["plain", "forced", "stops"])
    def test_steps_give_the_samples_of_generate(self, name: str) -> None:
        asked = requests(SETTINGS[name], 6)
        expected = self.make().generate(asked)
        engine = self.make()
        for request in asked:
            assert engine.submit(request) == request.id
            assert engine.collect(request.id) is None
        events = []
        while any(e.finish for e in events) < 1 or sum(e.finish is not None for e in events) < len(asked):
            events += engine.step()
        for sample in expected:
            mine = [e for e in events if e.request_id == sample.request_id]
            assert tuple(e.token_id for e in mine) == sample.token_ids
            assert [e.finish for e in mine] == [None] * (len(mine) - 1) + [sample.finish]
        self.check([engine.collect(r.id) for r in asked], expected)  # type: ignore[misc]
        with pytest.raises(EngineError, match="never submitted, or is done"):
            engine.collect(asked[0].id)
        assert engine.step() == []

    def test_stream_yields_the_tokens_of_the_sample(self) -> None:
        asked = requests(SETTINGS["forced"], 2)
        expected = self.make().generate(asked)
        engine = self.make()
        streams = [engine.stream(request) for request in asked]
        events: list[list[Any]] = [[], []]
        for pair in zip(*streams, strict=True):  # two readers in turn, one batch
            for mine, event in zip(events, pair, strict=True):
                mine.append(event)
        for mine, sample in zip(events, expected, strict=True):
            assert tuple(e.token_id for e in mine) == sample.token_ids
            assert mine[-1].finish == sample.finish

    def test_a_stream_left_early_leaves_nothing_behind(self) -> None:
        engine = self.make()
        (request,) = requests(SamplingParams(max_tokens=60), 1)
        stream = engine.stream(request)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert engine.step() == []
        assert len(engine.generate([request])) == 1

    # -- cancel and fork ----------------------------------------------------------------------------------------

    def test_cancel_keeps_what_was_sampled_and_leaves_the_others_alone(self) -> None:
        asked = requests(SamplingParams(max_tokens=20), 6)
        expected = self.make().generate(asked)
        engine = self.make()
        for request in asked:
            engine.submit(request)
        for _ in range(5):
            engine.step()
        engine.cancel(asked[1].id)
        engine.cancel(asked[4].id)
        while engine.step():
            pass
        for i, request in enumerate(asked):
            sample = engine.collect(request.id)
            assert sample is not None
            if i in (1, 4):
                assert (sample.finish, sample.stop_reason) == ("aborted", "cancelled")
                assert sample.token_ids == expected[i].token_ids[: len(sample.token_ids)]
            else:
                self.check([sample], [expected[i]])

    def test_cancel_of_a_queued_request_gives_an_empty_sample(self) -> None:
        engine = self.make()
        (request,) = requests(SETTINGS["plain"], 1)
        engine.submit(request)
        engine.cancel(request.id)
        sample = engine.collect(request.id)
        assert sample is not None
        assert (sample.token_ids, sample.finish) == ((), "aborted")
        with pytest.raises(EngineError, match=request.id):
            engine.cancel(request.id)

    @pytest.mark.parametrize("steps", [0, 4])
    def test_a_fork_goes_on_with_its_own_randomness(self, steps: int) -> None:
        def story(engine: Engine) -> list[Sample]:
            parent = Request("parent", PROMPTS[0], SamplingParams(max_tokens=16), "p", 0)
            engine.submit(parent)
            for _ in range(steps):
                engine.step()
            engine.fork("parent", "same", sample=0)
            engine.fork("parent", "other", sample=7)
            # Not colder: scores round to 3e-6 in float32, and the temperature divides them.
            engine.fork("parent", "cold", sample=8, params=SamplingParams(max_tokens=18, temperature=0.5))
            engine.fork("other", "grandchild", sample=9)
            while engine.step():
                pass
            names = ["parent", "same", "other", "cold", "grandchild"]
            return [s for name in names if (s := engine.collect(name)) is not None]

        samples = story(self.make())
        parent, same, other, cold, _ = samples
        assert (same.token_ids, same.logprobs) == (parent.token_ids, parent.logprobs)
        assert other.token_ids[:steps] == cold.token_ids[:steps] == parent.token_ids[:steps]
        assert other.token_ids != parent.token_ids
        assert (len(other.token_ids), len(cold.token_ids)) == (16, 18)
        self.check(samples, story(self.oracle()))

    def test_forks_that_cannot_be_are_refused(self) -> None:
        engine = self.make()
        engine.submit(Request("a", PROMPTS[0], SamplingParams(max_tokens=16)))
        for _ in range(5):
            engine.step()
        with pytest.raises(EngineError, match="already in use"):
            engine.fork("a", "a", sample=1)
        with pytest.raises(EngineError, match="max_tokens"):
            engine.fork("a", "b", sample=1, params=SamplingParams(max_tokens=3))
        with pytest.raises(EngineError, match="forced_prefix"):
            engine.fork("a", "b", sample=1, params=SamplingParams(forced_prefix=(4,)))
        with pytest.raises(EngineError, match="'nobody'"):
            engine.fork("nobody", "b", sample=1)

    # -- asynchronous -------------------------------------------------------------------------------------------

    def test_asynchronous_callers_share_the_engine(self) -> None:
        groups = [requests(SETTINGS["plain"], 4, name) for name in "abc"]
        expected = self.oracle().generate([r for group in groups for r in group])
        engine = self.make()

        async def main() -> list[list[Sample]]:
            return list(await asyncio.gather(*(engine.agenerate(group) for group in groups)))

        self.check([s for group in asyncio.run(main()) for s in group], expected)

    def test_astream_yields_the_tokens_of_the_sample(self) -> None:
        (request,) = requests(SETTINGS["forced"], 1)
        (expected,) = self.make().generate([request])
        engine = self.make()

        async def main() -> list[Any]:
            return [event async for event in engine.astream(request)]

        assert tuple(e.token_id for e in asyncio.run(main())) == expected.token_ids

    def test_a_cancelled_caller_leaves_nothing_behind(self) -> None:
        """Cancelled by the first token, so in the middle of its responses however fast or busy the machine is."""
        engine: Any = self.make()
        asked, advance = requests(SamplingParams(max_tokens=80), 4), engine._advance

        async def main() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.create_task(engine.agenerate(asked))

            def first(events: Any) -> None:
                engine._advance = advance
                advance(events)
                loop.call_soon_threadsafe(task.cancel)

            engine._advance = first
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert engine.step() == []
        assert len(engine.generate(asked)) == 4

    # -- what is refused ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (Request("", (1,)), "empty id"),
            (Request("a", ()), "prompt is empty"),
            (Request("a", (1,) * (MAX_LENGTH - 3), SamplingParams(max_tokens=4)), f"more than the {MAX_LENGTH}"),
            (Request("a", (1, VOCAB), SamplingParams(max_tokens=4)), f"prompt_ids holds {VOCAB}"),
            (Request("a", (1,), SamplingParams(max_tokens=4, stop_token_ids=(-1,))), "stop_token_ids holds -1"),
            (Request("a", (1,), SamplingParams(max_tokens=4, forced_prefix=(99,))), "forced_prefix holds 99"),
            (
                Request("a", (1,), SamplingParams(max_tokens=4, allowed_token_ids=(5,), forbidden_token_ids=(5,))),
                "no token to sample",
            ),
        ],
    )
    def test_impossible_requests_are_refused(self, request_: Request, message: str) -> None:
        engine = self.make()
        with pytest.raises(EngineError, match=message):
            engine.submit(request_)
        assert engine.step() == []

    def test_ids_in_use_are_refused_and_nothing_of_that_call_is_queued(self) -> None:
        engine = self.make()
        first, second = requests(SETTINGS["plain"], 2)
        with pytest.raises(EngineError, match="already in use"):
            engine.generate([first, second, first])
        engine.submit(first)
        with pytest.raises(EngineError, match="already in use"):
            engine.generate([second, first])
        while engine.step():
            pass
        with pytest.raises(EngineError, match="already in use"):  # finished, but not collected yet
            engine.submit(first)
        assert engine.collect(first.id) is not None
        assert len(engine.generate([first, second])) == 2

    def test_stop_strings_need_a_tokenizer(self) -> None:
        with pytest.raises(EngineError, match="tokenizer"):
            self.make(tokenizer=None).generate(requests(SamplingParams(max_tokens=4, stop_strings=("x",)), 1))

    # -- weights ------------------------------------------------------------------------------------------------

    def test_samples_carry_the_version_of_the_weights(self) -> None:
        engine = self.make()
        asked = requests(SETTINGS["plain"], 2)
        assert {s.policy_version for s in engine.generate(asked)} == {0}
        engine.load_weights(5, self.checksum(engine))
        assert engine.policy_version == 5
        assert {s.policy_version for s in engine.generate(asked)} == {5}

    def test_a_wrong_checksum_is_refused(self) -> None:
        engine = self.make()
        with pytest.raises(EngineError, match="checksum"):
            engine.load_weights(1, "0" * 64)
        assert engine.policy_version == 0

    def test_weights_cannot_change_under_a_running_response(self) -> None:
        engine = self.make()
        (request,) = requests(SETTINGS["plain"], 1)
        engine.submit(request)
        engine.step()
        with pytest.raises(EngineError, match="running"):
            engine.load_weights(1)
        engine.cancel(request.id)
        engine.load_weights(1)

    def test_it_is_an_engine(self) -> None:
        assert isinstance(self.make(), Engine)

"""The compiled decoding pass against the PyTorch one.

Why it matters: it is a third writing of the decoder's mathematics; were it to drift, what is sampled would no longer be
what is trained. It passes everything any engine must pass, gives the fallback's log-probs, and its rows keep their bits
in any company.

Not exercised: processors other than the one the tests run on. Skipped where there is no C++ compiler.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conformance import MAX_LENGTH, Letters
from tests.engines.test_local import (
    FAMILIES,
    QUICKSTART,
    SMALL,
    VOCAB,
    TestLocalEngine,
    by_id,
    mixed_requests,
    model_of,
    next_scores,
    quickstart,
    small,
)

from r1kit.engines import native, sampler
from r1kit.engines.invariance import Shapes
from r1kit.engines.local import LocalEngine
from r1kit.engines.native import NativeDecoder, library
from r1kit.engines.native_runner import NativeRunner
from r1kit.engines.prepared import PreparedDecoder
from r1kit.engines.protocol import Engine, EngineError, Request, Sample, SamplingParams
from r1kit.engines.runner import Runner
from r1kit.engines.sampler import forced_logprobs
from r1kit.engines.scheduler import Scheduler
from r1kit.engines.sequence import Prompt
from r1kit.models.checkpoint import weights_checksum
from r1kit.models.decoder import Decoder, DecoderConfig, initialise

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")


class TestNativeEngine(TestLocalEngine):
    def make(self, **settings: Any) -> Engine:
        return super().make(native="float32", **settings)


def has_bfloat16() -> bool:
    return shutil.which("g++") is not None and bool(library().has_bfloat16())


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="needs a processor with bfloat16 products (AMX)")
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
BFLOAT16_SHAPES = {
    "quickstart": QUICKSTART,
    "odd_widths": {**SMALL, "head_dim": 32, "hidden_size": 40, "vocab_size": VOCAB + 5},
    "normed": {**SMALL, "head_dim": 64, "qk_norm": True, "model_type": "qwen3", "tie_embeddings": False},
    "biased": {**SMALL, "head_dim": 32, "num_heads": 3, "qkv_bias": True, "model_type": "qwen2"},
    "eight_heads_share_two": {**SMALL, "head_dim": 32, "num_heads": 8, "num_kv_heads": 2},
}


@cache
def wide() -> Decoder:
    """Weights as small as trained ones are: what rounding does grows with them."""
    model = Decoder(DecoderConfig(**{**SMALL, "head_dim": 32, "model_type": "llama"}))
    initialise(model, seed=0, std=0.1)
    return model


@needs_bfloat16
class TestBfloat16Engine(TestLocalEngine):
    """Rounded factors: a draw within rounding of a boundary may fall on either side, and what follows is another
    response.
    """

    tolerance = 0.05

    def make(self, **settings: Any) -> Engine:
        settings = {"slots": self.slots, "max_length": MAX_LENGTH, "tokenizer": Letters(), **settings}
        return LocalEngine(wide(), native="bfloat16", **settings)

    def scores(self, tokens: Sequence[int]) -> np.ndarray:
        return next_scores(wide(), tokens)[-1].double().numpy()

    def checksum(self, engine: Engine) -> str:
        return weights_checksum(wide())

    def check(self, found: Sequence[Sample], expected: Sequence[Sample]) -> None:
        same = [(m, t) for m, t in zip(found, expected, strict=True) if m.token_ids == t.token_ids]
        assert len(same) >= len(found) / 2
        for mine, theirs in same:
            assert (mine.finish, mine.forced, mine.stop_reason) == (theirs.finish, theirs.forced, theirs.stop_reason)
        gaps = np.abs(np.concatenate([np.subtract(m.logprobs, t.logprobs) for m, t in same]))
        assert np.median(gaps) < 0.01  # min-p and top-p may let a token in or out, which moves all the others


def decoder_of(**settings: Any) -> Decoder:
    """A decoder whose gains and biases matter."""
    model = Decoder(DecoderConfig(**{**SMALL, "model_type": "llama", **settings}))
    initialise(model, seed=1, std=0.2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand(parameter.shape, generator=generator))
    return model


def steps(model: Decoder, *, compiled: bool, slots: int, count: int, precision: str = "float32") -> list[torch.Tensor]:
    """Logits of `count` decoding passes over prompts of different lengths, each slot fed tokens of its own."""
    with torch.inference_mode():
        prepared = model if model.embedding.dtype == torch.bfloat16 else PreparedDecoder(model)
        runner: Any = (
            NativeRunner(NativeDecoder(prepared, precision), slots) if compiled else Runner(prepared, slots, Shapes())
        )
        runner.cache.reserve(64 + count)
        prompts = [Prompt(tuple((3 * s + i) % VOCAB for i in range(1 + 5 * s % 40))) for s in range(slots)]
        lengths = np.array([len(p.token_ids) for p in prompts])
        for slot, prefix in enumerate(runner.prefill(prompts, forced_logprobs)):
            runner.cache.load(slot, prefix)
        table = Scheduler(slots, padding=16, cache_length=512, merge_positions=0, refill_slots=1)
        found = []
        for step in range(count):
            table.lengths[:] = lengths
            tokens = (np.arange(slots) * 11 + step) % VOCAB
            found.append(runner.decode(tokens, lengths, table.spans).clone())
            lengths = lengths + 1
        return found


SHAPES = {
    **FAMILIES,
    "eight_heads_share_two": {"num_heads": 8, "num_kv_heads": 2},
    "three_heads_share_one": {"num_heads": 3, "num_kv_heads": 1},
    "wide_heads": {"head_dim": 64},
    "odd_widths": {"hidden_size": 40, "vocab_size": VOCAB + 5},
    "long_turns": {"rope_theta": 500.0, "max_positions": 512},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_prepared_decoder(shape: str) -> None:
    model = decoder_of(**SHAPES[shape])
    for ours, theirs in zip(
        steps(model, compiled=True, slots=13, count=20), steps(model, compiled=False, slots=13, count=20), strict=True
    ):
        torch.testing.assert_close(torch.log_softmax(ours, -1), torch.log_softmax(theirs, -1), rtol=1e-5, atol=2e-5)


def test_it_is_as_near_to_exact_arithmetic_as_the_fallback() -> None:
    """Against float64: the compiled pass may not lose digits that PyTorch keeps."""
    model = decoder_of(**QUICKSTART)
    exact = [torch.log_softmax(x, -1) for x in steps_in_double(model, 9, 30)]
    errors = {
        compiled: max(
            float((torch.log_softmax(x.double(), -1) - e).abs().max())
            for x, e in zip(steps(model, compiled=compiled, slots=9, count=30), exact, strict=True)
        )
        for compiled in (True, False)
    }
    assert errors[True] < max(3 * errors[False], 1e-5)


def steps_in_double(model: Decoder, slots: int, count: int) -> list[torch.Tensor]:
    return steps(copy.deepcopy(model).double(), compiled=False, slots=slots, count=count)


@needs_bfloat16
@pytest.mark.parametrize("shape", BFLOAT16_SHAPES)
def test_bfloat16_errs_by_its_rounding_and_no_more(shape: str) -> None:
    """Against float64: a smaller error than that of PyTorch with all its numbers in bfloat16."""
    model = decoder_of(**BFLOAT16_SHAPES[shape])
    exact = [torch.log_softmax(x, -1) for x in steps_in_double(model, 13, 20)]
    ours = steps(model, compiled=True, slots=13, count=20, precision="bfloat16")
    rounded = copy.deepcopy(model).bfloat16()
    theirs = steps(rounded, compiled=False, slots=13, count=20)
    mine, peers = (
        np.mean(
            [float((torch.log_softmax(x.double(), -1) - e).abs().mean()) for x, e in zip(found, exact, strict=True)]
        )
        for found in (ours, theirs)
    )
    assert 0 < mine < peers


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("slots", [1, 5, 12, 13, 64])
def test_slots_order_and_neighbours_change_no_bit(slots: int, precision: str) -> None:
    asked = mixed_requests()
    expected = by_id(LocalEngine(quickstart(), slots=64, native=precision).generate(asked))
    random.Random(slots).shuffle(asked)
    for sample in LocalEngine(quickstart(), slots=slots, native=precision).generate(asked[: 8 * slots]):
        assert sample == expected[sample.request_id]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_steps_in_one_call_are_the_same_steps(precision: str) -> None:
    """And a row that samples in PyTorch, for its top-p, lets the others only take one at a time."""
    asked = mixed_requests(12, 2)
    alone = {**by_id(LocalEngine(quickstart(), slots=9, native=precision).generate(asked))}
    plain = [r for r in asked if r.params.top_p == 1]
    engine = LocalEngine(quickstart(), slots=9, native=precision)
    for sample in engine.generate(plain):
        assert sample == alone[sample.request_id]
    for request in plain:
        engine.submit(request)
    while engine.step():
        pass
    for request in plain:
        assert engine.collect(request.id) == alone[request.id]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_token_is_computed_alike_in_a_prompt_and_sampled(precision: str) -> None:
    engine = LocalEngine(quickstart(), slots=3, native=precision)
    (whole,) = engine.generate([Request("whole", (1, 2, 3), SamplingParams(max_tokens=90), "p")])
    for cut in (1, 28, 29, 60):
        params = SamplingParams(max_tokens=90 - cut)
        (rest,) = engine.generate([Request("rest", (1, 2, 3, *whole.token_ids[:cut]), params, "p")])
        assert (rest.token_ids, rest.logprobs) == (whole.token_ids[cut:], whole.logprobs[cut:])


def test_responses_that_ended_before_scores_broke_down_are_kept() -> None:
    model = model_of(**{**SMALL, "tie_embeddings": False})
    engine = LocalEngine(model, slots=4, native="float32")
    asked = [Request(str(i), (1, 2 + i), SamplingParams(max_tokens=5 + 20 * i), str(i)) for i in range(2)]
    expected = engine.generate(asked)
    tokens = expected[1].token_ids
    place = next(i for i in range(6, 25) if tokens[i] not in {*expected[0].token_ids, *tokens[:i], 1, 2, 3})
    for request in asked:
        engine.submit(request)
    with torch.no_grad():
        model.embedding[tokens[place]] = float("nan")  # met by the second response only, halfway
    with pytest.raises(EngineError, match=rf"'1'.*position {place + 3} are not finite"):
        engine._run(["1"], 99)
    kept, failed = engine.collect("0"), engine.collect("1")
    assert kept == expected[0]
    assert failed is not None
    assert (failed.finish, failed.token_ids) == ("failed", tokens[: place + 1])


def test_parameters_that_change_in_place_are_taken_over() -> None:
    model = model_of(**SMALL)
    engine = LocalEngine(model, slots=4, native="float32")
    engine.generate(mixed_requests(2, 2)[:2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.load_weights(1)
    asked = mixed_requests(3, 2)[:4]
    fresh = by_id(LocalEngine(model, slots=4, native="float32", policy_version=1).generate(asked))
    for sample in engine.generate(asked):
        assert sample == fresh[sample.request_id]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_are_those_of_the_fallback(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for vocab in (5, 32, 61, 203):
        logits = torch.randn(200, vocab, generator=generator) * 4
        uniform = np.concatenate([np.random.default_rng(0).random(198), [0.0, 1.0 - 2.0**-53]])
        probs = torch.softmax(logits / temperature, -1)
        expected = sampler.draw(probs, torch.from_numpy(uniform)[:, None])[:, 0].numpy()
        tokens, logprobs = native.draw(logits.clone(), uniform, np.full(200, temperature), np.zeros(200, bool))
        assert (tokens == expected).mean() > 0.99  # a number within rounding of a boundary may fall on either side
        np.testing.assert_allclose(np.exp(logprobs), probs.numpy()[np.arange(200), tokens], rtol=1e-5)
        tokens, logprobs = native.draw(logits.clone(), uniform, np.ones(200), np.ones(200, bool))
        assert (tokens == logits.argmax(-1).numpy()).all()
        np.testing.assert_allclose(logprobs, torch.log_softmax(logits, -1).amax(-1).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_scores_that_are_not_numbers_are_seen(damage: float) -> None:
    logits = torch.zeros(3, 40)
    logits[1, 7] = damage
    tokens, logprobs = native.draw(logits, np.array([0.1, 0.5, 0.9]), np.ones(3), np.zeros(3, bool))
    assert np.isfinite(logprobs).tolist() == [True, False, True]
    assert (tokens < 40).all()


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(EngineError, match="only small float32"):
        LocalEngine(model_of(**SMALL).bfloat16(), native="float32")
    with pytest.raises(EngineError, match="head_dim is 12"):
        LocalEngine(model_of(**{**SMALL, "head_dim": 12}), native="float32")
    with pytest.raises(EngineError, match="only torch"):
        LocalEngine(model_of(**SMALL).double(), native="float32")
    with pytest.raises(EngineError, match="native is 'float16': expected off, float32 or bfloat16"):
        LocalEngine(small(), native="float16")


@needs_bfloat16
def test_bfloat16_needs_whole_blocks() -> None:
    with pytest.raises(EngineError, match="head_dim is 16, expected 32, 64, 128"):
        LocalEngine(small(), native="bfloat16")


def test_bfloat16_is_refused_where_the_processor_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def __getattr__(self, name: str) -> Any:
            return (lambda: 0) if name == "has_bfloat16" else getattr(library(), name)

    monkeypatch.setattr(native, "library", lambda: Without())
    with pytest.raises(EngineError, match=r"no bfloat16 matrix products.*use float32"):
        LocalEngine(wide(), native="bfloat16")


def test_a_missing_or_failing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    try:
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(EngineError, match="install g"):
            LocalEngine(small(), native="float32")
        monkeypatch.delenv("CXX")
        monkeypatch.setattr(native, "SOURCE", tmp_path / "broken.cpp")
        (tmp_path / "broken.cpp").write_text("int decode(", encoding="utf-8")
        with pytest.raises(EngineError, match="could not build"):
            LocalEngine(small(), native="float32")
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()

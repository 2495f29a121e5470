"""The local engine: the conformance suite, and what is particular to it.

Why it matters: every rollout, evaluation and search result comes out of it. Deterministic mode is checked bit for bit
(slots, order and neighbours may not change a sample), log-probs against the trainer's own forward, the sharing of
prompts by counting, and the cache by moving, growing and forking in the middle of a run.

Not exercised: CUDA, several threads, speed (benchmarks/engine.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conformance import MAX_LENGTH, VOCAB, EngineConformance, Letters, requests
from transformers import AutoModelForCausalLM, OlmoConfig

from r1kit.engines import invariance
from r1kit.engines.invariance import SAFE_ROWS, Shapes
from r1kit.engines.local import LocalEngine
from r1kit.engines.protocol import Engine, EngineError, Request, Sample, SamplingParams
from r1kit.models.attention import Segment, packed_attention
from r1kit.models.checkpoint import weights_checksum
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.transformers_model import TransformersModel

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
}
# The model of the quick start: what deterministic mode must hold for.
QUICKSTART = {
    "vocab_size": 220,
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 64,
    "intermediate_size": 384,
}
FAMILIES = {
    "multi_query": {},
    "grouped": {"num_heads": 4, "num_kv_heads": 2},
    "all_heads": {"num_kv_heads": 2, "qkv_bias": True, "model_type": "qwen2"},
    "normed": {"qk_norm": True, "model_type": "qwen3", "tie_embeddings": False},
}


def model_of(**settings: Any) -> Decoder:
    model = Decoder(DecoderConfig(**{"model_type": "llama", **settings}))
    initialise(model, seed=0, std=0.3 if settings["hidden_size"] == 32 else 0.1)
    return model


@cache
def small() -> Decoder:
    return model_of(**SMALL)


def next_scores(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Logits [T, V] of every position, by the trainer's forward."""
    ids = torch.tensor(tokens)
    with torch.no_grad():
        hidden = model(ids, torch.arange(len(ids)), packed_attention([Segment(1, len(ids))]))
        return model.logits(hidden)


@cache
def small_in_double() -> Decoder:
    """What engines are held to: an oracle that rounds as they do would miss the tolerance by its own error."""
    return deepcopy(small()).double()


@cache
def small_scores(tokens: tuple[int, ...]) -> np.ndarray:
    return next_scores(small_in_double(), tokens)[-1].numpy()


class TestLocalEngine(EngineConformance):
    slots = 4

    def make(self, **settings: Any) -> Engine:
        settings = {"slots": self.slots, "max_length": MAX_LENGTH, "tokenizer": Letters(), **settings}
        return LocalEngine(small(), **settings)

    def scores(self, tokens: Sequence[int]) -> np.ndarray:
        return small_scores(tuple(tokens))

    def checksum(self, engine: Engine) -> str:
        return weights_checksum(small())


class TestOneSlot(TestLocalEngine):
    """Everything one after the other."""

    slots = 1


class TestNotDeterministic(TestLocalEngine):
    def make(self, **settings: Any) -> Engine:
        return super().make(deterministic=False, **settings)


def mixed_requests(problems: int = 16, samples: int = 4) -> list[Request]:
    """Groups with prompts and lengths of many sizes, and every kind of sampling."""
    kinds = [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"top_p": 0.8},
        {"temperature": 0.0},
        {"forced_prefix": (9, 8, 7)},
        {"stop_token_ids": tuple(range(0, 220, 20))},
    ]
    asked = []
    for p in range(problems):
        prompt = tuple((p * 7 + 3 * i) % 200 + 1 for i in range(2 + p * 5 % 23))
        params = SamplingParams(max_tokens=10 + 13 * p % 50, seed=2, **kinds[p % len(kinds)])  # type: ignore[arg-type]
        asked += [Request(f"{p}/{s}", prompt, params, str(p), s) for s in range(samples)]
    return asked


def by_id(samples: Sequence[Sample]) -> dict[str, Sample]:
    return {s.request_id: s for s in samples}


@cache
def quickstart() -> Decoder:
    return model_of(**QUICKSTART)


@cache
def quickstart_samples() -> dict[str, Sample]:
    return by_id(LocalEngine(quickstart(), slots=64).generate(mixed_requests()))


@pytest.mark.parametrize("slots", [1, 3, 17, 64, 128])
def test_slots_order_and_neighbours_change_nothing(slots: int) -> None:
    asked = mixed_requests()
    random.Random(slots).shuffle(asked)
    if slots < 10:
        asked = asked[: 4 * slots]
    expected = quickstart_samples()
    for sample in LocalEngine(quickstart(), slots=slots).generate(asked):
        assert sample == expected[sample.request_id]  # tokens and log-probs, bit for bit


def test_other_company_changes_nothing() -> None:
    """The same requests among long strangers, some cancelled on the way."""
    engine = LocalEngine(quickstart(), slots=24)
    strangers = [Request(f"s{i}", (1,) * (3 * i + 1), SamplingParams(max_tokens=90), f"s{i}") for i in range(20)]
    for request in strangers:
        engine.submit(request)
    for _ in range(30):
        engine.step()
    for request in strangers[::2]:
        engine.cancel(request.id)
    expected = quickstart_samples()
    for sample in engine.generate(mixed_requests()):
        assert sample == expected[sample.request_id]


def test_contexts_beyond_one_window_keep_their_bits() -> None:
    """Longer than 256 positions: attention sums in windows, and the cache has grown in the middle of a run."""
    asked = [
        Request(str(i), tuple(range(1, 100)) * (1 + i % 4), SamplingParams(max_tokens=12 + i), str(i)) for i in range(8)
    ]
    model = quickstart()
    expected = by_id(LocalEngine(model, slots=8).generate(asked))
    for slots, order in ((1, asked[:3]), (3, asked), (8, asked[::-1])):
        for sample in LocalEngine(model, slots=slots).generate(order):
            assert sample == expected[sample.request_id]
    for request in asked:
        stream = [*request.prompt_ids, *expected[request.id].token_ids]
        logprobs = torch.log_softmax(next_scores(model, stream), dim=-1)
        found = [
            float(logprobs[len(request.prompt_ids) + i - 1, token])
            for i, token in enumerate(expected[request.id].token_ids)
        ]
        assert expected[request.id].logprobs == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        Shapes(row_unit=SAFE_ROWS, pass_rows=SAFE_ROWS, prompts_together=False, padding=256, exact=True),
        Shapes(row_unit=16, pass_rows=32, padding=0, exact=True),
    ],
    ids=["safe", "whole cache"],
)
def test_the_stricter_shapes_are_deterministic_too(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine falls back to where padding to 16 does not keep the bits."""
    asked = mixed_requests(12, 2)
    model = model_of(**{**SMALL, "vocab_size": 220})
    ordinary = by_id(LocalEngine(model, slots=16).generate(asked))
    monkeypatch.setattr("r1kit.engines.local.settle", lambda model: shapes)
    expected = by_id(LocalEngine(model, slots=70, max_length=256).generate(asked))
    for slots in (5, 90):
        engine = LocalEngine(model, slots=slots, max_length=256)
        assert engine.determinism == shapes.describe()
        for sample in engine.generate(asked[::-1]):
            assert sample == expected[sample.request_id]
            assert sample.token_ids == ordinary[sample.request_id].token_ids
            assert sample.logprobs == pytest.approx(ordinary[sample.request_id].logprobs, abs=1e-5)


class RowsDiffer(Decoder):
    """A model whose rows come out differently in a small batch, as some products of few rows do."""

    def forward(self, token_ids_T: Any, positions_T: Any, attend: Any) -> torch.Tensor:
        hidden = super().forward(token_ids_T, positions_T, attend)
        return hidden * (1 + 1e-6 * (len(token_ids_T) < 32))


def test_the_engine_notices_rows_that_differ() -> None:
    model = RowsDiffer(DecoderConfig(**SMALL, model_type="llama"))  # type: ignore[arg-type]
    initialise(model, seed=0)
    shapes = invariance.settle(model)
    assert (shapes.row_unit, shapes.pass_rows, shapes.prompts_together) == (SAFE_ROWS, SAFE_ROWS, False)
    assert invariance.settle(small()).prompts_together


def test_the_engine_notices_attention_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sum over positions depends on the padding, spans are padded more, in the end to the whole cache."""
    monkeypatch.setattr(invariance, "_attention_keeps_bits", lambda model, padding: padding >= 64)
    assert invariance._ask(small()).padding == 64
    monkeypatch.setattr(invariance, "_attention_keeps_bits", lambda model, padding: False)
    assert invariance._ask(small()).padding == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_equal_the_trainers(family: str) -> None:
    model = model_of(**{**SMALL, **FAMILIES[family]})
    asked = requests(SamplingParams(max_tokens=40), 6)
    for request, sample in zip(asked, LocalEngine(model, slots=4).generate(asked), strict=True):
        stream = [*request.prompt_ids, *sample.token_ids]
        logprobs = torch.log_softmax(next_scores(model, stream), dim=-1)[len(request.prompt_ids) - 1 : -1]
        expected = logprobs.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0].tolist()
        assert sample.logprobs == pytest.approx(expected, abs=1e-5)


def test_a_prompt_is_prefilled_once_for_its_group() -> None:
    engine = LocalEngine(small(), slots=4)
    asked = [
        Request(f"{p}/{s}", (1, 2, 3 + p), SamplingParams(max_tokens=9), str(p), s) for p in range(3) for s in range(8)
    ]
    engine.generate(asked)
    stats = engine.statistics
    assert (stats.prompts, stats.prompts_shared, stats.prefill_tokens) == (3, 21, 9)
    assert stats.tokens == 24 * 9
    assert stats.row_steps == 24 * 8  # the last token of a response needs no pass
    assert not engine._prefixes  # nobody waits for them any more


def test_changed_parameters_are_sampled_from_after_load_weights() -> None:
    model = model_of(**SMALL)
    engine = LocalEngine(model, slots=4)
    asked = requests(SamplingParams(max_tokens=20), 4)
    before = engine.generate(asked)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.load_weights(1, weights_checksum(model))
    after = engine.generate(asked)
    assert [s.token_ids for s in after] != [s.token_ids for s in before]
    assert after == [*LocalEngine(model, slots=4, policy_version=1).generate(asked)]


def test_the_model_can_be_trained_after_it_was_sampled_from() -> None:
    """Nothing the engine leaves behind (cached masks, rotary tables) may be unusable for autograd."""
    model = model_of(**SMALL)
    LocalEngine(model, slots=4).generate(requests(SamplingParams(max_tokens=8), 4))
    ids = torch.tensor(requests(SamplingParams())[4].prompt_ids)
    hidden = model(ids, torch.arange(len(ids)), packed_attention([Segment(1, len(ids))]))
    model.logits(hidden).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_scores_that_are_not_numbers_are_an_error_and_leave_no_trace() -> None:
    model = model_of(**SMALL)
    engine = LocalEngine(model, slots=4)
    asked = requests(SamplingParams(max_tokens=20), 6)
    expected = engine.generate(asked)
    weight = model.layers[1].down  # type: ignore[union-attr]
    good = weight.detach().clone()  # type: ignore[operator]
    with torch.no_grad():
        weight[3] = float("nan")  # type: ignore[index]
    with pytest.raises(EngineError, match="not finite"):
        engine.generate(asked)
    engine.submit(asked[0])
    with pytest.raises(EngineError, match=r"'p0'.*diverged"):
        engine.step()
    sample = engine.collect("p0")
    assert sample is not None
    assert sample.finish == "failed"
    with torch.no_grad():
        weight.copy_(good)  # type: ignore[operator]
    assert engine.generate(asked) == expected


def test_the_cache_grows_while_responses_run() -> None:
    long = Request("long", tuple(range(1, 41)), SamplingParams(max_tokens=50), "long")
    short = Request("short", (1, 2), SamplingParams(max_tokens=30), "short")
    expected = by_id(LocalEngine(small(), slots=2).generate([long, short]))
    engine = LocalEngine(small(), slots=2)
    engine.submit(short)
    for _ in range(6):
        engine.step()
    size = engine.cache_bytes
    engine.submit(long)
    while engine.step():
        pass
    assert engine.cache_bytes > size
    assert engine.collect("short") == expected["short"]
    assert engine.collect("long") == expected["long"]


def test_half_precision_runs_and_stays_near() -> None:
    model = model_of(**SMALL)
    asked = requests(SamplingParams(max_tokens=12, temperature=0.0), 2)
    full = LocalEngine(model, slots=4).generate(asked)
    half = LocalEngine(model.to(torch.bfloat16), slots=4).generate(asked)
    assert [s.logprobs[0] for s in half] == pytest.approx([s.logprobs[0] for s in full], abs=0.2)


def test_a_foreign_architecture_runs_through_transformers() -> None:
    torch.manual_seed(0)
    config = OlmoConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        eos_token_id=None,
    )
    reference = AutoModelForCausalLM.from_config(deepcopy(config)).eval()
    model = TransformersModel(AutoModelForCausalLM.from_config(config).eval())
    model.inner.load_state_dict(reference.state_dict())
    prompt = (1, 5, 9)
    request = Request("a", prompt, SamplingParams(max_tokens=20, temperature=0.0))
    (sample,) = LocalEngine(model, slots=2).generate([request])
    generated = reference.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert sample.token_ids == tuple(generated[0, 3:].tolist())


@pytest.mark.parametrize(
    ("settings", "message"), [({"slots": 0}, "slots is 0"), ({"max_length": 100_000}, "max_length is 100000")]
)
def test_impossible_engines_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        LocalEngine(small(), **settings)  # type: ignore[arg-type]

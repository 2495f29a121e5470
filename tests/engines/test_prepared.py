"""The prepared decoder against the decoder itself.

Why it matters: it is a second writing of the same mathematics, for speed; if the two drift apart, what is sampled is
no longer what is trained.

Not exercised: speed, and models too large to be prepared (they run the decoder itself).
"""

from __future__ import annotations

import pytest
import torch
from tests.engines.conformance import requests
from tests.engines.test_local import FAMILIES, SMALL, model_of, small

from r1kit.engines import prepared
from r1kit.engines.local import LocalEngine
from r1kit.engines.prepared import PreparedDecoder, prepare
from r1kit.engines.protocol import SamplingParams
from r1kit.models.attention import Segment, packed_attention
from r1kit.models.decoder import Decoder, DecoderConfig, initialise


@pytest.mark.parametrize("family", FAMILIES)
def test_it_equals_the_decoder(family: str) -> None:
    """In float64, so that nothing but rounding is left; biases and gains are made to matter."""
    decoder = Decoder(DecoderConfig(**{**SMALL, "model_type": "llama", **FAMILIES[family]})).double()
    initialise(decoder, seed=1, std=0.3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand(parameter.shape, generator=generator))
    segments = [Segment(2, 9), Segment(1, 5)]
    ids = torch.arange(23) * 7 % SMALL["vocab_size"]
    positions = torch.cat([torch.arange(9), torch.arange(9), torch.arange(5)])
    outputs = []
    with torch.no_grad():
        for model in (decoder, PreparedDecoder(decoder)):
            hidden = model(ids, positions, packed_attention(segments))
            outputs.append(torch.log_softmax(model.logits(hidden), -1))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-7)


def test_the_engine_samples_alike_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(SamplingParams(max_tokens=30), 8)
    expected = LocalEngine(small(), slots=4).generate(asked)
    monkeypatch.setattr(prepared, "LARGE", 0)
    engine = LocalEngine(small(), slots=4)
    assert engine._prepared is engine.model
    for plain, sample in zip(engine.generate(asked), expected, strict=True):
        assert plain.token_ids == sample.token_ids
        assert plain.logprobs == pytest.approx(sample.logprobs, abs=1e-5)


def test_parameters_written_through_another_view_are_noticed() -> None:
    """An optimiser may hold all parameters in one flat array: no version counter of theirs moves then."""
    model = model_of(**SMALL)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    offset = 0
    for parameter in model.parameters():
        parameter.data = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    engine = LocalEngine(model, slots=4)
    asked = requests(SamplingParams(max_tokens=20), 4)
    before = engine.generate(asked)
    flat.mul_(1.1)
    after = engine.generate(asked)
    assert [s.token_ids for s in after] != [s.token_ids for s in before]
    assert after == LocalEngine(model, slots=4).generate(asked)


def test_half_precision_keeps_the_trainers_forward() -> None:
    model = model_of(**SMALL).to(torch.bfloat16)
    assert prepare(model) is model

"""A tiny base saved and loaded: by r1kit, and by plain Transformers without r1kit.

Why this matters: the result of a run belongs to its user, who opens it with the tools he knows. If those gave other
logits or other token ids, the measured accuracy would be a property of r1kit and not of the model.

Not exercised here: the accuracy of a trained result in plain Transformers (an acceptance run); other tokenizers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from r1kit.config.parts import ModelSettings
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError, weights_checksum
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.models.transformers_model import TransformersModel

from .families import random_model, relative_error

TEXT = "Q:3,5,6>13\n<think>(3+6)-5=9-5=4?13 no\n</think>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


def tiny(tokenizer: PreTrainedTokenizerFast, **settings: object) -> Decoder:
    shape = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate": 48, **settings}
    return make_tiny(ModelSettings.model_validate(shape), tokenizer, seed=1, max_positions=64)


def our_logits(model: Decoder, ids: list[int]) -> torch.Tensor:
    segments = [Segment(1, len(ids))]
    with torch.no_grad():
        return model.logits(model(torch.tensor(ids), positions(segments), packed_attention(segments)))


@pytest.mark.parametrize("settings", [{}, {"qk_norm": True}, {"tie_embeddings": False, "rope_theta": 500.0}])
def test_plain_transformers_loads_a_tiny_base(
    settings: dict[str, object], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny(tokenizer, **settings)
    write_model(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert their_tokenizer.encode(TEXT, add_special_tokens=False) == ids
    assert their_tokenizer.decode(ids) == TEXT
    with torch.no_grad():
        want = theirs(torch.tensor([ids])).logits[0]
    assert relative_error(our_logits(model, ids), want) < 1e-5
    assert theirs.config.eos_token_id == tokenizer.eos_token_id
    assert theirs.config.vocab_size == len(tokenizer)


def test_what_was_written_is_what_is_read(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    write_model(model, tokenizer, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, Decoder)
    # Read back, "no scaling" is spelled out.
    assert replace(again.config, rope_parameters={}) == model.config
    assert weights_checksum(again) == weights_checksum(model)
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_half_precision_weights_are_written_as_they_are(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = tiny(tokenizer).to(torch.bfloat16)
    write_model(model, tokenizer, tmp_path)
    assert weights_checksum(load_model(tmp_path, dtype="bfloat16")) == weights_checksum(model)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_generation_in_plain_transformers_samples_as_we_do(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The whole distribution at temperature 1, ended by our stop token: no hidden top-k or penalty."""
    write_model(tiny(tokenizer), tokenizer, tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert saved.do_sample
    assert (saved.temperature, saved.top_k, saved.top_p or 1.0) == (1.0, 0, 1.0)
    assert saved.eos_token_id == tokenizer.eos_token_id


def test_a_foreign_model_is_written_with_its_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = TransformersModel(random_model("olmo2"))
    write_model(model, tokenizer, tmp_path)
    assert weights_checksum(load_model(tmp_path)) == weights_checksum(model)
    assert len(load_tokenizer(tmp_path)) == len(tokenizer)


def test_a_checkpoint_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer_config\.json"):
        load_tokenizer(tmp_path)

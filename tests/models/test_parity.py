"""The native decoder against Transformers: logits and gradients of random checkpoints of every family it claims.

Why this matters: a checkpoint must mean here what it means everywhere else. A rotary variant read wrongly, a bias
dropped or a head order mixed up gives a model that still speaks, and every number measured on it is worthless.

Not exercised here: real weights (there are none in the repository); half precision; lengths beyond 64 positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1kit.models.attention import packed_attention, positions
from r1kit.models.checkpoint import from_hf_config, load_decoder, read_config, to_hf_state, write_decoder
from r1kit.models.decoder import Decoder, rotary_phases
from r1kit.models.loading import load_model

from .families import SEGMENTS, random_model, reference_logits, relative_error, saved, tokens

TOLERANCE = 1e-5

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0}

CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2 with biases": ("qwen2", {}),
    "qwen2 tied, one key head": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2 yarn": ("qwen2", {"rope_parameters": YARN_ROPE}),
    "qwen3 wide heads": ("qwen3", {"head_dim": 10}),
    "qwen3 tied, equal heads": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama tied, narrow heads": ("llama", {"head_dim": 4, "tie_word_embeddings": True}),
    "llama 3 scaling": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama yarn": ("llama", {"rope_parameters": YARN_ROPE, "num_key_value_heads": 1}),
    "llama linear": ("llama", {"rope_parameters": LINEAR_ROPE}),
}


@pytest.fixture(params=CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def family(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param


def logits_of(model: Any, token_ids_T: Tensor) -> Tensor:
    hidden = model(token_ids_T, positions(SEGMENTS), packed_attention(SEGMENTS))
    return model.logits(hidden)


def some_loss(logits_TV: Tensor) -> Tensor:
    """A loss in which every logit has a weight of its own."""
    weight = torch.linspace(-1, 1, logits_TV.numel()).view_as(logits_TV)
    return (torch.log_softmax(logits_TV, dim=-1) * weight).sum()


def test_logits_and_gradients_equal_transformers(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = random_model(family[0], **family[1])
    ours = load_model(saved(theirs, tmp_path))
    assert isinstance(ours, Decoder)
    token_ids_T = tokens()
    got, want = logits_of(ours, token_ids_T), reference_logits(theirs, token_ids_T)
    assert relative_error(got, want) < TOLERANCE
    with torch.no_grad():
        assert relative_error(logits_of(ours, token_ids_T), want) < TOLERANCE

    some_loss(got).backward()
    some_loss(want).backward()
    gradients = to_hf_state({name: p.grad for name, p in ours.named_parameters()}, ours.config)
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_error(gradients[name], gradient) < TOLERANCE, name


def test_round_trip_through_our_files_loses_nothing(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """Transformers -> r1kit -> disk -> Transformers: the same bits, and so the same logits."""
    theirs = random_model(family[0], **family[1])
    write_decoder(load_decoder(saved(theirs, tmp_path / "theirs")), tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert type(again) is type(theirs)
    state = again.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(state[name], weight), name
    token_ids_T = tokens()
    with torch.no_grad():
        assert torch.equal(reference_logits(again, token_ids_T), reference_logits(theirs, token_ids_T))


def test_config_survives_the_round_trip(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = random_model(family[0], eos_token_id=[2, 5], **family[1])
    model = load_decoder(saved(theirs, tmp_path / "theirs"))
    write_decoder(model, tmp_path / "ours")
    assert load_decoder(tmp_path / "ours").config == model.config
    assert model.config.eos_token_id == [2, 5]


@pytest.mark.parametrize(("old_name", "rope"), [("type", LINEAR_ROPE), ("type", YARN_ROPE), ("rope_type", LLAMA3_ROPE)])
def test_rope_settings_of_older_checkpoints_mean_the_same(old_name: str, rope: dict[str, Any], tmp_path: Path) -> None:
    """Before Transformers 5: `rope_theta` stood at the top and `rope_scaling` named its kind `type` or `rope_type`."""
    raw = read_config(saved(random_model("llama", rope_parameters=rope), tmp_path))
    new = raw.pop("rope_parameters")
    old = {**raw, "rope_theta": new["rope_theta"], "rope_scaling": {k: v for k, v in new.items() if k != "rope_theta"}}
    old["rope_scaling"][old_name] = old["rope_scaling"].pop("rope_type")
    phases = rotary_phases(from_hf_config(old))
    assert torch.equal(phases, rotary_phases(from_hf_config({**raw, "rope_parameters": new})))
    assert not torch.equal(phases, rotary_phases(from_hf_config({**raw, "rope_theta": new["rope_theta"]})))


def test_a_tied_checkpoint_may_hold_its_head_twice(tmp_path: Path) -> None:
    """Some writers store the tied head as well; the config decides, and nothing is loaded twice."""
    from safetensors.torch import load_file, save_file

    theirs = random_model("qwen2", tie_word_embeddings=True)
    path = saved(theirs, tmp_path) / "model.safetensors"
    state = load_file(path)
    save_file({**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()}, path, metadata={"format": "pt"})
    ours = load_decoder(tmp_path)
    assert ours.head is None
    with torch.no_grad():
        token_ids_T = tokens()
        assert relative_error(logits_of(ours, token_ids_T), reference_logits(theirs, token_ids_T)) < TOLERANCE


def test_half_precision_loads_and_stays_near(tmp_path: Path) -> None:
    theirs = random_model("qwen3", head_dim=8)
    ours = load_decoder(saved(theirs, tmp_path), dtype=torch.bfloat16)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert ours.phase_PC.dtype == torch.complex64
    token_ids_T = tokens()
    with torch.no_grad():
        assert relative_error(logits_of(ours, token_ids_T).float(), reference_logits(theirs, token_ids_T)) < 0.1

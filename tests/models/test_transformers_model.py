"""Architectures that are not native: run by Transformers through our attention, or refused when they are loaded.

Why this matters: what our attention cannot express (windows, sinks, position biases, scaled logits) would train on
wrong log-probs without any error. Such a model is refused by name or by comparison with Transformers' own logits. And
what Transformers does not find in a checkpoint it draws at random, and goes on.

Not exercised here: the engine's cache with these models (tests/engines); every architecture there is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from r1kit.models.attention import packed_attention, positions
from r1kit.models.checkpoint import INDEX, CheckpointError
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model
from r1kit.models.transformers_model import TransformersModel

from .families import SEGMENTS, random_model, reference_logits, relative_error, saved, tokens

# Norms after the sublayer and of queries; parallel residuals with learned biases; biased Llama; experts; a frequency
# table that depends on the length.
FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo2": ("olmo2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen3_moe": (
        "qwen3_moe",
        {"head_dim": 8, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "llama dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
        "uses sliding_attention",
    ),
    "window in every layer": ("mistral", {"sliding_window": 32}, "sliding window of 32 tokens"),
    "capped scores": ("gemma2", {"head_dim": 8, "layer_types": ["full_attention"] * 2}, "attn_logit_softcapping"),
    "biased head": ("phi", {}, "bias in its output layer"),
    "scaled logits": ("granite", {"logits_scaling": 8.0}, "differ from Transformers' own"),
    "position biases in the scores": ("bloom", {}, "differ from Transformers' own"),
}


@pytest.mark.parametrize("family", FOREIGN.values(), ids=FOREIGN.keys())
def test_logits_and_gradients_equal_transformers(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = random_model(family[0], **family[1])
    ours = load_model(saved(theirs, tmp_path))
    assert isinstance(ours, TransformersModel)
    token_ids_T = tokens()
    hidden = ours(token_ids_T, positions(SEGMENTS), packed_attention(SEGMENTS))
    want = reference_logits(theirs, token_ids_T)
    assert relative_error(ours.logits(hidden), want) < 1e-5
    # The fused loss multiplies by `head_weight` itself.
    got = hidden @ ours.head_weight.t()
    assert relative_error(got, want) < 1e-5
    weight = torch.linspace(-1, 1, want.numel()).view_as(want)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    gradients = {name: p.grad for name, p in ours.inner.named_parameters()}
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            continue
        # Experts and other routes of Transformers sum in another order: looser than native parity.
        assert relative_error(gradients[name], parameter.grad) < 1e-4, name


@pytest.mark.parametrize("family", REFUSED.values(), ids=REFUSED.keys())
def test_what_packed_attention_cannot_express_is_refused(
    family: tuple[str, dict[str, Any], str], tmp_path: Path
) -> None:
    model_type, settings, reason = family
    saved(random_model(model_type, **settings), tmp_path)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: .*{reason}"):
        load_model(tmp_path)


def test_sizes_are_what_the_engine_asks_for() -> None:
    sizes = TransformersModel(random_model("olmo2")).config
    assert (sizes.num_layers, sizes.num_heads, sizes.num_kv_heads, sizes.head_dim) == (2, 4, 2, 6)
    assert (sizes.vocab_size, sizes.hidden_size, sizes.max_positions) == (48, 24, 64)


def test_written_and_read_again_by_transformers(tmp_path: Path) -> None:
    theirs = random_model("olmo2")
    TransformersModel(random_model("olmo2")).write(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    token_ids_T = tokens()
    with torch.no_grad():
        assert torch.equal(reference_logits(again, token_ids_T), reference_logits(theirs, token_ids_T))


def test_native_families_never_come_here(tmp_path: Path) -> None:
    assert isinstance(load_model(saved(random_model("llama"), tmp_path)), Decoder)


# -- damaged checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(random_model("olmo2"), tmp_path / "model")


@pytest.mark.parametrize("kept", [0, 4, 100, -1], ids=["empty", "header cut", "header cut late", "last byte lost"])
def test_a_truncated_file_is_named(kept: int, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read .* damaged or truncated"):
        load_model(checkpoint)


def test_a_file_that_is_gone_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file; the checkpoint is incomplete"):
        load_model(checkpoint)
    (checkpoint / INDEX).write_text('{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors: no such file"):
        load_model(checkpoint)


def without(checkpoint: Path, name: str) -> Path:
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    del state[name]
    save_file(state, path, metadata={"format": "pt"})
    return checkpoint


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"]
)
def test_a_tensor_that_would_be_drawn_at_random_is_named(name: str, checkpoint: Path) -> None:
    without(checkpoint, name)
    with pytest.raises(CheckpointError, match=rf"no tensor '{name}', which its config\.json asks for \(1 missing\)"):
        load_model(checkpoint)


def test_a_missing_expert_is_found(tmp_path: Path) -> None:
    """Transformers stacks the experts while it loads: one that is missing comes as another kind of error."""
    family, settings = FOREIGN["qwen3_moe"]
    path = without(saved(random_model(family, **settings), tmp_path), "model.layers.1.mlp.experts.1.up_proj.weight")
    with pytest.raises(CheckpointError, match=r"Transformers cannot load it .* conversion of the weights"):
        load_model(path)


def test_a_tied_matrix_is_there_once(tmp_path: Path) -> None:
    model = random_model("olmo2", tie_word_embeddings=True)
    path = saved(model, tmp_path)
    assert "lm_head.weight" not in load_file(path / "model.safetensors")
    loaded = load_model(path)
    assert torch.equal(loaded.head_weight, model.get_input_embeddings().weight)
    without(path, "model.embed_tokens.weight")
    with pytest.raises(CheckpointError, match="no tensor"):
        load_model(path)


def test_weights_of_another_size_than_the_config_says_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 41}))
    with pytest.raises(CheckpointError, match=r"down_proj\.weight: \(24, 40\) instead of \(24, 41\).*6 in all"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "raw",
    [{}, {"model_type": "nobodys"}, {"model_type": "t5"}, {"model_type": "olmo2", "hidden_size": "wide"}],
    ids=str,
)
def test_what_transformers_cannot_load_is_a_message(raw: dict[str, Any], checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=rf"{checkpoint}: Transformers cannot load it"):
        load_model(checkpoint)

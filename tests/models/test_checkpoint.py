"""Reading checkpoints: sharded ones, damaged ones, and those the native decoder must leave to Transformers.

Why this matters: a checkpoint that is read half, or read by the wrong rules, starts hours of training on nothing. Every
refusal here names the file and what to do.

Not exercised here: equality of the weights with Transformers (test_parity.py); pickled weights, which are never read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1kit.models.checkpoint import (
    INDEX,
    CheckpointError,
    Source,
    from_hf_config,
    load_decoder,
    read_config,
    read_hf_state,
    unsupported_reason,
    weights_checksum,
)
from r1kit.models.loading import load_model

from .families import random_model, saved


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(random_model("qwen3", head_dim=8), tmp_path / "model")


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    model = random_model("qwen2")
    whole, sharded = saved(model, tmp_path / "whole"), saved(model, tmp_path / "sharded", max_shard_size="12KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    state = read_hf_state(sharded)
    assert state.keys() == read_hf_state(whole).keys()
    assert weights_checksum(load_decoder(sharded)) == weights_checksum(load_decoder(whole))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded = saved(random_model("qwen2"), tmp_path, max_shard_size="12KB")
    lost = sorted(sharded.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load_decoder(sharded)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"weight_map": {"model.norm.we', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", r"holds no object \({\.\.\.}\) but '\[\]'"),
        (b"{}", "has no 'weight_map'"),
        (b'{"weight_map": {}}', "has no 'weight_map'"),
        (b'{"weight_map": ["model.safetensors"]}', "has no 'weight_map'"),
        (b'{"weight_map": {"model.norm.weight": 1}}', "has no 'weight_map'"),
    ],
)
def test_a_damaged_index_is_named(content: bytes, reason: str, checkpoint: Path) -> None:
    (checkpoint / INDEX).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"index\.json: {reason}"):
        read_hf_state(checkpoint)
    with pytest.raises(CheckpointError, match=rf"index\.json: {reason}"), Source(checkpoint):
        pass


@pytest.mark.parametrize("kept", [0, 4, 100, -1], ids=["empty", "header cut", "header cut late", "last byte lost"])
def test_a_truncated_file_is_named(checkpoint: Path, kept: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read .* damaged or truncated"):
        load_decoder(checkpoint)


def test_missing_weights_and_config_are_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        load_decoder(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file; expected a Hugging Face checkpoint"):
        read_config(checkpoint)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"model_type": "qwen', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1, 2]", "holds no object"),
        (b'"qwen3"', "holds no object"),
    ],
)
def test_a_damaged_config_is_named(content: bytes, reason: str, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_bytes(content)
    for load in (load_decoder, load_model):
        with pytest.raises(CheckpointError, match=rf"config\.json: {reason}"):
            load(checkpoint)


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_missing_or_none_is_named(name: str, checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    raw = json.loads(path.read_text())
    for value in (None, "24", 0):
        path.write_text(json.dumps({**raw, name: value}))
        with pytest.raises(CheckpointError, match=rf"model/config\.json: {name} is {value!r}, expected a whole number"):
            load_decoder(checkpoint)
    del raw[name]
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=rf"model/config\.json has no '{name}'"):
        load_decoder(checkpoint)


def test_a_missing_tensor_is_named(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    del state["model.layers.1.self_attn.k_norm.weight"]
    save_file(state, path)
    with pytest.raises(
        CheckpointError, match=rf"{checkpoint} has no tensor 'model\.layers\.1\.self_attn\.k_norm\.weight'"
    ):
        load_decoder(checkpoint)


def test_weights_of_another_size_than_the_config_says_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 41}))
    with pytest.raises(CheckpointError, match=r"down: \(24, 40\) instead of \(24, 41\)"):
        load_decoder(checkpoint)


def test_heads_that_do_not_divide_the_weights_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "head_dim": 10}))
    with pytest.raises(CheckpointError, match=r"model: config\.json and weights disagree: "):
        load_decoder(checkpoint)


NATIVE = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 9}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"model_type": "gpt_neox"}, "gpt_neox"),
        ({}, "None"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "gelu"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias"),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_what_the_native_decoder_leaves_to_transformers(raw: dict[str, Any], reason: str) -> None:
    assert reason in str(unsupported_reason({**NATIVE, **raw}))
    with pytest.raises(CheckpointError, match=r"load it with r1kit\.models"):
        from_hf_config({**NATIVE, **raw})


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_plain_member_of_each_family_is_native(family: str) -> None:
    raw = {**NATIVE, "model_type": family, "use_sliding_window": False, "attention_bias": False}
    assert unsupported_reason(raw) is None


def test_checksum_sees_one_bit(checkpoint: Path) -> None:
    model = load_decoder(checkpoint)
    before = weights_checksum(model)
    assert weights_checksum(load_decoder(checkpoint)) == before
    with torch.no_grad():
        weight = model.layers[1].down
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(10.0))
    assert weights_checksum(model) != before

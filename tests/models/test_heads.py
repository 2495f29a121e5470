"""Value heads: values and gradients equal Transformers' classifiers, and checkpoints go both ways.

Why this matters: a reward model read at another position, or with another trunk than was trained, scores noise that RL
then climbs; and a reward model others trained must score here as it does there.

Not exercised here: training (tests/training/test_reward_model.py); how a critic is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError
from r1kit.models.decoder import Decoder
from r1kit.models.heads import ValueModel, load_value_model, write_value_model
from r1kit.models.loading import load_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer

from .families import DRAWN, SEGMENTS, SIZES, random_model, relative_error, saved, tokens

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "llama": ("llama", {}),
    "foreign": ("llama", {"mlp_bias": True}),
}


def classifier(family: tuple[str, dict[str, Any]], *, per_token: bool, labels: int = 1) -> Any:
    """A random classifier made by Transformers."""
    auto: Any = AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification
    config = AutoConfig.for_model(family[0], **SIZES, **family[1], num_labels=labels, classifier_dropout=0.0)
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=DRAWN)
            parameter.copy_(1.0 + 0.3 * noise if parameter.ndim == 1 else 0.15 * noise)
    return model.eval()


def their_values(model: Any, token_ids_T: torch.Tensor, *, per_token: bool) -> torch.Tensor:
    """Transformers' values of SEGMENTS: of every token, or of the last of each sequence."""
    lengths = [s.length for s in SEGMENTS for _ in range(s.rows)]
    rows = [model(ids[None]).logits[0] for ids in token_ids_T.split(lengths)]
    return torch.cat([row[:, 0] if per_token else row for row in rows])


def our_values(model: ValueModel, token_ids_T: torch.Tensor, *, per_token: bool) -> torch.Tensor:
    values = model(token_ids_T, positions(SEGMENTS), packed_attention(SEGMENTS))
    lengths = torch.tensor([s.length for s in SEGMENTS for _ in range(s.rows)])
    return values if per_token else values[lengths.cumsum(0) - 1]


@pytest.mark.parametrize("per_token", [False, True], ids=["sequence", "token"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_values_and_gradients_equal_transformers(
    family: tuple[str, dict[str, Any]], per_token: bool, tmp_path: Path
) -> None:
    theirs = classifier(family, per_token=per_token)
    ours = load_value_model(saved(theirs, tmp_path))
    token_ids_T = tokens()
    got = our_values(ours, token_ids_T, per_token=per_token)
    want = their_values(theirs, token_ids_T, per_token=per_token)
    assert relative_error(got, want) < 1e-5
    (got * torch.linspace(-1, 1, len(got))).sum().backward()
    (want * torch.linspace(-1, 1, len(want))).sum().backward()
    assert ours.weight.grad is not None
    assert relative_error(ours.weight.grad, theirs.score.weight.grad) < 1e-4
    trunk = ours.trunk
    embedding: Any = trunk.embedding if isinstance(trunk, Decoder) else trunk.inner.get_input_embeddings().weight
    assert embedding.grad is not None
    assert relative_error(embedding.grad, theirs.get_input_embeddings().weight.grad) < 1e-4


@pytest.mark.parametrize("bias", [False, True], ids=["sequence", "token"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_what_is_written_loads_here_and_in_transformers(
    family: tuple[str, dict[str, Any]], bias: bool, tmp_path: Path
) -> None:
    trunk = load_model(saved(random_model(family[0], **family[1]), tmp_path / "base"))
    model = ValueModel(trunk, bias=bias).draw_head(3)
    with torch.no_grad():
        if model.bias is not None:
            model.bias.fill_(0.7)
        write_value_model(model, build_tiny_tokenizer(), tmp_path / "written")
        token_ids_T = tokens()
        mine = our_values(model, token_ids_T, per_token=bias)
        assert torch.equal(our_values(load_value_model(tmp_path / "written"), token_ids_T, per_token=bias), mine)
        auto: Any = AutoModelForTokenClassification if bias else AutoModelForSequenceClassification
        theirs, info = auto.from_pretrained(tmp_path / "written", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert relative_error(mine, their_values(theirs.eval(), token_ids_T, per_token=bias)) < 1e-5


def test_every_parameter_is_trained_and_none_is_the_old_output_matrix(tmp_path: Path) -> None:
    for family in FAMILIES.values():
        model = ValueModel(load_model(saved(random_model(family[0], **family[1]), tmp_path / family[0])))
        model.draw_head(0)
        model(tokens(), positions(SEGMENTS), packed_attention(SEGMENTS)).square().sum().backward()
        idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, family


def test_values_of_half_precision_are_added_up_in_float32(tmp_path: Path) -> None:
    trunk = load_model(saved(random_model("qwen2"), tmp_path), dtype="bfloat16")
    model = ValueModel(trunk).draw_head(0)
    hidden = torch.randn(5, 24).bfloat16()
    assert model.values(hidden).dtype == torch.float32
    assert torch.equal(model.values(hidden), (hidden.float() @ model.weight.float().t())[:, 0])


def test_the_head_is_zero_or_drawn_from_its_seed(tmp_path: Path) -> None:
    trunk = load_model(saved(random_model("qwen2", hidden_size=512, num_hidden_layers=1), tmp_path))
    model = ValueModel(trunk)
    segments = [Segment(1, 4)]
    assert not model(torch.arange(3, 7), positions(segments), packed_attention(segments)).any()
    first = model.draw_head(5).weight.detach().clone()
    assert first.std().item() == pytest.approx(513**-0.5, rel=0.15)
    assert torch.equal(model.draw_head(5).weight, first)
    assert not torch.equal(model.draw_head(6).weight, first)
    assert not model.draw_head(6, std=0.0).weight.any()


def test_what_is_no_value_model_is_refused_by_name(tmp_path: Path) -> None:
    language_model = saved(random_model("qwen2"), tmp_path / "lm")
    with pytest.raises(CheckpointError, match=r"lm: no tensor 'score\.weight'; expected a model with one value"):
        load_value_model(language_model)
    several = saved(classifier(("qwen2", {}), per_token=False, labels=3), tmp_path / "several")
    with pytest.raises(CheckpointError, match="a head of 3 outputs"):
        load_value_model(several)
    wrong = saved(classifier(("qwen2", {}), per_token=False), tmp_path / "wrong")
    state = load_file(wrong / "model.safetensors")
    save_file({**state, "score.weight": torch.zeros(1, 7)}, wrong / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"score\.weight is \(1, 7\), not \(1, 24\)"):
        load_value_model(wrong)
    state["model.norm.weight"] = torch.zeros(7)
    save_file(state, wrong / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"config\.json and weights disagree"):
        load_value_model(wrong)
    (wrong / "model.safetensors").write_bytes((wrong / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_value_model(wrong)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.bias", "model.embed_tokens.weight"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_foreign_trunk_is_whole_or_refused(name: str, tied: bool, tmp_path: Path) -> None:
    """It has no output matrix, which Transformers then draws at random and nothing reads; all else has to be there."""
    path = saved(classifier(("llama", {"mlp_bias": True, "tie_word_embeddings": tied}), per_token=False), tmp_path)
    load_value_model(path)
    state = load_file(path / "model.safetensors")
    del state[name]
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"no tensor '{name}', which its config\.json asks for"):
        load_value_model(path)


def test_a_family_without_a_classifier_is_refused_when_it_is_written(tmp_path: Path) -> None:
    trunk = load_model(saved(random_model("olmo2"), tmp_path / "base"))
    with pytest.raises(CheckpointError, match="no token classifier for model_type 'olmo2'"):
        write_value_model(ValueModel(trunk, bias=True), build_tiny_tokenizer(), tmp_path / "written")

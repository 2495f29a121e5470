"""Adapters: what trains, what samples and what is saved are one model; the reference is the model without them.

Why this matters: an adapter that is merged wrongly, or not at all, gives rollouts of the untouched policy for a whole
run, and an export that equals the base byte for byte; both happened to others.

Not exercised here: that a policy learns with adapters; the RL stage around it (tests/training/test_roles.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r1kit.config.errors import UserError
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import load_decoder
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.loading import load_model
from r1kit.models.lora import BaseOf, LoRAModel, plain_model

from .families import random_model, saved


def decoder() -> Decoder:
    model = Decoder(DecoderConfig(23, 16, 2, 4, 2, 4, 24, model_type="llama", max_positions=64))
    initialise(model, 0, std=0.3)
    return model


def hidden(model: Decoder | LoRAModel | BaseOf) -> torch.Tensor:
    segments = [Segment(2, 5)]
    return model(torch.arange(10) % 23, positions(segments), packed_attention(segments))


def trained(seed: int = 0) -> LoRAModel:
    """Adapters after some training: none of them is zero."""
    model = LoRAModel(decoder(), rank=3, alpha=6.0, seed=seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for up in model.up:
            up.copy_(0.1 * torch.randn(up.shape, generator=generator))
    model.merge_()
    return model


def test_fresh_adapters_change_nothing() -> None:
    model = LoRAModel(decoder(), rank=3, alpha=6.0)
    torch.testing.assert_close(hidden(model), hidden(decoder()))
    names = {name for name, _ in model.named_parameters()}
    assert len(names) == 2 * 2 * 4  # two factors, two layers, four matrices
    assert all(name.startswith(("up.", "down.")) for name in names)


def test_the_sum_by_hand() -> None:
    """W0 + (alpha / rank) B A, for one matrix; merged into the inner model bit for bit."""
    model = trained()
    name = "layers.1.down"
    i = model.targets.index(name)
    want = decoder().layers[1].down + 2.0 * model.up[i] @ model.down[i]
    torch.testing.assert_close(model.merged()[name], want)
    assert torch.equal(dict(model.inner.named_parameters())[name], model.merged()[name].detach())


def test_with_and_without_gradient_it_is_the_merged_model() -> None:
    model = trained()
    with torch.no_grad():
        assert torch.equal(hidden(model), hidden(plain_model(model)))
    torch.testing.assert_close(hidden(model).detach(), hidden(plain_model(model)))
    assert not torch.allclose(hidden(model), hidden(decoder()), atol=1e-2)


def test_gradients_reach_the_adapters_only_and_are_those_of_the_sum() -> None:
    model = trained()
    (hidden(model) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in model.parameters())
    assert all(p.grad is None for p in model.inner.parameters())
    # d/dB = scale * dW A^T, with dW from the merged model trained as a whole.
    whole = plain_model(trained()).requires_grad_(True)
    (hidden(whole) ** 2).sum().backward()
    for name, up, down in zip(model.targets, model.up, model.down, strict=True):
        gradient = dict(whole.named_parameters())[name].grad
        torch.testing.assert_close(up.grad, 2.0 * gradient @ down.t(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(down.grad, 2.0 * up.t() @ gradient, rtol=1e-4, atol=1e-5)


def test_the_reference_is_the_model_without_them() -> None:
    model = trained()
    with torch.no_grad():
        torch.testing.assert_close(hidden(BaseOf(model)), hidden(decoder()))
        assert torch.equal(hidden(model), hidden(plain_model(model)))  # and it left the policy as it was


def test_what_is_saved_is_a_plain_checkpoint(tmp_path: Path) -> None:
    model = trained()
    model.write(tmp_path)
    loaded = load_decoder(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(hidden(loaded), hidden(model))
        assert not torch.allclose(hidden(loaded), hidden(decoder()), atol=1e-2)


def test_a_foreign_architecture_has_adapters_too(tmp_path: Path) -> None:
    """Any model that Transformers runs: its matrices are found by shape and place."""
    model = LoRAModel(load_model(saved(random_model("olmo2"), tmp_path / "base")), rank=2, alpha=4.0)
    assert len(model.targets) == 2 * 7
    with torch.no_grad():
        before = hidden(model)
        for up in model.up:
            up.fill_(0.05)
        model.merge_()
        assert not torch.allclose(hidden(model), before, atol=1e-3)
        torch.testing.assert_close(hidden(BaseOf(model)), before)
    (hidden(model) ** 2).sum().backward()
    assert all(p.grad.norm() > 0 for p in model.parameters())
    model.write(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(hidden(load_model(tmp_path / "merged")), hidden(model))


def test_the_seed_says_where_they_start() -> None:
    one, same, other = (LoRAModel(decoder(), rank=3, alpha=6.0, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.down[0], same.down[0])
    assert not torch.equal(one.down[0], other.down[0])


def test_a_model_without_layers_is_refused() -> None:
    model = decoder()
    model.layers = torch.nn.ModuleList()
    with pytest.raises(UserError, match="lora: Decoder has no matrices under the name 'layers'"):
        LoRAModel(model, rank=2, alpha=2.0)


def test_an_architecture_with_layers_of_another_name_is_refused(tmp_path: Path) -> None:
    model = load_model(saved(random_model("gpt2"), tmp_path))
    with pytest.raises(UserError, match=r"lora: GPT2LMHeadModel has no matrices .* leave lora out to train all of its"):
        LoRAModel(model, rank=2, alpha=2.0)

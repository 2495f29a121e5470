"""Optimisers against torch's AdamW, and against Muon written out in NumPy with exact singular values.

Why this matters: a slightly wrong optimiser still lowers the loss; only an oracle tells. And a state that is not saved
whole makes a resumed run another run.

Not exercised here: whether Muon learns faster (benchmarks/train.py); saving through checkpoint files (test_session.py).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from r1kit.config.parts import OptimizerSettings
from r1kit.training.optim import FlatParameters, Muon, make_optimizer, orthogonalise, schedule
from r1kit.training.parallel import World

from .helpers import muon_steps, tiny_model
from .ranks import Results

ADAMW = OptimizerSettings(name="adamw", lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
MUON = OptimizerSettings(name="muon", lr=0.02, adam_lr=3e-3, betas=(0.8, 0.9), weight_decay=0.1, momentum=0.9)


def gradients(flat: FlatParameters, steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(flat.grad.shape, generator=generator) for _ in range(steps)]


def test_adamw_equals_torchs() -> None:
    ours, theirs = tiny_model(), tiny_model()
    flat = FlatParameters(ours)
    optimizer = make_optimizer(flat, ADAMW, World.single())
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, eps=ADAMW.eps)
    for step, grad in enumerate(gradients(flat, 5)):
        scale = 1.0 - 0.1 * step
        flat.grad.copy_(grad)
        optimizer.step_(scale)
        for parameter, part in zip(theirs.parameters(), flat.named_views(grad).values(), strict=True):
            parameter.grad = part.clone()
        reference.param_groups[0]["lr"] = 0.01 * scale
        reference.step()
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def newton_schulz(singular_values: np.ndarray, steps: int = 5) -> np.ndarray:
    """What the quintic iteration does to each singular value."""
    for _ in range(steps):
        s = singular_values
        singular_values = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return singular_values


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """The oracle: the iteration applied to the singular values, the singular vectors kept."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return (u * newton_schulz(s / (np.linalg.norm(s) + 1e-7))) @ vt


@pytest.mark.parametrize("shape", [(6, 6), (5, 20), (1, 8)])
def test_orthogonalise_moves_singular_values_only(shape: tuple[int, int]) -> None:
    stack = np.random.default_rng(0).normal(size=(3, *shape))
    got = orthogonalise(torch.tensor(stack, dtype=torch.float32)).numpy()
    for matrix, result in zip(stack, got, strict=True):
        np.testing.assert_allclose(result, orthogonalised(matrix), atol=2e-4)


def test_orthogonalise_in_bfloat16_gives_singular_values_within_a_few_percent() -> None:
    stack = torch.randn(4, 24, 72, generator=torch.Generator().manual_seed(0))
    exact, rough = orthogonalise(stack), orthogonalise(stack, products=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.03 * exact.norm()
    torch.testing.assert_close(torch.linalg.svdvals(rough), torch.linalg.svdvals(exact), rtol=0.06, atol=0.0)


def test_orthogonalised_matrices_are_nearly_orthogonal() -> None:
    """Singular values end in [0.65, 1.25] however unequal they were; a matrix of zeros stays one."""
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(24, 8, generator=generator))
    matrix = u @ torch.diag(torch.logspace(0, -1.3, 8)) @ v.t()
    values = torch.linalg.svdvals(orthogonalise(matrix[None] * 1e-3)[0])
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert not orthogonalise(torch.zeros(1, 3, 4)).any()


def muon_oracle(model: Any, grads: list[torch.Tensor], flat: FlatParameters) -> dict[str, np.ndarray]:
    """Muon on every matrix of the layers, the fused ones taken apart; torch's AdamW on the rest."""
    c = model.config
    cuts = {"qkv": [c.query_width, c.query_width + c.kv_width], "gate_up": [c.intermediate_size]}
    named = dict(model.named_parameters())
    matrices = [n for n, p in named.items() if p.ndim == 2 and n.startswith("layers.")]
    weights = {n: named[n].detach().double().numpy().copy() for n in matrices}
    momentum = {n: np.zeros_like(w) for n, w in weights.items()}
    others = {n: p.detach().clone().requires_grad_() for n, p in named.items() if n not in matrices}
    adam = torch.optim.AdamW(others.values(), lr=MUON.adam_lr, betas=MUON.betas, eps=MUON.eps, weight_decay=0.0)
    for grad in grads:
        parts = flat.named_views(grad)
        for name, parameter in others.items():
            parameter.grad = parts[name].clone()
        adam.step()
        for name, weight in weights.items():
            g = parts[name].double().numpy()
            momentum[name] = MUON.momentum * momentum[name] + (1 - MUON.momentum) * g
            direction = MUON.momentum * momentum[name] + (1 - MUON.momentum) * g
            weight *= 1 - MUON.lr * MUON.weight_decay
            step = []
            for part in np.split(direction, cuts.get(name.split(".")[-1], [])):
                step.append(orthogonalised(part) * math.sqrt(max(1.0, part.shape[0] / part.shape[1])))
            weight -= MUON.lr * np.concatenate(step)
    return weights | {n: p.detach().numpy() for n, p in others.items()}


def test_muon_equals_its_definition() -> None:
    model = tiny_model(qkv_bias=True)
    flat = FlatParameters(model)
    grads = gradients(flat, 3)
    want = muon_oracle(model, grads, flat)
    optimizer = make_optimizer(flat, MUON, World.single())
    for grad in grads:
        flat.grad.copy_(grad)
        optimizer.step_(1.0)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), want[name], atol=5e-5, err_msg=name)


def test_muon_decays_a_matrix_without_gradient() -> None:
    """Weight decay is decoupled: it does not wait for a gradient."""
    model = tiny_model()
    flat = FlatParameters(model)
    optimizer = Muon(flat, MUON, World.single())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step_(1.0)
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and name.startswith("layers.")
        factor = 1 - MUON.lr * MUON.weight_decay if matrix else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_muon_shared_by_two_ranks_equals_one(two_ranks: Results) -> None:
    alone = muon_steps(World.single())
    for rank in two_ranks["muon"]:
        for name, value in alone.items():
            np.testing.assert_allclose(rank[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_saved_state_goes_on_bit_for_bit(settings: OptimizerSettings) -> None:
    flat = FlatParameters(tiny_model())
    optimizer = make_optimizer(flat, settings, World.single())
    grads = gradients(flat, 4)
    for grad in grads[:2]:
        flat.grad.copy_(grad)
        optimizer.step_(0.5)
    state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    copy = FlatParameters(tiny_model(seed=8))
    copy.master.copy_(flat.master)
    resumed = make_optimizer(copy, settings, World.single())
    resumed.load_state(state)
    for grad in grads[2:]:
        for one, optimiser in ((flat, optimizer), (copy, resumed)):
            one.grad.copy_(grad)
            optimiser.step_(0.5)
    assert torch.equal(copy.master, flat.master)


def test_an_unknown_optimiser_is_named() -> None:
    settings = OptimizerSettings.model_construct(name="sgd")
    with pytest.raises(ValueError, match=r"optimizer\.name is 'sgd': expected one of \['adamw', 'muon'\]"):
        make_optimizer(FlatParameters(tiny_model()), settings, World.single())


def test_parameters_and_gradients_are_views_of_two_vectors() -> None:
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = FlatParameters(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    flat.master.add_(1.0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] + 1.0)
    # Two backward passes add up in the one vector.
    for _ in range(2):
        sum((p * 3.0).sum() for p in model.parameters()).backward()
    assert torch.equal(flat.grad, torch.full_like(flat.grad, 6.0))
    flat.zero_grad()
    assert not any(p.grad.any() for p in model.parameters())


def test_half_precision_weights_follow_a_float32_master() -> None:
    """Steps far below half precision's resolution add up in the master and show in the weights in the end."""
    model = tiny_model(dtype=torch.bfloat16)
    flat = FlatParameters(model)
    assert flat.master.dtype == torch.float32
    start = flat.master.clone()
    optimizer = make_optimizer(flat, OptimizerSettings(name="adamw", lr=1e-5), World.single())
    flat.grad.fill_(1.0)
    for _ in range(50):
        optimizer.step_(1.0)
    torch.testing.assert_close(flat.master, start - 50e-5, rtol=0, atol=1e-5)
    for parameter, master in zip(model.parameters(), flat.named_views(flat.master).values(), strict=True):
        assert torch.equal(parameter.detach(), master.bfloat16())


def test_clipping_shortens_long_gradients_only() -> None:
    flat = FlatParameters(nn.Linear(3, 1, bias=False))
    flat.grad.copy_(torch.tensor([3.0, 0.0, 4.0]))
    assert flat.clip_grad_(0.0) == 5.0
    assert flat.clip_grad_(6.0) == 5.0
    assert flat.grad.tolist() == [3.0, 0.0, 4.0]
    assert flat.clip_grad_(1.0) == 5.0
    assert flat.grad.norm().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run(bad: float) -> None:
    flat = FlatParameters(nn.Linear(3, 1))
    flat.grad[1] = bad
    with pytest.raises(FloatingPointError, match="gradient norm is"):
        flat.clip_grad_(1.0)


def test_schedules() -> None:
    def curve(decay: str, minimum: float = 0.0) -> list[float]:
        return [schedule(step, 10, warmup=2, decay=decay, minimum=minimum) for step in range(10)]

    assert curve("constant") == [0.5] + [1.0] * 9
    assert curve("linear") == pytest.approx([0.5, 1.0] + [1 - i / 8 for i in range(8)])
    cosine = curve("cosine", minimum=0.1)
    assert cosine[:3] == [0.5, 1.0, 1.0]
    assert cosine[6] == pytest.approx(0.55)
    assert all(a > b > 0.1 for a, b in pairwise(cosine[2:]))
    assert schedule(0, 5, warmup=0, decay="linear") == 1.0
    # A stage that is all warm-up still has a last step.
    assert schedule(4, 5, warmup=5, decay="linear") == 1.0
    with pytest.raises(ValueError, match="decay is 'step': expected"):
        schedule(3, 5, warmup=0, decay="step")

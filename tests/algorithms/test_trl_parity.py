"""Losses and advantages against TRL's trainers, on the same tensors.

Why this matters: papers leave details open (which standard deviation, what the denominator counts), and TRL's reading
is the one most results rest on. TRL's own code runs here, with the model's forward pass replaced by given log-probs;
what it does inside generation, which no stub reaches, stands here as formulas.

Compared, of what both have: the clip with one bound and with two, its ratio of tokens and of responses (gspo), cispo,
gmpo, RLOO on-policy, dual clip (TRL's delta); token mean, sequence mean, constant; k3 in the loss; 80/20; the adaptive
entropy coefficient; token_tis, sequence_tis, masked_is, alone and with KL; advantages of groups, leave-one-out, GDPO.
Both have it and differ: TRL's RLOO clips the ratio of a response; its entropy bonus under 80/20 acts on the same fifth
of the tokens, ours on all.
TRL lacks: critics (GAE, value losses), VAPO's likelihood, the length-weighted baseline, whitening (REINFORCE++, PPO),
process rewards (PRIME), k2 and k3_k2, geometric_mask, GFPO and GRPO-RoC. Oracles hold them, in the files beside this.

Does not exercise: generation, accumulation (TRL scales by micro-batch where we sum over a global denominator).
"""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1kit.algorithms.advantages import group_advantages, per_reward_advantages
from r1kit.algorithms.aggregation import denominator, token_weights
from r1kit.algorithms.entropy_control import entropy_coefficient, high_entropy_mask
from r1kit.algorithms.kl import kl_estimate
from r1kit.algorithms.mismatch import Correction, correction_weights
from r1kit.algorithms.policy_loss import policy_loss

trl_grpo = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed (extra: bench)")

B, T, CAP = 6, 9, 12


def tensors(seed: int = 0) -> SimpleNamespace:
    """A padded batch of B responses: log-probs now, before the update, of a reference and of the engine that sampled;
    entropy, advantages."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([9, 4, 1, 7, 9, 3])
    old = -torch.rand(B, T, generator=g, dtype=torch.float64) * 3
    return SimpleNamespace(
        lengths=lengths,
        mask=torch.arange(T) < lengths[:, None],
        old=old,
        new=old + 0.5 * torch.randn(B, T, generator=g, dtype=torch.float64),
        reference=old + 0.5 * torch.randn(B, T, generator=g, dtype=torch.float64),
        entropy=torch.rand(B, T, generator=g, dtype=torch.float64) * 2,
        advantages=torch.randn(B, generator=g, dtype=torch.float64),
        sampled=old + 0.3 * torch.randn(B, T, generator=g, dtype=torch.float64),
        ratio=None,
    )


class OneProcess:
    """What TRL's loss asks of accelerate, in one process."""

    num_processes = 1
    sync_gradients = True

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x

    def gather(self, x: Tensor) -> Tensor:
        return x

    def pad_across_processes(self, x: Tensor, **_: Any) -> Tensor:
        return x


def trl_loss(x: SimpleNamespace, trainer: Any = None, **changes: Any) -> tuple[float, Tensor]:
    """TRL's loss and its gradient with respect to the policy's log-probs."""
    trainer = trainer or trl_grpo.GRPOTrainer
    new = x.new.clone().requires_grad_()
    settings: dict[str, Any] = {
        "loss_type": "dapo", "importance_sampling_level": "token", "beta": 0.0, "epsilon_low": 0.2,
        "epsilon_high": 0.28, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None,
        "use_vllm": x.ratio is not None, "vllm_importance_sampling_correction": True,
        "max_completion_length": CAP, "current_gradient_accumulation_steps": 1, "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False, "accelerator": OneProcess(), "model": SimpleNamespace(training=True),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "args": SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (new, x.entropy, None),
    }  # fmt: skip
    stub = SimpleNamespace(**{**settings, **changes})
    stub.get_high_entropy_mask = lambda *a: trl_grpo.GRPOTrainer.get_high_entropy_mask(stub, *a)
    empty = torch.zeros(B, 0, dtype=torch.long)
    inputs = {
        "prompt_ids": empty, "prompt_mask": empty, "completion_ids": torch.zeros(B, T, dtype=torch.long),
        "completion_mask": x.mask.double(), "advantages": x.advantages, "old_per_token_logps": x.old,
        "ref_per_token_logps": x.reference, "num_items_in_batch": x.mask.sum().double(),
        "old_logps": (x.old * x.mask).sum(1), "importance_sampling_ratio": x.ratio,
    }  # fmt: skip
    loss = trainer._compute_loss(stub, None, inputs)
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.item(), gradient[x.mask]


def our_loss(
    x: SimpleNamespace,
    aggregation: str,
    *,
    kl_coef: float = 0.0,
    top_share: float = 1.0,
    correction_T: Tensor | None = None,
    **objective: Any,
) -> tuple[float, Tensor]:
    """The same from our pure functions over one flat stream."""
    new = x.new[x.mask].clone().requires_grad_()
    owners = torch.arange(B)[:, None].expand(B, T)[x.mask]
    z = denominator(aggregation, tokens=int(x.mask.sum()), sequences=B, max_tokens=CAP)
    weights = token_weights(aggregation, x.lengths, owners).double()
    advantages = x.advantages[owners]
    policy_weights = weights * high_entropy_mask(x.entropy[x.mask], top_share) if top_share < 1 else weights
    if correction_T is not None:
        policy_weights = policy_weights * correction_T
    options = {"clip_low": 0.2, "clip_high": 0.28, **objective}
    everything = torch.ones_like(new, dtype=torch.bool)
    loss, _ = policy_loss(
        new, x.old[x.mask], advantages, everything, z, weights_T=policy_weights, sequence_T=owners, **options
    )
    if kl_coef:
        loss = loss + kl_coef * (kl_estimate(new, x.reference[x.mask], "k3") * weights).sum() / z
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.item(), gradient


CASES: dict[str, tuple[dict[str, Any], tuple[str, dict[str, Any]]]] = {
    "grpo": ({"loss_type": "grpo", "epsilon_high": 0.2}, ("sequence_mean", {"clip_high": 0.2})),
    "grpo with KL": ({"loss_type": "grpo", "beta": 0.04}, ("sequence_mean", {"kl_coef": 0.04})),
    "dr_grpo": ({"loss_type": "dr_grpo"}, ("constant", {})),
    "dapo": ({"loss_type": "dapo"}, ("token_mean", {})),
    "bnpo": ({"loss_type": "bnpo"}, ("token_mean", {})),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-2, "epsilon_high": 4e-2},
        ("sequence_mean", {"objective": "gspo", "clip_low": 3e-2, "clip_high": 4e-2}),
    ),
    # TRL's epsilon_high of cispo is the bound itself, ours the distance from 1; it has no lower bound.
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.5},
        ("token_mean", {"objective": "cispo", "clip_low": 1.0, "clip_high": 0.5}),
    ),
    "80/20": ({"loss_type": "dapo", "top_entropy_quantile": 0.2}, ("token_mean", {"top_share": 0.2})),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_its_gradient_are_trls(case: str, seed: int) -> None:
    theirs, (aggregation, ours) = CASES[case]
    x = tensors(seed)
    want, gradient = trl_loss(x, **theirs)
    got, our_gradient = our_loss(x, aggregation, **ours)
    assert got == pytest.approx(want, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-9)


# TRL's mode and the bounds, which are those of the ratio in both.
CORRECTIONS: dict[Correction, tuple[str, dict[str, float]]] = {
    "token_tis": ("token_truncate", {"cap": 1.3}),
    "sequence_tis": ("sequence_truncate", {"cap": 1.3}),
    "masked_is": ("token_mask", {"low": 0.8, "high": 1.3}),
}


def trl_ratio(x: SimpleNamespace, mode: str, *, cap: float = math.inf, low: float = 0.0, high: float = 0.0) -> Tensor:
    """By TRL's lines: [B, T], of responses [B, 1]."""
    difference = (x.old - x.sampled) * x.mask
    ratio = (difference.sum(1, keepdim=True) if mode == "sequence_truncate" else difference).exp()
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0) if mode == "token_mask" else ratio.clamp(max=cap)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_corrections_of_the_mismatch(correction: Correction, beta: float, seed: int) -> None:
    """The policy term is weighted, the KL is not."""
    mode, bounds = CORRECTIONS[correction]
    x = tensors(seed)
    x.ratio = trl_ratio(x, mode, **bounds)
    owners = torch.arange(B)[:, None].expand(B, T)[x.mask]
    weights_T = correction_weights(correction, x.old[x.mask], x.sampled[x.mask], owners, **bounds)
    acts = weights_T == bounds.get("cap", 0.0)
    assert 0 < acts.float().mean() < 1
    for loss_type, aggregation in (("grpo", "sequence_mean"), ("dapo", "token_mean")):
        want, gradient = trl_loss(x, loss_type=loss_type, beta=beta)
        got, our_gradient = our_loss(x, aggregation, kl_coef=beta, correction_T=weights_T)
        assert got == pytest.approx(want, rel=1e-6, abs=1e-9)
        torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-9)


def test_two_sided_clipping() -> None:
    """TRL's delta caps every ratio, dual clip (Ye et al.) those of A < 0: the upper bound of the clip caps the rest."""
    x = tensors()
    assert ((x.new - x.old)[x.mask & (x.advantages < 0)[:, None]].exp() > 1.5).any()
    arguments = SimpleNamespace(delta=1.5, steps_per_generation=1, use_bias_correction_kl=False)
    want, gradient = trl_loss(x, args=arguments)
    got, our_gradient = our_loss(x, "token_mean", dual_clip=1.5)
    assert got == pytest.approx(want, rel=1e-9)
    torch.testing.assert_close(our_gradient, gradient)


def test_gmpo() -> None:
    gmpo = pytest.importorskip("trl.experimental.gmpo", reason="this TRL has no GMPO")
    x = tensors()
    want, gradient = trl_loss(x, gmpo.GMPOTrainer, epsilon_low=0.4, epsilon_high=0.4)
    got, our_gradient = our_loss(x, "sequence_mean", objective="gmpo", clip_low=0.4, clip_high=0.4)
    assert got == pytest.approx(want, rel=1e-6)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-9)


def test_rloo_on_policy() -> None:
    """TRL's RLOO is a sum over a response's tokens, mean over responses; ours the same over the cap, a fixed scale."""
    rloo = pytest.importorskip("trl.trainer.rloo_trainer", reason="this TRL has no RLOO")
    x = tensors()
    x.new = x.old.clone()
    _, gradient = trl_loss(x, rloo.RLOOTrainer)
    _, ours = our_loss(x, "constant", objective="reinforce")
    torch.testing.assert_close(ours * CAP, gradient)


def test_the_adaptive_entropy_coefficient() -> None:
    """The coefficient that acts and the one kept, over a run of entropies on both sides of the target."""
    x = tensors()
    x.advantages = torch.zeros(B, dtype=torch.float64)
    arguments = SimpleNamespace(
        delta=None, steps_per_generation=1, use_bias_correction_kl=False, entropy_target=1.0, entropy_coef_delta=0.01,
        entropy_coef_max=0.05, entropy_coef_min=0.0,
    )  # fmt: skip
    state = {"entropy_coef": 0.02, "_last_world_entropy": 0.0}
    ours, acting = 0.02, 0.02
    for mean in (0.5, 0.8, 1.4, 1.2, 0.9):
        x.entropy = torch.full((B, T), mean, dtype=torch.float64)
        stub = {**state, "use_adaptive_entropy": True, "_entropy_bonus_enabled": True, "_entropy_window_stats": None}
        holder = SimpleNamespace(**stub)
        want, _ = _entropy_step(x, holder, arguments)
        assert -want / mean == pytest.approx(acting)
        state = {"entropy_coef": holder.entropy_coef, "_last_world_entropy": holder._last_world_entropy}
        acting, ours = entropy_coefficient(ours, mean, target=1.0, delta=0.01, maximum=0.05)
        assert ours == pytest.approx(holder.entropy_coef)


def _entropy_step(x: SimpleNamespace, holder: SimpleNamespace, arguments: SimpleNamespace) -> tuple[float, Tensor]:
    """One call of TRL's loss whose controller state lives in `holder`."""

    class Trainer:
        @staticmethod
        def _compute_loss(stub: Any, model: Any, inputs: Any) -> Tensor:
            for name, value in vars(stub).items():
                if not hasattr(holder, name):
                    setattr(holder, name, value)
            return trl_grpo.GRPOTrainer._compute_loss(holder, model, inputs)

    return trl_loss(x, Trainer, args=arguments)


REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(("scale", "name"), [("std", "group"), ("none", "none"), ("batch_std", "batch")])
def test_advantages_by_trls_formulas(scale: str, name: str) -> None:
    """TRL computes them inside generation, which no stub reaches: its lines as formulas, with its eps of 1e-4."""
    centred = REWARDS - REWARDS.mean(1, keepdim=True)
    spread = {"group": REWARDS.std(1, keepdim=True), "batch": REWARDS.std(), "none": torch.tensor(1 - 1e-4)}[name]
    got = group_advantages(REWARDS, scale=scale, eps=1e-4)
    torch.testing.assert_close(got.double(), centred / (spread + 1e-4), rtol=1e-6, atol=1e-6)


def test_leave_one_out_by_trls_formula() -> None:
    others = (REWARDS.sum(1, keepdim=True) - REWARDS) / (REWARDS.shape[1] - 1)
    got = group_advantages(REWARDS, baseline="leave_one_out", scale="none")
    torch.testing.assert_close(got.double(), REWARDS - others, rtol=1e-6, atol=1e-6)


def test_gdpo_by_trls_formula() -> None:
    parts = torch.stack([REWARDS, REWARDS.flip(1) * 3.0])
    apart = (parts - parts.mean(2, keepdim=True)) / (parts.std(2, keepdim=True) + 1e-4)
    total = apart[0] + 0.5 * apart[1]
    want = (total - total.mean()) / (total.std() + 1e-4)
    got = per_reward_advantages(parts, [1.0, 0.5], eps=1e-4)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    assert math.isfinite(got.sum())

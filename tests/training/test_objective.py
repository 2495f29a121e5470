"""The loss of a micro-batch with everything on it, against plain log-softmax and autograd; which way each part pulls.

Why this matters: a bonus with the wrong sign, a mask on the denominator or a weight on the wrong term trains something
else, and the loss still falls.

Not exercised here: each algorithm alone (tests/algorithms), advantages (test_credit.py), cutting up (test_presets.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from r1kit.models.decoder import Decoder
from r1kit.training.examples import Example, at_trained_tokens, micro_batches
from r1kit.training.objective import Scales, micro_loss
from r1kit.training.parallel import World
from r1kit.training.roles import Roles
from r1kit.training.update import update

from .helpers import random_groups, rl_settings, session, tiny_model

WORLD = World.single()


def examples(seed: int = 0) -> list[Example]:
    """Responses with advantages of both signs, some of them right, a correction's weights, and a mask of tokens."""
    random = np.random.default_rng(seed)
    found = []
    for i, rollout in enumerate(r for g in random_groups(4, seed) for r in g):
        example = Example.of(rollout, float(random.normal()))
        size = len(example.inputs)
        weights, carries = random.random(size), random.random(size) < 0.5
        found.append(
            replace(
                example,
                weights=weights.astype(np.float32),
                carries=carries.astype(np.float32),
                outcome=float(i % 3 == 0),
            )
        )
    return found


def plain(model: Decoder, all_examples: list[Example], scales: Scales, settings: Any, reference: Decoder) -> Tensor:
    """The same loss, one response after another, over whole logits."""
    a, total = settings.algorithm, torch.zeros(())
    for e in all_examples:
        tokens = micro_batches([e], 400, WORLD)[0]

        def logp_of(network: Decoder, tokens: Any = tokens) -> Tensor:
            logits = network.logits(tokens.forward(network)) / tokens.temperatures_T[:, None]
            return torch.log_softmax(logits, -1)

        logp_TV = logp_of(model)
        logp = logp_TV.gather(1, tokens.targets_T[:, None])[:, 0]
        entropy = -(logp_TV.exp() * logp_TV).sum(-1)
        weight = 1.0 / e.trained_tokens if a.aggregation == "sequence_mean" else 1.0
        correction, carries = (torch.from_numpy(x[e.mask]) for x in (e.weights, e.carries))
        advantage = float(e.advantages[0])
        log_ratio = logp - torch.from_numpy(e.old_logprobs[e.mask])
        if a.objective == "gspo":
            log_ratio = log_ratio.mean().expand(len(logp))
        ratio = log_ratio.exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - a.clip_low, 1 + a.clip_high) * advantage)
        total = total - (gain * weight * correction * carries).sum() / scales.z
        if a.kl_coef:
            theirs = logp_of(reference).detach().gather(1, tokens.targets_T[:, None])[:, 0]
            k = theirs - logp
            value = k.exp() - 1 - k if a.kl_estimator == "k3" else k**2 / 2
            total = total + a.kl_coef * (value * weight).sum() / scales.z
        total = total - scales.entropy_coef * entropy.sum() / scales.tokens
        if e.outcome == 1.0:
            total = total - a.positive_nll * logp.sum() / scales.positive_tokens
    return total


ALGORITHMS: dict[str, dict[str, Any]] = {
    "all of it": {"kl_coef": 0.2, "positive_nll": 0.1, "aggregation": "sequence_mean"},
    "token mean": {"kl_coef": 0.2, "positive_nll": 0.3, "kl_estimator": "k2"},
    "a sequence's ratio": {"objective": "gspo", "clip_low": 0.1, "clip_high": 0.1, "aggregation": "sequence_mean"},
}


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_loss_and_gradient_equal_the_plain_ones(algorithm: dict[str, Any]) -> None:
    settings = rl_settings(algorithm=algorithm, token_budget=60)
    everything, model, reference = examples(), tiny_model(), tiny_model(seed=9).requires_grad_(False)
    scales = Scales.of(everything, settings, entropy_coef=0.05)
    roles = Roles(reference if settings.algorithm.kl_coef else None)
    loss = torch.zeros(())
    for tokens in micro_batches(everything, settings.token_budget, WORLD):
        part, metrics = micro_loss(model, tokens, scales, settings, roles)
        part.backward()
        loss += part.detach()
        assert metrics["tokens"] > 0
    other = tiny_model()
    want = plain(other, everything, scales, settings, reference)
    want.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_correction_that_masks_every_token_leaves_the_kl_whole() -> None:
    """Where engine and trainer disagree says nothing of how far the policy may go from its reference."""
    settings, gradients = rl_settings(algorithm={"kl_coef": 0.2}), []
    roles = Roles(tiny_model(seed=9).requires_grad_(False))
    masked = [replace(e, weights=np.zeros_like(e.weights)) for e in examples()]
    without_policy_term = [replace(e, weights=None, advantages=np.zeros_like(e.advantages)) for e in masked]
    for silent in (masked, without_policy_term):
        model = tiny_model()
        for tokens in micro_batches(silent, 400, WORLD):
            micro_loss(model, tokens, Scales.of(silent, settings), settings, roles)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[1].norm() > 0
    torch.testing.assert_close(*gradients)


def means(model: Decoder, everything: list[Example]) -> tuple[float, float]:
    """(mean entropy, mean log-prob of the tokens of right responses)."""
    logprobs, entropy = (
        at_trained_tokens(lambda tokens, i=i: tokens.logprobs(model)[i], everything, 400, WORLD) for i in (0, 1)
    )
    right = np.concatenate([np.full(e.trained_tokens, e.outcome == 1.0) for e in everything])
    return entropy.mean().item(), logprobs[torch.from_numpy(right)].mean().item()


@pytest.mark.parametrize(
    ("algorithm", "which", "changes"),
    [
        ({"entropy": {"coef": 1.0}}, 0, {}),
        ({"positive_nll": 1.0}, 1, {"token_budget": 40}),
    ],
)
def test_one_step_moves_what_it_is_for(algorithm: dict[str, Any], which: int, changes: dict[str, Any]) -> None:
    """Equal rewards: the policy term is silent, the other one raises entropy, or the log-prob of right responses."""
    groups = [replace(g, rollouts=tuple(r.scored({}, {"accuracy": 1.0}) for r in g)) for g in random_groups(4)]
    state = session()
    settings = rl_settings(algorithm=algorithm, **changes)
    roles = Roles()
    roles.entropy.acting = roles.entropy.kept = settings.algorithm.entropy.coef
    everything = [Example.of(r) for g in groups for r in g]
    before = means(state.model, everything)[which]
    update(state, groups, settings, 1.0, roles)
    assert means(state.model, everything)[which] > before


def test_only_the_forking_tokens_carry_the_policy_gradient() -> None:
    """With the top fifth by entropy: as if every other token had advantage 0, over the same denominator."""
    groups, share = random_groups(5), 0.2
    settings = rl_settings(algorithm={"entropy": {"top_share": share}})
    state = session()
    update(state, groups, settings, 0.0, Roles())
    everything = [Example.of(r) for g in groups for r in g]
    entropy = at_trained_tokens(lambda tokens: tokens.logprobs(tiny_model())[1], everything, 400, WORLD)
    keep = entropy >= torch.quantile(entropy, 1 - share)
    assert 0.15 < keep.float().mean() < 0.3
    other = session()
    for p in other.flat.parameters:
        assert not p.grad.any()
    start, masked = 0, []
    rewards = np.concatenate([g.rewards - g.rewards.mean() for g in groups])
    for e, advantage in zip(everything, rewards, strict=True):
        own = keep[start : start + e.trained_tokens].numpy()
        masked.append(replace(e, advantages=e.along((own * advantage).astype(np.float32))))
        start += e.trained_tokens
    scales = Scales.of(masked, settings)
    for tokens in micro_batches(masked, 400, WORLD):
        micro_loss(other.model, tokens, scales, settings, Roles())[0].backward()
    torch.testing.assert_close(state.flat.grad, other.flat.grad, rtol=1e-4, atol=1e-7)

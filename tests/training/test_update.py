"""One policy update against the same update written out in NumPy, and cut up in every way that must not matter.

Why this matters: this is the step that learns. An advantage at the wrong token, a denominator that depends on the
micro-batch or a flipped sign still trains something; only an oracle and invariance tell that it is the objective.

Not exercised here: the pieces on their own (tests/algorithms); sampling (test_sampling.py); that a run learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.decoder import Decoder
from r1kit.records import Group, Rollout
from r1kit.training import packing
from r1kit.training.examples import Example, MicroTokens
from r1kit.training.objective import Scales, micro_loss
from r1kit.training.parallel import World
from r1kit.training.roles import Roles
from r1kit.training.update import update

from .helpers import (
    UPDATE_CASES,
    UpdateCase,
    random_groups,
    rl_settings,
    session,
    tiny_model,
    updated,
    with_rewards,
)
from .ranks import Results


def logits_of(model: Decoder, rollout: Rollout) -> np.ndarray:
    """Next-token scores at every position but the last, for one sequence alone: float64 [T - 1, V]."""
    ids = torch.from_numpy(rollout.token_ids[:-1].astype(np.int64))
    segments = [Segment(1, len(ids))]
    with torch.no_grad():
        hidden = model(ids, positions(segments), packed_attention(segments))
        return model.logits(hidden).double().numpy()


def logprobs_of(model: Decoder, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
    """(log-prob, entropy) of each token of the response that was sampled, at its own temperature."""
    chosen = rollout.loss_mask[1:]
    scaled = logits_of(model, rollout)[chosen] / rollout.temperatures[1:][chosen, None].astype(np.float64)
    logp = scaled - np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1, keepdims=True))
    logp -= scaled.max(1, keepdims=True)
    targets = rollout.token_ids[1:][chosen]
    return logp[np.arange(len(targets)), targets], -(np.exp(logp) * logp).sum(1)


def advantages_of(group: Group, scale: str) -> np.ndarray:
    centred = group.rewards - group.rewards.mean()
    if scale == "none" or not centred.any():
        return centred
    return centred / (group.rewards.std(ddof=1) + 1e-6)


def token_gain(ratio: float, advantage: float, a: Any) -> float:
    """phi of the policy loss for one token, case by case."""
    if advantage >= 0:
        return min(ratio, 1 + a.clip_high) * advantage
    gain = max(ratio, 1 - a.clip_low) * advantage
    return gain if a.dual_clip is None else max(gain, a.dual_clip * advantage)


def kl_of(log_policy: float, log_reference: float, estimator: str) -> float:
    k = log_policy - log_reference
    return {"k2": k * k / 2, "k3": np.exp(-k) - 1 + k}[estimator]


def oracle(groups: Sequence[Group], model: Decoder, reference: Decoder | None, settings: Any) -> dict[str, float]:
    """Loss and metrics of the whole step, one token after another."""
    a = settings.algorithm
    rollouts = [r for g in groups for r in g]
    lengths = [int(r.loss_mask.sum()) for r in rollouts]
    z = {
        "token_mean": sum(lengths),
        "sequence_mean": len(rollouts),
        "constant": len(rollouts) * settings.sampling.max_tokens,
    }[a.aggregation]
    advantages = np.concatenate([advantages_of(g, a.advantage) for g in groups])
    sums = dict.fromkeys(("loss", "ratio", "clip_low", "clip_high", "approx_kl", "entropy", "kl"), 0.0)
    for rollout, length, advantage in zip(rollouts, lengths, advantages, strict=True):
        weight = 1 / length if a.aggregation == "sequence_mean" else 1.0
        ours, entropies = logprobs_of(model, rollout)
        theirs = ours if reference is None else logprobs_of(reference, rollout)[0]
        old = rollout.logprobs[rollout.loss_mask].astype(np.float64)
        for new, before, other, entropy in zip(ours, old, theirs, entropies, strict=True):
            ratio = np.exp(new - before)
            kl = kl_of(new, other, a.kl_estimator)
            sums["loss"] += weight * (a.kl_coef * kl - token_gain(ratio, advantage, a)) / z
            sums["ratio"] += ratio
            sums["clip_low"] += advantage < 0 and ratio < 1 - a.clip_low
            sums["clip_high"] += advantage > 0 and ratio > 1 + a.clip_high
            sums["approx_kl"] += ratio - 1 - np.log(ratio)
            sums["entropy"] += entropy
            sums["kl"] += kl
    tokens = sum(lengths)
    return {name: value if name == "loss" else value / tokens for name, value in sums.items()}


ALGORITHMS: dict[str, dict[str, Any]] = {
    "Dr. GRPO with clip-higher": {"advantage": "none", "aggregation": "constant"},
    "GRPO with KL": {"advantage": "std", "aggregation": "sequence_mean", "clip_high": 0.2, "kl_coef": 0.3},
    "DAPO": {"advantage": "std", "aggregation": "token_mean"},
    "dual clip": {"dual_clip": 1.5, "kl_coef": 0.0},
    "k2": {"kl_coef": 0.5, "kl_estimator": "k2"},
}


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_loss_and_metrics_equal_the_oracle(algorithm: dict[str, Any]) -> None:
    groups = random_groups(5)
    settings = rl_settings(algorithm={"clip_low": 0.2, "clip_high": 0.28, **algorithm}, token_budget=64)
    reference = tiny_model(seed=9).requires_grad_(False) if settings.algorithm.kl_coef else None
    want = oracle(groups, tiny_model(), reference, settings)
    got = update(session(), groups, settings, 1.0, Roles(reference))
    assert want["clip_low"] > 0
    assert want["clip_high"] > 0
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
    assert got["tokens_trained"] == sum(r.loss_mask.sum() for g in groups for r in g)
    assert got["grad_norm"] > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_the_gradient_equals_finite_differences_of_the_oracle(algorithm: dict[str, Any]) -> None:
    """Along a random direction in the space of all weights, in float64 with a step small enough for no clip to flip."""
    groups = random_groups(3)
    settings = rl_settings(algorithm={"clip_low": 0.2, "clip_high": 0.28, **algorithm})
    reference = tiny_model(seed=9).requires_grad_(False) if settings.algorithm.kl_coef else None
    state = session()
    update(state, groups, settings, 0.0, Roles(reference))
    generator = torch.Generator().manual_seed(0)
    directions = {n: torch.randn(p.shape, generator=generator).double() for n, p in tiny_model().named_parameters()}
    views = state.flat.named_views(state.flat.grad)
    slope = sum((views[name].double() * direction).sum().item() for name, direction in directions.items())

    def moved(step: float) -> float:
        model = tiny_model(dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(directions[name], alpha=step)
        return oracle(groups, model, reference, settings)["loss"]

    step = 1e-6
    assert slope == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("case", [c for c in UPDATE_CASES if c != "whole"])
def test_how_the_step_is_cut_up_does_not_matter(case: str, aggregation: str) -> None:
    whole = updated(World.single(), UpdateCase(aggregation=aggregation))
    parts = updated(World.single(), replace(UPDATE_CASES[case], aggregation=aggregation))
    assert_same_update(parts, whole)


@pytest.mark.parametrize("case", UPDATE_CASES)
def test_two_ranks_make_the_same_step_as_one(case: str, two_ranks: Results) -> None:
    alone = updated(World.single(), UPDATE_CASES["whole"])
    for rank in two_ranks["update"]:
        assert_same_update({name: rank[f"{case}/{name}"] for name in alone}, alone)


def assert_same_update(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """The gradient as a vector, and every metric but the padding, to 1e-5."""
    difference = np.linalg.norm(got["grad"] - want["grad"])
    assert difference <= 1e-5 * np.linalg.norm(want["grad"])
    np.testing.assert_allclose(got["metrics"], want["metrics"], rtol=1e-5, atol=1e-7)


def test_the_cases_do_differ_in_padding() -> None:
    """Otherwise the invariance above would compare a plan with itself."""
    padding = {name: float(updated(World.single(), UPDATE_CASES[name])["padding"]) for name in UPDATE_CASES}
    assert padding["no padding"] == 0.0
    assert padding["much padding"] > 0.15


def on_policy(groups: Sequence[Group], model: Decoder) -> list[Group]:
    """The same groups as if `model` itself had sampled them: every ratio is 1."""
    result = []
    for group in groups:
        rollouts = []
        for rollout in group:
            logprobs = np.zeros(len(rollout.token_ids), np.float32)
            logprobs[rollout.loss_mask] = logprobs_of(model, rollout)[0]
            rollouts.append(replace(rollout, logprobs=logprobs))
        result.append(replace(group, rollouts=tuple(rollouts)))
    return result


def test_on_policy_the_ratio_is_one_and_nothing_is_clipped() -> None:
    metrics = update(session(), on_policy(random_groups(4), tiny_model()), rl_settings(), 1.0, None)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_low"] == metrics["clip_high"] == 0.0
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)


def test_flipping_the_rewards_flips_the_gradient() -> None:
    groups = on_policy(random_groups(4), tiny_model())
    gradients = []
    for factor in (1.0, -1.0):
        state = session()
        update(state, with_rewards(groups, factor), rl_settings(), 1.0, None)
        gradients.append(state.flat.grad.clone())
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], -gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_a_step_makes_better_responses_likelier(factor: float) -> None:
    """The sign of the whole chain: after one step the log-probs of rewarded responses have risen, of others fallen."""
    state = session()
    groups = with_rewards(on_policy(random_groups(4), state.model), factor)
    before = [logprobs_of(state.model, r)[0].sum() for g in groups for r in g]
    update(state, groups, rl_settings(), 1.0, None)
    after = [logprobs_of(state.model, r)[0].sum() for g in groups for r in g]
    advantage = np.concatenate([advantages_of(g, "none") for g in groups])
    assert (advantage * (np.array(after) - np.array(before))).sum() > 0


def test_equal_rewards_leave_the_weights_alone() -> None:
    state = session()
    before = state.flat.master.clone()
    metrics = update(state, with_rewards(random_groups(3), 0.0), rl_settings(), 1.0, None)
    assert metrics["grad_norm"] == 0.0
    assert torch.equal(state.flat.master, before)


def test_a_step_whose_every_token_is_masked_changes_nothing() -> None:
    """Masking truncated responses may leave none: no momentum moves the weights, no mean of nothing is recorded."""
    state = session()
    update(state, random_groups(3), rl_settings(), 1.0, None)  # so that the optimiser has momentum
    before = state.flat.master.clone()
    groups = [
        replace(g, rollouts=tuple(replace(r, loss_mask=np.zeros(len(r.token_ids), bool)) for r in g))
        for g in random_groups(3)
    ]
    metrics = update(state, groups, rl_settings(), 1.0, None)
    assert metrics == {"loss": 0.0, "grad_norm": 0.0, "tokens_trained": 0.0}
    assert torch.equal(state.flat.master, before)


def test_what_a_group_filter_leaves_out_is_counted() -> None:
    groups, filtered = random_groups(4), {"group_filter": {"kind": "gfpo", "keep": 2}}
    metrics = update(session(), groups, rl_settings(algorithm=filtered), 1.0, None)
    longest = [max(g, key=lambda r: (r.loss_mask.sum(), r.sample)) for g in groups]
    assert metrics["tokens_filtered"] == sum(r.response_length for r in longest)
    assert metrics["tokens_trained"] == sum(r.loss_mask.sum() for g in groups for r in g if r not in longest)
    assert "tokens_filtered" not in update(session(), groups, rl_settings(), 1.0, None)


def test_minibatches_are_steps_of_their_own() -> None:
    groups = random_groups(4)
    algorithm = {"minibatches": 3}
    state = session()
    metrics = update(state, groups, rl_settings(algorithm=algorithm), 1.0, None)
    assert state.optimizer.adam.count == 3
    assert metrics["tokens_trained"] == sum(r.loss_mask.sum() for g in groups for r in g)


def test_gradients_are_clipped_where_the_recipe_says_so() -> None:
    state = session()
    metrics = update(state, random_groups(3), rl_settings(grad_clip=1e-3), 1.0, None)
    assert metrics["grad_norm"] > 1e-3
    assert state.flat.grad.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_a_rollout_without_a_trained_token_weighs_nothing() -> None:
    """Every token forced: it may stand alone in a micro-batch, and the others are trained as without it."""
    group = random_groups(1)[0]
    forced = replace(group.rollouts[0], loss_mask=np.zeros(len(group.rollouts[0].token_ids), bool))
    examples = [Example.of(forced, 1.0)]
    assert examples[0].trained_tokens == 0
    tokens = MicroTokens(packing.plan([len(examples[0].inputs)], 400)[0], examples)
    loss, metrics = micro_loss(tiny_model(), tokens, Scales(7.0, 7), rl_settings(), Roles())
    loss.backward()
    assert loss.item() == 0.0
    assert metrics["tokens"] == 0.0


def test_examples_line_up_tokens_with_what_predicts_them() -> None:
    rollout = Rollout(
        problem_id="p",
        sample=0,
        prompt_length=2,
        token_ids=np.array([5, 6, 7, 8]),
        loss_mask=np.array([False, False, True, False]),
        logprobs=np.array([0.0, 0.0, -0.5, 0.0]),
        policy_versions=np.array([-1, -1, 3, -1]),
        temperatures=np.array([0.0, 0.0, 0.7, 0.0]),
        finish="length",
    )
    example = Example.of(rollout, 2.0)
    assert example.inputs.tolist() == [5, 6, 7]
    assert example.targets.tolist() == [6, 7, 8]
    assert example.mask.tolist() == [False, True, False]
    assert example.old_logprobs.tolist() == [0.0, -0.5, 0.0]
    # 1 where nothing was sampled, so that padding never divides by 0.
    assert example.temperatures.tolist() == pytest.approx([1.0, 0.7, 1.0])
    assert example.trained_tokens == 1

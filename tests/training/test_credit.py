"""From judged groups to an advantage for every trained token, method by method, against the method written out.

Why this matters: each published algorithm is a choice of baseline, scale and place of the KL. Here is where a name in a
recipe becomes numbers; a reward at the wrong token or a KL counted twice still trains.

Not exercised here: the pure functions alone (tests/algorithms); the models behind values and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.config.algorithm import AlgorithmSettings
from r1kit.records import Group, Verdict
from r1kit.training.credit import TokenScores, assign, filter_groups
from r1kit.training.examples import Example, outcome

from .helpers import random_groups

GROUPS = random_groups(4)
LENGTHS = [int(r.loss_mask.sum()) for g in GROUPS for r in g]
T = sum(LENGTHS)
DRAW = np.random.default_rng(5)
KL, VALUES, PROCESS = (torch.from_numpy(DRAW.normal(0, 0.3, T).astype(np.float32)) for _ in range(3))


def assigned(scores: TokenScores | None = None, groups: Sequence[Group] = GROUPS, **algorithm: Any) -> Any:
    settings = AlgorithmSettings.model_validate(algorithm)
    examples = [Example.of(r) for g in groups for r in g]
    return assign(groups, examples, settings, scores or TokenScores())


def by_response(flat: torch.Tensor) -> list[np.ndarray]:
    return [part.double().numpy() for part in flat.split(LENGTHS)]


def rewards() -> np.ndarray:
    return np.array([r.reward for g in GROUPS for r in g])


def of_group(i: int) -> np.ndarray:
    """Rewards of the group that response i is in (3 responses each)."""
    return rewards()[i // 3 * 3 : i // 3 * 3 + 3]


def whitened(parts: list[np.ndarray]) -> list[np.ndarray]:
    everything = np.concatenate(parts)
    return [(p - everything.mean()) / (everything.std(ddof=1) + 1e-8) for p in parts]


def assert_parts(got: torch.Tensor, want: list[np.ndarray]) -> None:
    for a, b in zip(by_response(got), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_dr_grpo_gives_every_token_its_responses_advantage() -> None:
    got = assigned(preset="dr_grpo").advantages
    assert_parts(got, [np.full(n, rewards()[i] - of_group(i).mean()) for i, n in enumerate(LENGTHS)])


def test_rloo_takes_the_kl_of_the_whole_response_before_the_baseline() -> None:
    shaped = rewards() - 0.03 * np.array([kl.sum() for kl in by_response(KL)])
    want = []
    for i, n in enumerate(LENGTHS):
        others = [shaped[j] for j in range(i // 3 * 3, i // 3 * 3 + 3) if j != i]
        want.append(np.full(n, shaped[i] - np.mean(others)))
    assert_parts(assigned(TokenScores(kl=KL), preset="rloo").advantages, want)


def test_reinforce_pp_sums_the_kl_that_follows_and_whitens_the_batch() -> None:
    want = [
        np.array([rewards()[i] - 0.01 * kl[t:].sum() for t in range(len(kl))]) for i, kl in enumerate(by_response(KL))
    ]
    assert_parts(assigned(TokenScores(kl=KL), preset="reinforce_pp").advantages, whitened(want))


def test_opo_weighs_the_baseline_by_length() -> None:
    counts = np.array(LENGTHS).reshape(-1, 3)
    want = []
    for i, n in enumerate(LENGTHS):
        baseline = (counts[i // 3] * of_group(i)).sum() / counts[i // 3].sum()
        want.append(np.full(n, rewards()[i] - baseline if np.ptp(of_group(i)) else 0.0))
    assert_parts(assigned(baseline="length_weighted").advantages, want)


@pytest.mark.parametrize("lam", [1.0, 0.9])
def test_ppo_pays_the_reward_at_the_last_token_and_the_kl_at_every_one(lam: float) -> None:
    scores = TokenScores(kl=KL, values=VALUES)
    got = assigned(scores, preset="ppo_simplerl", gae_lambda=lam, gae_lambda_critic=1.0)
    advantages, returns = [], []
    for i, (kl, values) in enumerate(zip(by_response(KL), by_response(VALUES), strict=True)):
        paid = -0.01 * kl
        paid[-1] += rewards()[i]
        after = np.append(values[1:], 0.0)
        delta = paid + after - values
        n = len(paid)
        advantages.append(np.array([sum(lam ** (s - t) * delta[s] for s in range(t, n)) for t in range(n)]))
        returns.append(np.array([paid[t:].sum() for t in range(n)]))
    assert_parts(got.returns, returns)
    assert_parts(got.advantages, whitened(advantages))


def test_vapo_adapts_lambda_to_the_length() -> None:
    """With 1 / alpha above every length lambda is 0: the advantage is the TD error; the critic's target is not."""
    got = assigned(TokenScores(values=VALUES), preset="vapo", advantage="none")
    td = []
    for i, values in enumerate(by_response(VALUES)):
        delta = np.append(values[1:], 0.0) - values
        delta[-1] += rewards()[i]
        td.append(delta)
    assert_parts(got.advantages, td)
    assert_parts(got.returns, [np.full(n, rewards()[i]) for i, n in enumerate(LENGTHS)])


def test_prime_adds_outcome_and_process() -> None:
    got = assigned(TokenScores(process=PROCESS), preset="prime", process={"coef": 2.0, "outcome_coef": 3.0}).advantages
    parts, want = by_response(PROCESS), []
    for i, own in enumerate(parts):
        others = [j for j in range(i // 3 * 3, i // 3 * 3 + 3) if j != i]
        leave_one_out = rewards()[i] - rewards()[others].mean()
        leave_one_out = leave_one_out if np.ptp(of_group(i)) else 0.0
        baseline = np.mean([parts[j].mean() for j in others])
        process = np.array([(own[t:] - baseline).sum() for t in range(len(own))])
        want.append(3.0 * leave_one_out + 2.0 * process)
    assert_parts(got, whitened(want))


def test_gdpo_gives_a_part_its_weight_again() -> None:
    """Parts carry their weights already, which normalising takes away."""
    groups = [
        replace(g, rollouts=tuple(r.scored({}, {"a": r.reward, "b": 0.1 * (r.sample == 0)}) for r in g)) for g in GROUPS
    ]
    settings = AlgorithmSettings(preset="grpo", per_reward=True)
    examples = [Example.of(r) for g in groups for r in g]
    weighted = assign(groups, examples, settings, TokenScores(), {"a": 1.0, "b": 0.1}).advantages
    equal = assign(groups, examples, settings, TokenScores(), {"a": 1.0, "b": 1.0}).advantages

    def normalised(values: np.ndarray) -> np.ndarray:
        centred = values - values.mean()
        return centred / (values.std(ddof=1) + 1e-6) if np.ptp(values) else centred

    for got, weight in ((weighted, 0.1), (equal, 1.0)):
        sums = [normalised(of_group(3 * p)) + weight * normalised(np.array([0.1, 0, 0])) for p in range(4)]
        total = np.concatenate(sums)
        total = (total - total.mean()) / (total.std(ddof=1) + 1e-6)
        assert_parts(got, [np.full(n, total[i]) for i, n in enumerate(LENGTHS)])


def test_groups_of_two_sizes_may_meet() -> None:
    """A schedule changes the group size while carried groups wait: each is compared with its own."""
    small = replace(GROUPS[0], rollouts=GROUPS[0].rollouts[:2])
    got = assigned(groups=[small, GROUPS[1]], preset="dr_grpo").advantages
    alone = torch.cat([assigned(groups=[g], preset="dr_grpo").advantages for g in (small, GROUPS[1])])
    assert torch.equal(got, alone)


def test_a_masked_response_has_no_token_but_its_reward_counts() -> None:
    first = GROUPS[0].rollouts[0]
    masked = replace(first, loss_mask=np.zeros(len(first.token_ids), bool))
    group = replace(GROUPS[0], rollouts=(masked, *GROUPS[0].rollouts[1:]))
    got = assigned(groups=[group], preset="dr_grpo").advantages
    assert len(got) == sum(LENGTHS[1:3])
    assert got[0].item() == pytest.approx(rewards()[1] - of_group(0).mean())
    rows = assigned(TokenScores(values=VALUES[: len(got)]), groups=[group], preset="ppo_orz")
    assert len(rows.returns) == len(got)


def test_filters_keep_what_they_say_whatever_the_order() -> None:
    algorithm = AlgorithmSettings(group_filter={"kind": "gfpo", "keep": 2})
    for group in GROUPS:
        kept = filter_groups([group], algorithm)[0]
        lengths = sorted(int(r.loss_mask.sum()) for r in group)
        assert sorted(int(r.loss_mask.sum()) for r in kept) == lengths[:2]
        turned = filter_groups([replace(group, rollouts=group.rollouts[::-1])], algorithm)[0]
        assert {r.sample for r in turned} == {r.sample for r in kept}
    assert filter_groups(GROUPS, AlgorithmSettings()) == GROUPS


def test_roc_drops_the_untidy_success() -> None:
    """Two right of four, one of them with a broken format: mostly the tidy one is kept, the choice stays the same."""
    kept = []
    for p in range(40):
        group = random_groups(1, seed=p)[0]
        first = group.rollouts[0]
        rollouts = tuple(
            replace(first, sample=s).scored(
                {
                    "accuracy": Verdict.scored(float(s < 2), "correct" if s < 2 else "wrong"),
                    "format": Verdict.scored(float(s != 1), "correct" if s != 1 else "wrong"),
                },
                {"accuracy": float(s < 2)},
            )
            for s in range(4)
        )
        group = replace(group, rollouts=rollouts, problem=replace(group.problem, id=first.problem_id))
        algorithm = AlgorithmSettings(group_filter={"kind": "roc", "keep": 2})
        samples = {r.sample for r in filter_groups([group], algorithm)[0]}
        assert len(samples & {0, 1}) == 1
        kept.append(0 in samples)
        again = filter_groups([replace(group, rollouts=rollouts[::-1])], algorithm)[0]
        assert {r.sample for r in again} == samples
    assert np.mean(kept) in (0.0, 1.0) or np.mean(kept) > 0.5


def test_the_outcome_is_the_verdicts_and_else_the_rewards() -> None:
    rollout = GROUPS[0].rollouts[0]
    assert outcome(rollout.scored({"accuracy": Verdict.scored(1.0, "correct")}, {"accuracy": 0.0})) == 1.0
    assert outcome(rollout.scored({}, {"accuracy": 0.5, "length": -3.0})) == 0.0
    assert outcome(rollout.scored({}, {"accuracy": 2.0})) == 1.0

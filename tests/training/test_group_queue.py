"""The replay matrix of docs/rl.md, a test for each cell: what becomes of failed, filtered, stale and truncated groups.

Why this matters: a group trained that should not be biases the run, and one dropped without a count hides that it was;
a step that finds nothing to train on has ended the runs of others.

Not exercised here: sampling, and the update on what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from r1kit.algorithms.dynamic_sampling import UsefulShare
from r1kit.records import Verdict
from r1kit.training.exchange import SampledGroup
from r1kit.training.group_queue import GroupQueue, Selection, as_trained, policy_version

from .helpers import random_group, rl_settings


def settings(wanted: int = 2, **dynamic: Any) -> Any:
    return rl_settings(problems_per_step=wanted, samples_per_problem=3, dynamic_sampling=dynamic)


def group(name: str, rewards: Sequence[float] = (0.0, 1.0, 0.0), *, version: int = 4, truncated: Sequence[int] = ()):
    """A judged group; reward 1 is right."""
    drawn = random_group(name, np.random.default_rng(len(name)), samples=len(rewards))
    rollouts = []
    for i, (rollout, reward) in enumerate(zip(drawn, rewards, strict=True)):
        verdict = Verdict.scored(float(reward == 1), "correct" if reward == 1 else "wrong")
        rollout = replace(
            rollout,
            finish="length" if i in truncated else "stopped",
            policy_versions=np.where(rollout.loss_mask, version, -1),
        )
        rollouts.append(rollout.scored({"accuracy": verdict}, {"accuracy": float(reward)}))
    return SampledGroup(replace(drawn, rollouts=tuple(rollouts)))


def failed(name: str) -> SampledGroup:
    sampled = group(name)
    lost = Verdict("error", None, "worker_lost")
    return SampledGroup(replace(sampled.group, rollouts=tuple(r.scored({"accuracy": lost}, {}) for r in sampled.group)))


def tokens(*groups: SampledGroup) -> int:
    return sum(r.response_length for g in groups for r in g.group)


def step(
    queue: GroupQueue, fresh: Sequence[SampledGroup], s: Any, *, version: int = 4, last: bool = False
) -> Selection:
    queue.begin(s, version)
    queue.add(fresh, s)
    return queue.take(s, last=last)


USEFUL, EQUAL = (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)


def test_failed_groups_are_dropped_and_counted_with_dynamic_sampling_or_without() -> None:
    for dynamic in (True, False):
        bad, good = failed("bad"), group("good")
        queue = GroupQueue({})
        found = step(queue, [bad, good], settings(enabled=dynamic))
        assert found.chosen == [good]
        assert (found.counts["groups_failed"], found.counts["tokens_discarded"]) == (1, tokens(bad))
        assert found.counts["useful_groups"] == 1.0  # of those that could be judged
        assert queue.carried == []


def test_equal_rewards_are_filtered_only_with_dynamic_sampling() -> None:
    same, useful = group("same", EQUAL), group("useful")
    found = step(GroupQueue({}), [same, useful], settings())
    assert found.chosen == [useful]
    assert (found.counts["useful_groups"], found.counts["tokens_discarded"]) == (0.5, tokens(same))
    assert (found.counts["all_wrong"], found.counts["all_right"]) == (0.5, 0.0)
    everything = step(GroupQueue({}), [same, useful], settings(enabled=False))
    assert everything.chosen == [same, useful]
    assert (everything.counts["useful_groups"], everything.counts["tokens_discarded"]) == (0.5, 0.0)


@pytest.mark.parametrize("rewards", [(-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)])
def test_a_step_that_teaches_nothing_says_so_without_dynamic_sampling(rewards: Sequence[float]) -> None:
    """All wrong at a price, and all right: trained as asked, useful to nobody."""
    queue, groups = GroupQueue({}), [group(f"g{i}", rewards) for i in range(2)]
    found = step(queue, groups, settings(enabled=False))
    assert (found.chosen, found.counts["useful_groups"]) == (groups, 0.0)
    assert queue.share == UsefulShare()  # what is drawn does not depend on it


@pytest.mark.parametrize("algorithm", [{"baseline": "critic"}, {"preset": "reinforce_pp"}])
def test_where_no_group_is_compared_the_rewards_of_the_step_have_to_differ(algorithm: dict[str, Any]) -> None:
    """A group of equal rewards teaches beside another's; what all responses of a step earn does not."""
    for samples in (1, 3):
        s = rl_settings(
            problems_per_step=2, samples_per_problem=samples, algorithm=algorithm, dynamic_sampling={"enabled": False}
        )
        right, wrong = group("right", [1.0] * samples), group("wrong", [0.0] * samples)
        assert step(GroupQueue({}), [right, wrong], s).counts["useful_groups"] == 1.0
        alike = step(GroupQueue({}), [wrong, group("no", [0.0] * samples)], s)
        assert (alike.counts["useful_groups"], alike.counts["groups_trained"]) == (0.0, 2)


def test_parts_that_are_normalised_apart_teach_though_their_sums_are_equal() -> None:
    """GDPO: rewards (1, 0) and (0, 1) of a group cancel in their sums only."""
    drawn = group("even", EQUAL)
    parts = ({"accuracy": 0.0, "length": 0.5}, {"accuracy": 0.5, "length": 0.0}, {"accuracy": 0.0, "length": 0.5})
    rollouts = tuple(r.scored(r.verdicts, p) for r, p in zip(drawn.group, parts, strict=True))
    even = SampledGroup(replace(drawn.group, rollouts=rollouts))
    for algorithm, trained in (({}, 0), ({"per_reward": True}, 1)):
        s = rl_settings(samples_per_problem=3, algorithm=algorithm)
        assert step(GroupQueue({}), [even, group("none", EQUAL)], s).counts["groups_trained"] == trained


def test_a_group_is_useful_for_what_its_filter_keeps() -> None:
    """The two shortest of three are equally wrong: the right one that is left out teaches nothing."""
    wrong = group("long", EQUAL)
    longest = max(wrong.group, key=lambda r: (r.loss_mask.sum(), r.sample))
    rollouts = tuple(r.scored(r.verdicts, {"accuracy": float(r is longest)}) for r in wrong.group)
    one = SampledGroup(replace(wrong.group, rollouts=rollouts))
    for algorithm, trained in (({}, 1), ({"group_filter": {"kind": "gfpo", "keep": 2}}, 0)):
        s = rl_settings(samples_per_problem=3, algorithm=algorithm)
        assert step(GroupQueue({}), [one, group("none", EQUAL)], s).counts["groups_trained"] == trained


def test_surplus_is_carried_in_the_order_drawn_or_discarded() -> None:
    groups = [group(f"g{i}") for i in range(4)]
    queue = GroupQueue({})
    found = step(queue, groups, settings())
    assert (found.chosen, queue.carried) == (groups[:2], groups[2:])
    assert (found.counts["carried"], found.counts["tokens_discarded"]) == (2, 0)
    # Carried ones come first in the next step.
    fresh = group("fresh")
    following = step(queue, [fresh], settings())
    assert (following.chosen, queue.carried) == (groups[2:], [fresh])
    assert following.counts["carried_in"] == 2
    dropped = step(GroupQueue({}), groups, settings(carry=False))
    assert dropped.counts["tokens_discarded"] == tokens(*groups[2:])


def test_what_is_left_over_after_the_last_step_is_discarded() -> None:
    """No step follows that could train it, so it may not vanish from the ledger."""
    groups = [group(f"g{i}") for i in range(4)]
    queue = GroupQueue({})
    found = step(queue, groups, settings(), last=True)
    assert (found.chosen, queue.carried) == (groups[:2], [])
    assert (found.counts["carried"], found.counts["tokens_discarded"]) == (0, tokens(*groups[2:]))


@pytest.mark.parametrize(("max_age", "kept"), [(None, 3), (5, 3), (2, 2), (1, 1)])
def test_stale_groups_are_dropped_by_age(max_age: int | None, kept: int) -> None:
    queue = GroupQueue({})
    queue.carried = [group(f"v{version}", version=version) for version in (4, 6, 7)]
    old = queue.carried[: 3 - kept]
    found = step(queue, [], settings(wanted=4, max_age=max_age), version=8)
    assert len(found.chosen) == kept
    assert found.counts.get("groups_stale", 0) == 3 - kept
    assert found.counts["tokens_discarded"] == tokens(*old)
    assert found.counts["carried_in"] == kept


def test_groups_of_another_size_are_trained_beside_the_others() -> None:
    """The schedule changed the group size while one waited; a group is compared with itself only."""
    queue = GroupQueue({})
    pair, three = group("pair", (0.0, 1.0)), group("three")
    queue.carried = [pair]
    found = step(queue, [three], settings())
    assert (found.chosen, found.counts.get("groups_stale", 0)) == ([pair, three], 0)


def test_truncated_responses_are_trained_or_masked_and_stay_in_the_baseline() -> None:
    cut = group("cut", (0.0, 1.0, 1.0), truncated=[0])
    found = step(GroupQueue({}), [cut], settings())
    assert as_trained(found.chosen, settings().dynamic_sampling) == [cut.group]
    masked = settings(truncated="mask").dynamic_sampling
    (trained,) = as_trained(found.chosen, masked)
    assert [bool(r.loss_mask.any()) for r in trained] == [False, True, True]
    assert trained.rewards.tolist() == cut.group.rewards.tolist()
    # All it could have taught is masked: such a group is filtered.
    nothing = group("nothing", USEFUL, truncated=[0, 1, 2])
    found = step(GroupQueue({}), [nothing], settings(truncated="mask"))
    assert (found.chosen, found.counts["useful_groups"]) == ([], 0.0)


def test_a_short_step_trains_what_it_has_or_waits() -> None:
    one, other = group("one"), group("other")
    assert step(GroupQueue({}), [one], settings()).chosen == [one]
    queue, s = GroupQueue({}), settings(when_short="wait")
    waiting = step(queue, [one], s)
    assert (waiting.chosen, waiting.counts["waited"], waiting.counts["carried"]) == ([], 1.0, 1)
    assert waiting.counts["tokens_discarded"] == 0
    full = step(queue, [other], s)
    assert (full.chosen, full.counts["waited"]) == ([one, other], 0.0)
    # After the last step nothing could train what waits.
    assert step(GroupQueue({}), [one], s, last=True).chosen == [one]


def test_no_useful_group_is_no_error() -> None:
    queue = GroupQueue({})
    found = step(queue, [group("a", EQUAL), failed("b")], settings())
    assert (found.chosen, found.counts["groups_trained"], found.counts["useful_groups"]) == ([], 0, 0.0)
    nothing = step(queue, [], settings())
    assert (nothing.chosen, nothing.counts["groups_sampled"]) == ([], 0)
    assert "all_wrong" not in nothing.counts


def test_rounds_ask_again_within_the_bound() -> None:
    """First as many as are wanted; then by the share that was useful; never more than max_factor times the batch."""
    s = settings(wanted=4, max_factor=3.0, rounds=9)
    queue = GroupQueue({})
    queue.begin(s, 0)
    asked = []
    while count := queue.problems(s):
        asked.append(count)
        queue.add([group(f"r{len(asked)}-{i}", USEFUL if i == 0 else EQUAL) for i in range(count)], s)
    assert asked[0] == 4
    assert sum(asked) <= 12
    assert len(queue.take(s, last=False).chosen) == len(asked) < 4
    # Enough after the first round: no second.
    queue.begin(s, 0)
    queue.add([group(f"g{i}") for i in range(4)], s)
    assert queue.problems(s) == 0
    # Without dynamic sampling a step is drawn once.
    plain = settings(wanted=4, enabled=False, rounds=9)
    queue.begin(plain, 0)
    queue.add([group("a", EQUAL)], plain)
    assert queue.problems(plain) == 0


def test_the_state_brings_back_share_and_carried_groups() -> None:
    queue = GroupQueue({})
    step(queue, [group(f"g{i}", USEFUL if i else EQUAL) for i in range(4)], settings())
    again = GroupQueue(queue.state())
    assert (again.share, again.carried) == (UsefulShare().observe(3, 4), queue.carried)
    assert again.carried[0].group == queue.carried[0].group


def test_an_empty_response_has_no_version() -> None:
    empty = group("empty")
    rollouts = tuple(replace(r, loss_mask=np.zeros_like(r.loss_mask)) for r in empty.group)
    assert policy_version(replace(empty.group, rollouts=rollouts)) == 4
    unsampled = tuple(replace(r, policy_versions=np.full_like(r.policy_versions, -1)) for r in empty.group)
    assert policy_version(replace(empty.group, rollouts=unsampled)) == -1

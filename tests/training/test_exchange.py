"""Groups as bytes and back.

Why this matters: these bytes are what other ranks train on and what a checkpoint carries to the next step. A log-prob
rounded on the way makes the ratio differ from 1 and the run differ from its resumed twin.

Not exercised here: the wire itself (test_parallel.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from r1kit.records import Group, Verdict
from r1kit.training.exchange import SampledGroup, interleave, pack_groups, unpack_groups
from r1kit.training.parallel import World

from .helpers import random_groups

SKIP = Verdict("skip", None, "gold_invalid")
ONE_GROUP = random_groups(1)[0]


def judged(groups: list[Group]) -> list[SampledGroup]:
    """Groups with everything a record can hold: verdicts, weighted parts, text beyond ASCII, odd floats."""
    sampled = []
    for group in groups:
        verdicts = {"accuracy": Verdict.scored(1.0, "correct", extracted="(3+6)-5", seconds=0.1), "format": SKIP}
        rollouts = tuple(
            replace(r.scored(verdicts, {"accuracy": 0.1 + 0.2, "format": 1 / 3}), text="<think>é\n\u2028 好")
            for r in group
        )
        statistics = tuple({"attempts": 3.0, "verdict_right": 1 / 7} for _ in rollouts)
        sampled.append(SampledGroup(replace(group, rollouts=rollouts), statistics))
    return sampled


def test_the_round_trip_is_exact() -> None:
    groups = judged(random_groups(5))
    again = unpack_groups(pack_groups(groups))
    assert len(again) == len(groups)
    for got, want in zip(again, groups, strict=True):
        assert got.statistics == want.statistics
        assert got.group.problem == want.group.problem
        assert list(got.group) == list(want.group)
        for ours, theirs in zip(got.group, want.group, strict=True):
            for name in ("token_ids", "loss_mask", "logprobs", "policy_versions", "temperatures"):
                a, b = getattr(ours, name), getattr(theirs, name)
                assert a.dtype == b.dtype
                assert a.tobytes() == b.tobytes()


def test_packing_again_gives_the_same_bytes() -> None:
    data = pack_groups(judged(random_groups(3)))
    assert pack_groups(unpack_groups(data)) == data


def test_a_rollout_that_failed_at_once_has_no_response() -> None:
    group = random_groups(1)[0]
    first = group.rollouts[0]
    cut = {name: getattr(first, name)[: first.prompt_length] for name in first._ARRAYS}
    failed = replace(group, rollouts=(replace(first, **cut, finish="failed"), *group.rollouts[1:]))
    again = unpack_groups(pack_groups([SampledGroup(failed)]))[0]
    assert again.group.rollouts[0].response_length == 0
    assert again.group.failed


def test_nothing_is_something_too() -> None:
    assert unpack_groups(pack_groups([])) == []


@given(st.integers(0, 12), st.integers(1, 5))
def test_interleave_undoes_the_sharding(count: int, size: int) -> None:
    numbered = [SampledGroup(ONE_GROUP, ({"number": float(i)},)) for i in range(count)]
    shards = [World(rank, size).shard(numbered) for rank in range(size)]
    assert interleave(shards) == numbered


def test_extreme_floats_survive() -> None:
    group = random_groups(1)[0]
    values = np.array([-0.0, -1e-45, -3.4e38, -87.33654], dtype=np.float32)
    rollout = group.rollouts[0]
    logprobs = rollout.logprobs.copy()
    logprobs[: len(values)] = values[: len(logprobs)]
    odd = replace(group, rollouts=(replace(rollout, logprobs=logprobs),))
    again = unpack_groups(pack_groups([SampledGroup(odd)]))[0].group.rollouts[0]
    assert again.logprobs.tobytes() == logprobs.tobytes()

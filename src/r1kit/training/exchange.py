"""Groups as bytes: what one rank sampled, made known to all of them, and what a checkpoint carries over.

A JSON header holds everything but the token arrays, which follow as raw little-endian bytes; floats come back bit for
bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from r1kit.records import Group, Problem, Rollout

_ARRAYS: dict[str, np.dtype[Any]] = {
    "token_ids": np.dtype("<i4"),
    "loss_mask": np.dtype("<u1"),
    "logprobs": np.dtype("<f4"),
    "policy_versions": np.dtype("<i4"),
    "temperatures": np.dtype("<f4"),
}


@dataclass(frozen=True)
class SampledGroup:
    """A judged group and the behaviour statistics of its rollouts, one mapping each."""

    group: Group
    statistics: tuple[Mapping[str, float], ...] = field(default_factory=tuple)


def pack_groups(groups: Iterable[SampledGroup]) -> bytes:
    """Groups as one byte string; `unpack_groups` is its exact inverse."""
    header: list[dict[str, Any]] = []
    body: list[bytes] = []
    for sampled in groups:
        rollouts = []
        for rollout in sampled.group:
            row = {
                "sample": rollout.sample,
                "prompt_length": rollout.prompt_length,
                "length": len(rollout.token_ids),
                "finish": rollout.finish,
                "text": rollout.text,
                "verdicts": {name: v.to_json() for name, v in rollout.verdicts.items()},
                "rewards": dict(rollout.rewards),
            }
            rollouts.append(row)
            body.extend(getattr(rollout, name).astype(dtype).tobytes() for name, dtype in _ARRAYS.items())
        statistics = [dict(s) for s in sampled.statistics]
        header.append({"problem": sampled.group.problem.to_json(), "rollouts": rollouts, "statistics": statistics})
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(body)


def unpack_groups(data: bytes) -> list[SampledGroup]:
    """The groups of `pack_groups`."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    offset = 8 + size
    groups: list[SampledGroup] = []
    for entry in header:
        problem = Problem.from_json(entry["problem"])
        rollouts = []
        for row in entry["rollouts"]:
            length = int(row.pop("length"))
            for name, dtype in _ARRAYS.items():
                row[name] = np.frombuffer(data, dtype=dtype, count=length, offset=offset)
                offset += length * dtype.itemsize
            rollouts.append(Rollout.from_json({"problem_id": problem.id, **row}))
        groups.append(SampledGroup(Group(problem, tuple(rollouts)), tuple(entry["statistics"])))
    return groups


def interleave(shards: Sequence[Sequence[SampledGroup]]) -> list[SampledGroup]:
    """Undo `World.shard`: rank r held items r, r + size, ...; the result is in the order before sharding."""
    longest = max((len(shard) for shard in shards), default=0)
    return [shard[i] for i in range(longest) for shard in shards if i < len(shard)]

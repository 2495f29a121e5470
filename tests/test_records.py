"""Why this matters: what was sampled is stored and read again as records; a pair that is not exact loses something.

Not exercised: the records' own checks, which the rooms that make records meet.
"""

from __future__ import annotations

import json

import pytest

from r1kit.records import Group, Message, Problem, Rollout, Verdict

PROBLEM = Problem(
    "p",
    (Message("system", "be brief"), Message("user", "3,5,6>13")),
    "countdown",
    {"numbers": (3, 5, 6), "nested": {"tests": ((1, "a"), [2, "b"])}, "target": 13},
    difficulty=0.5,
    metadata={"witness": ("3", "+")},
)
VERDICT = Verdict.scored(1.0, "correct", extracted="3+10", voter="exact")
ROLLOUT = Rollout(
    "p", 0, 1, [4, 9, 2], [False, True, True], [0, -0.1, -1e-7], [-1, 3, 3], [0, 1, 1],
    "stopped", "ñ\u2028", {"accuracy": VERDICT}, {"accuracy": 1.0},
)  # fmt: skip


@pytest.mark.parametrize(
    "record", [PROBLEM, VERDICT, ROLLOUT, Group(PROBLEM, (ROLLOUT,))], ids=lambda r: type(r).__name__
)
def test_records_come_back_equal(record: Problem | Verdict | Rollout | Group) -> None:
    assert type(record).from_json(record.to_json()) == record
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_groups_of_other_rollouts_differ() -> None:
    other = ROLLOUT.scored({"accuracy": VERDICT}, {"accuracy": 0.5})
    assert Group(PROBLEM, (other,)) != Group(PROBLEM, (ROLLOUT,))
    assert Group(PROBLEM, (ROLLOUT,)) != ROLLOUT

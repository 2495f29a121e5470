"""Why this matters: a user's reward of three lines must work as it stands, and whatever it does wrong must cost a group
its reward, be said once in the user's own terms, and never become a number.

Not exercised: loading (tests/verifiers/test_user.py).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from .helpers import PROBLEM, reward_of, rollout

FUNCTIONS = """\
import numpy as np

def brief(problem, rollout):
    return 1 / rollout.response_length

def ranks(problem, rollouts):
    order = sorted(r.response_length for r in rollouts)
    return [order.index(r.response_length) for r in rollouts]

def right(problem, rollout):
    return rollout.verdicts["accuracy"].correct

def broken(problem, rollout):
    return {}["nothing here"]

def text(problem, rollout):
    return "good"

def forgot(problem, rollout):
    1.0

def infinite(problem, rollout):
    return float("inf")

def short(problem, rollouts):
    return [1.0]

def huge(problem, rollout):
    return 10**400

def scalar(problem, rollouts):
    return np.array(1.0)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def rewards(file: Path, name: str, times: int = 1, **settings: Any) -> tuple[list[dict[str, float]], dict[str, int]]:
    reward = reward_of({"parts": {"accuracy": {}, "mine": {"function": f"{file}:{name}", **settings}}})
    group = [rollout(length=4), rollout(length=2, sample=1)]
    for _ in range(times):
        found = reward(PROBLEM, group, max_tokens=9, step=1)
    return found, dict(reward.failures)


def test_a_function_of_a_rollout_and_one_of_a_group(file: Path) -> None:
    found, _ = rewards(file, "brief", weight=2)
    assert found == [{"accuracy": 1.0, "mine": 0.5}, {"accuracy": 1.0, "mine": 1.0}]
    assert [row["mine"] for row in rewards(file, "ranks", group=True)[0]] == [1.0, 0.0]
    assert [row["mine"] for row in rewards(file, "right")[0]] == [1.0, 1.0]


def test_an_exception_costs_the_group_its_reward_and_is_shown_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        found, failures = rewards(file, "broken", times=5)
    assert found == [{}, {}]
    assert failures == {"mine": 5}
    assert len(caplog.records) == 1
    assert f'File "{file}", line 14, in broken' in caplog.text
    assert "KeyError: 'nothing here'" in caplog.text
    # The user's traceback, not ours.
    assert "r1kit/" not in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("name", "group", "told"),
    [
        ("text", False, "returned 'good': return a finite number"),
        ("forgot", False, "returned None: return a finite number"),
        ("infinite", False, "returned inf: return a finite number"),
        ("short", True, "returned [1.0]: return a list of 2 finite numbers, one for each rollout"),
        ("huge", False, "return a finite number"),
        ("scalar", True, "return a list of 2 finite numbers"),
        ("brief", True, "raised AttributeError"),
    ],
)
def test_wrong_results_say_what_to_return(
    file: Path, name: str, group: bool, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        found, failures = rewards(file, name, group=group)
    assert found == [{}, {}]
    assert failures == {"mine": 1}
    assert told in caplog.text

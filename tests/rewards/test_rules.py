"""Why this matters: the reward is the objective. Each kind is checked on all four combinations of right and
well-formed, the overlong part against the paper's piecewise formula.

Not exercised: how rewards become advantages (algorithms).
"""

from __future__ import annotations

import numpy as np
import pytest

from r1kit.config.parts import OverlongSettings, RewardSettings
from r1kit.records import Message, Problem, Rollout, Verdict
from r1kit.rewards import make_reward, overlong_penalty

PROBLEM = Problem("p", (Message("text", "Q:1,2,3>6\n"),), "countdown", {"numbers": [1, 2, 3], "target": 6})
RIGHT, WRONG = Verdict.scored(1, "correct"), Verdict.scored(0, "wrong")


def rollout(accuracy: Verdict, well_formed: Verdict, length: int = 10) -> Rollout:
    tokens = 3 + length
    sampled = np.arange(tokens) >= 3
    return Rollout(
        problem_id="p",
        sample=0,
        prompt_length=3,
        token_ids=np.zeros(tokens),
        loss_mask=sampled,
        logprobs=np.zeros(tokens),
        policy_versions=np.where(sampled, 0, -1),
        temperatures=sampled.astype(np.float32),
        finish="stopped",
        verdicts={"accuracy": accuracy, "format": well_formed},
    )


@pytest.mark.parametrize(
    ("kind", "accuracy", "well_formed", "parts"),
    [
        ("tinyzero", RIGHT, RIGHT, {"accuracy": 1.0, "format": 0.0}),
        ("tinyzero", RIGHT, WRONG, {"accuracy": 1.0, "format": 0.0}),
        ("tinyzero", WRONG, RIGHT, {"accuracy": 0.0, "format": 0.1}),
        ("tinyzero", WRONG, WRONG, {"accuracy": 0.0, "format": 0.0}),
        ("r1_zero", RIGHT, RIGHT, {"accuracy": 1.0, "format": 1.0}),
        ("r1_zero", RIGHT, WRONG, {"accuracy": 1.0, "format": 0.0}),
        ("r1_zero", WRONG, RIGHT, {"accuracy": 0.0, "format": 1.0}),
        ("r1_zero", WRONG, WRONG, {"accuracy": 0.0, "format": 0.0}),
    ],
)
def test_kinds(kind: str, accuracy: Verdict, well_formed: Verdict, parts: dict[str, float]) -> None:
    reward = make_reward(RewardSettings(kind=kind))  # type: ignore[arg-type]
    assert reward(PROBLEM, rollout(accuracy, well_formed), max_tokens=240) == parts


def test_weights_replace_the_kinds_own() -> None:
    reward = make_reward(RewardSettings(kind="r1_zero", weights={"format": 0.5}))
    assert reward(PROBLEM, rollout(RIGHT, RIGHT), max_tokens=240) == {"accuracy": 1.0, "format": 0.5}


@pytest.mark.parametrize(
    ("length", "penalty"), [(1, 0.0), (180, 0.0), (181, -1 / 60), (210, -0.5), (240, -1.0), (300, -1.0)]
)
def test_overlong_follows_the_paper(length: int, penalty: float) -> None:
    assert overlong_penalty(length, 240, 60) == pytest.approx(penalty)
    reward = make_reward(RewardSettings(overlong=OverlongSettings(buffer=60, penalty=0.5)))
    parts = reward(PROBLEM, rollout(RIGHT, RIGHT, length), max_tokens=240)
    assert parts["overlong"] == pytest.approx(0.5 * penalty)
    # The sign: a long response is never worth more than a short one.
    assert parts["overlong"] <= 0


def test_an_overlong_buffer_larger_than_the_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer is 300"):
        overlong_penalty(10, 240, 300)


def test_what_could_not_be_judged_has_no_reward() -> None:
    reward = make_reward(RewardSettings())
    lost = Verdict("error", None, "worker_lost")
    assert reward(PROBLEM, rollout(lost, RIGHT), max_tokens=240) == {}


def test_missing_verdicts_and_unknown_settings_are_refused() -> None:
    bare = rollout(RIGHT, RIGHT).scored({"format": RIGHT}, {})
    with pytest.raises(ValueError, match="no verdict accuracy"):
        make_reward(RewardSettings())(PROBLEM, bare, max_tokens=240)
    with pytest.raises(ValueError, match="helpfulness"):
        make_reward(RewardSettings().model_copy(update={"weights": {"helpfulness": 1.0}}))
    with pytest.raises(ValueError, match="tinyzero, r1_zero"):
        make_reward(RewardSettings().model_copy(update={"kind": "dense"}))

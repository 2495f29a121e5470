"""A problem, verdicts and rollouts with given verdicts, length and text."""

from __future__ import annotations

from typing import Any

import numpy as np

from r1kit.config.rewards import RewardSettings
from r1kit.records import Message, Problem, Rollout, Verdict
from r1kit.rewards import Reward, make_reward

PROBLEM = Problem("p", (Message("text", "Q:1,2,3>6\n"),), "countdown", {"numbers": [1, 2, 3], "target": 6})
RIGHT, WRONG = Verdict.scored(1, "correct"), Verdict.scored(0, "wrong")
NO_ANSWER = Verdict.scored(0, "no_answer")
LOST = Verdict("error", None, "worker_lost")


def rollout(
    accuracy: Verdict = RIGHT, form: Verdict = RIGHT, *, length: int = 10, text: str = "", sample: int = 0
) -> Rollout:
    tokens = 3 + length
    sampled = np.arange(tokens) >= 3
    return Rollout(
        problem_id="p",
        sample=sample,
        prompt_length=3,
        token_ids=np.arange(tokens),
        loss_mask=sampled,
        logprobs=np.zeros(tokens),
        policy_versions=np.where(sampled, 0, -1),
        temperatures=sampled.astype(np.float32),
        finish="stopped",
        text=text,
        verdicts={"accuracy": accuracy, "format": form},
    )


def reward_of(settings: dict[str, Any], *, steps: int = 10, **rest: Any) -> Reward:
    """The reward that a recipe writes so."""
    return make_reward(RewardSettings.model_validate(settings), steps=steps, **rest)


def parts(settings: dict[str, Any], *rollouts: Rollout, step: int = 1, max_tokens: int = 240) -> list[dict[str, float]]:
    """The weighted parts of a group."""
    return reward_of(settings)(PROBLEM, rollouts, max_tokens=max_tokens, step=step)

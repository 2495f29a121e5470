"""Rewards: verdicts of a rollout to weighted parts, whose sum is trained on."""

from r1kit.rewards.rules import RewardFunction, make_reward, overlong_penalty

__all__ = ["RewardFunction", "make_reward", "overlong_penalty"]

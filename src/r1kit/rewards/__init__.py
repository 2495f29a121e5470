"""Rewards: verdicts of the rollouts of a problem to weighted parts, whose sum is trained on."""

from r1kit.rewards.compose import Reward, RewardFunction, make_reward
from r1kit.rewards.length import overlong_penalty
from r1kit.rewards.parts import ScoreSource

__all__ = ["Reward", "RewardFunction", "ScoreSource", "make_reward", "overlong_penalty"]

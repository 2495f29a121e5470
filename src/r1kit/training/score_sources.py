"""The reward models that judge for an RL stage: loaded once, asked by the reward parts that name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.config.errors import UserError
from r1kit.models.checkpoint import CheckpointError
from r1kit.models.reward_model import RewardModel
from r1kit.rewards.parts import ScoreSource


def score_sources(reward: Any, paths: Mapping[str, Path], dtype: str, device: str = "cpu") -> dict[str, ScoreSource]:
    """What scores for each part of kind reward_model, by the part's name; `paths` says where its model lies.

    A model that several parts name is loaded once. UserError where there is no reward model.
    """
    models: dict[Path, RewardModel] = {}
    found: dict[str, ScoreSource] = {}
    for name, path in paths.items():
        part = reward.parts[name]
        if path not in models:
            try:
                models[path] = RewardModel.load(path, dtype=dtype, device=device)
            except CheckpointError as error:
                raise UserError(f"reward.parts.{name}.source: {error}") from None
        found[name] = models[path].source(part.judges, joined=part.joined)
    return found

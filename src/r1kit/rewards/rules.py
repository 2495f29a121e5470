"""Rule rewards of the R1 family, as weighted parts by name.

Kinds (accuracy and format are verdict scores in [0, 1]):
  tinyzero   accuracy 1.0; format 0.1, paid only where the answer is wrong (TinyZero: 1 / 0.1 / 0)
  r1_zero    accuracy 1.0 and format 1.0: "equal weight" of the DeepSeek-R1 paper
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from r1kit.records import Problem, Rollout

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "tinyzero": {"accuracy": 1.0, "format": 0.1, "overlong": 1.0},
    "r1_zero": {"accuracy": 1.0, "format": 1.0, "overlong": 1.0},
}


class RewardFunction(Protocol):
    """Weighted reward parts of one rollout; their sum is its reward."""

    def __call__(self, problem: Problem, rollout: Rollout, *, max_tokens: int) -> dict[str, float]: ...


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), in [-1, 0].

    0 up to `max_tokens - buffer` tokens, then falling linearly to -1 at `max_tokens`, and -1 beyond.
    """
    if not 0 < buffer <= max_tokens:
        raise ValueError(
            f"reward.overlong.buffer is {buffer}, the cap is {max_tokens} tokens: expected 1 <= buffer <= cap"
        )
    over = length - (max_tokens - buffer)
    return -min(1.0, over / buffer) if over > 0 else 0.0


def make_reward(settings: Any) -> RewardFunction:
    """The reward function of a RewardSettings: `kind`, `weights` over the kind's own, `overlong` or None."""
    if settings.kind not in DEFAULT_WEIGHTS:
        raise ValueError(f"reward.kind is {settings.kind!r}: expected one of {', '.join(DEFAULT_WEIGHTS)}")
    defaults = DEFAULT_WEIGHTS[settings.kind]
    unknown = sorted(set(settings.weights) - set(defaults))
    if unknown:
        raise ValueError(f"reward.weights names {', '.join(unknown)}: expected parts {', '.join(defaults)}")
    weights = {**defaults, **settings.weights}
    rule = _tinyzero if settings.kind == "tinyzero" else _r1_zero
    overlong = settings.overlong

    def reward(problem: Problem, rollout: Rollout, *, max_tokens: int) -> dict[str, float]:
        """Parts by name; none where a verdict is no score: such a group is dropped whole, never trained."""
        missing = {"accuracy", "format"} - set(rollout.verdicts)
        if missing:
            names = ", ".join(sorted(missing))
            raise ValueError(f"rollout {rollout.id} has no verdict {names}: verify it first")
        accuracy, well_formed = (rollout.verdicts[name].score for name in ("accuracy", "format"))
        if accuracy is None or well_formed is None:
            return {}
        parts = rule(accuracy, well_formed)
        if overlong is not None:
            shortfall = overlong_penalty(rollout.response_length, max_tokens, overlong.buffer)
            parts["overlong"] = overlong.penalty * shortfall
        return {name: weights[name] * value for name, value in parts.items()}

    return reward


def _tinyzero(accuracy: float, well_formed: float) -> dict[str, float]:
    # The format bonus is a consolation: a right answer is worth 1 whatever its form.
    return {"accuracy": accuracy, "format": well_formed * (1.0 - accuracy)}


def _r1_zero(accuracy: float, well_formed: float) -> dict[str, float]:
    return {"accuracy": accuracy, "format": well_formed}

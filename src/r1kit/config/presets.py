"""Published RL algorithms by name. A preset fixes the algorithm, not learning rates, batch or lengths.

`dynamic_sampling` is part of some of them (DAPO) and must be off in others (PPO), so a preset also says that; both are
defaults that the recipe's own settings go over. Where a source says nothing, the value is the one the source's base
algorithm has, and docs/algorithms.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

PresetName = Literal[
    "r1_zero",
    "grpo",
    "dr_grpo",
    "dapo",
    "ppo_simplerl",
    "ppo_orz",
    "vapo",
    "rloo",
    "reinforce_pp",
    "gspo",
    "cispo",
    "prime",
    "prorl",
]


@dataclass(frozen=True)
class Preset:
    """Settings of `algorithm`, and whether groups without signal are replaced."""

    source: str
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    replaces_groups: bool = False


# DAPO is the general case: clip, group mean, token mean. The others say in what they differ.
_DAPO = {"advantage": "std", "clip_low": 0.2, "clip_high": 0.28, "aggregation": "token_mean"}
_GRPO = {**_DAPO, "clip_high": 0.2, "aggregation": "sequence_mean"}
_PPO = {"baseline": "critic", "advantage": "whiten", "clip_low": 0.2, "clip_high": 0.2, "aggregation": "token_mean"}

PRESETS: dict[str, Preset] = {
    "r1_zero": Preset(
        "DeepSeek-R1, arXiv:2501.12948",
        {**_GRPO, "clip_low": 10.0, "clip_high": 10.0, "kl_coef": 0.001, "reference_refresh": 400},
    ),
    "grpo": Preset("DeepSeekMath, arXiv:2402.03300", {**_GRPO, "kl_coef": 0.04}),
    "dr_grpo": Preset("Dr. GRPO, arXiv:2503.20783", {**_GRPO, "advantage": "none", "aggregation": "constant"}),
    "dapo": Preset("DAPO, arXiv:2503.14476", {**_DAPO, "dual_clip": 10.0}, replaces_groups=True),
    "ppo_simplerl": Preset(
        "SimpleRL-Zero (first version), hkust-nlp/simpleRL-reason",
        {**_PPO, "kl_coef": 0.01, "kl_in": "reward", "kl_estimator": "k1", "critic": {"trunk": "separate"}},
    ),
    "ppo_orz": Preset(
        "Open-Reasoner-Zero, arXiv:2503.24290", {**_PPO, "critic": {"trunk": "separate", "minibatches": 12}}
    ),
    "vapo": Preset(
        "VAPO, arXiv:2504.05118",
        {
            **_PPO,
            "clip_high": 0.28,
            "gae_alpha": 0.05,
            "gae_lambda_critic": 1.0,
            "positive_nll": 0.1,
            "critic": {"trunk": "separate", "pretrain_steps": 50},
        },
    ),
    "rloo": Preset(
        "RLOO, arXiv:2402.14740",
        {
            "baseline": "leave_one_out",
            "objective": "reinforce",
            "aggregation": "constant",
            "kl_coef": 0.03,
            "kl_in": "reward",
            "kl_estimator": "k1",
        },
    ),
    "reinforce_pp": Preset(
        "REINFORCE++, arXiv:2501.03262",
        {
            "baseline": "none",
            "advantage": "whiten",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_coef": 0.01,
            "kl_in": "reward",
            "kl_estimator": "k1",
        },
    ),
    "gspo": Preset("GSPO, arXiv:2507.18071", {**_GRPO, "objective": "gspo", "clip_low": 3e-4, "clip_high": 4e-4}),
    "cispo": Preset(
        "CISPO, MiniMax-M1, arXiv:2506.13585",
        {**_DAPO, "objective": "cispo", "clip_low": 1.0, "clip_high": 4.0},
        replaces_groups=True,
    ),
    "prime": Preset(
        "PRIME, arXiv:2502.01456",
        {
            "baseline": "leave_one_out",
            "advantage": "whiten",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "process": {"beta": 0.05, "coef": 5.0, "outcome_coef": 5.0, "update": "after", "granularity": "token"},
        },
        replaces_groups=True,
    ),
    "prorl": Preset(
        "ProRL, arXiv:2505.24864",
        {**_DAPO, "clip_high": 0.4, "kl_coef": 1e-4, "reference_refresh": 200},
        replaces_groups=True,
    ),
}
assert set(PRESETS) == set(get_args(PresetName))


def expanded(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's settings of `algorithm` with `own` over them, blocks inside too."""
    return _over(PRESETS[name].algorithm, own)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        block = below.get(key)
        both[key] = _over(block, value) if isinstance(block, Mapping) and isinstance(value, dict) else value
    return both

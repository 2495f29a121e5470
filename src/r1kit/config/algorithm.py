"""What an RL step optimises: advantages, objective, KL, entropy, critic, process rewards (docs/algorithms.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from r1kit.config.fields import Count, Natural, NonNegative, Positive, Settings, Share
from r1kit.config.presets import PRESETS, PresetName, expanded

GROUP_BASELINES = ("group", "leave_one_out", "length_weighted")
# Settings that only a critic reads.
_CRITICS = ("critic", "gae_lambda", "gae_lambda_critic", "gae_alpha")


class CriticSettings(Settings):
    """The value model of PPO."""

    trunk: Literal["separate", "shared"] = Field(
        "separate", description="a model of its own, or one more head on the policy's trunk"
    )
    lr_factor: Positive = Field(2.0, description="learning rate as a multiple of the policy's")
    coef: Positive = Field(0.5, description="shared trunk only: weight of the value loss beside the policy's")
    clip: Positive | None = Field(0.2, description="the value moves at most this far from the old one; null is off")
    pretrain_steps: Natural = Field(0, description="first steps that train the critic alone, on a fixed policy (VAPO)")
    minibatches: Count = Field(1, description="optimiser steps per batch; of a shared trunk, in pretrain_steps only")

    @model_validator(mode="after")
    def _own_steps(self) -> CriticSettings:
        if self.trunk == "shared" and self.minibatches > 1 and not self.pretrain_steps:
            raise ValueError(
                f"minibatches is {self.minibatches}, but a head on the policy's trunk is trained in the policy's own "
                "steps: set critic.minibatches: 1, or trunk: separate"
            )
        return self


class ProcessRewardSettings(Settings):
    """PRIME's implicit process reward model: log-ratio of a model trained online on outcomes alone."""

    beta: Positive = Field(0.05, description="reward of a token = beta * log(model / its start)")
    coef: NonNegative = Field(5.0, description="weight of the process part of the advantage")
    outcome_coef: NonNegative = Field(5.0, description="weight of the outcome part of the advantage")
    update: Literal["before", "after"] = Field(
        "after", description="train it before its scores are taken, or after the policy's update"
    )
    granularity: Literal["token", "step"] = Field("token", description="step: the rewards of a line, at its last token")
    lr_factor: Positive = Field(2.0, description="learning rate as a multiple of the policy's")
    grad_clip: NonNegative = Field(10.0, description="largest norm of its gradient; 0 is off")


class GroupFilterSettings(Settings):
    """Sample many, train on few: which `keep` of a group's responses are trained."""

    kind: Literal["gfpo", "roc"] = Field(
        description="gfpo: the shortest, or the best by reward per token; roc: varied failures, cleanest successes"
    )
    keep: Annotated[Count, Field(ge=2)] = Field(description="responses of a group that are trained")
    by: Literal["length", "reward_per_token"] = Field("length", description="gfpo only: what ranks the responses")


class EntropySettings(Settings):
    """Entropy bonus; with a target, the coefficient adapts (Skywork-OR1)."""

    coef: NonNegative = Field(0.0, description="weight of the mean entropy (its first value, where it adapts)")
    target: Positive | None = Field(None, description="nats; the bonus acts only below, and its coefficient adapts")
    delta: Positive = Field(1e-4, description="change of the coefficient per step")
    maximum: Positive = Field(5e-3, description="largest coefficient where it adapts")
    top_share: Annotated[Share, Field(gt=0)] = Field(
        1.0, description="share of tokens, by entropy, that carry policy gradient; 0.2 is the 80/20 rule, 1 is off"
    )


class AlgorithmSettings(Settings):
    """The policy objective (docs/algorithms.md has the equations). A preset first, own settings over it."""

    preset: PresetName | None = Field(None, description="published algorithm that fills what is not set here")
    baseline: Literal["group", "leave_one_out", "length_weighted", "none", "critic"] = Field(
        "group",
        description="what the reward is compared with: group mean (GRPO), mean of the others (RLOO), length-weighted "
        "mean (OPO), nothing (REINFORCE++), a critic (PPO)",
    )
    advantage: Literal["none", "std", "batch_std", "whiten"] = Field(
        "none",
        description="scale of reward - baseline: none (Dr. GRPO), the group's std (GRPO), the batch's std of rewards, "
        "or whitened over all tokens of the batch",
    )
    per_reward: bool = Field(False, description="normalise each reward part in its group, then sum (GDPO)")
    objective: Literal["clip", "gspo", "cispo", "gmpo", "reinforce"] = Field(
        "clip", description="clip is PPO, GRPO and DAPO; see docs/algorithms.md"
    )
    clip_low: NonNegative = Field(
        0.2, description="ratio may fall to 1 - clip_low (gmpo: exp(-clip_low)); 1 and more never clips"
    )
    clip_high: Positive = Field(0.28, description="ratio may rise to 1 + clip_high (DAPO clip-higher)")
    dual_clip: Annotated[float, Field(gt=1)] | None = Field(
        None, description="bound of the ratio for negative advantages"
    )
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    kl_coef: NonNegative = Field(0.0, description="weight of the KL to the reference policy; 0 keeps no reference")
    kl_estimator: Literal["k1", "k2", "k3", "k3_k2"] = Field(
        "k3", description="k3_k2: the value of k3 with the gradient of k2"
    )
    kl_in: Literal["loss", "reward"] = Field("loss", description="where the KL acts")
    reference_refresh: Natural = Field(0, description="steps between reference := policy; 0 is never")
    gamma: Annotated[Share, Field(gt=0)] = Field(1.0, description="discount per token (critic, process)")
    gae_lambda: Share = Field(1.0, description="critic only: lambda of the policy's advantages")
    gae_lambda_critic: Share = Field(1.0, description="critic only: lambda of the critic's targets")
    gae_alpha: Positive | None = Field(
        None, description="critic only: length-adaptive lambda 1 - 1 / (alpha * length), instead of gae_lambda (VAPO)"
    )
    positive_nll: NonNegative = Field(0.0, description="weight of the likelihood of right responses (VAPO)")
    entropy: EntropySettings = Field(default_factory=EntropySettings)
    group_filter: GroupFilterSettings | None = Field(None, description="null trains whole groups")
    critic: CriticSettings | None = Field(None, description="baseline: critic only")
    process: ProcessRewardSettings | None = Field(None, description="null has no process rewards (PRIME)")
    minibatches: Count = Field(1, description="optimiser steps per batch of rollouts; 1 is strictly on-policy")

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise ValueError(f"found {data!r}, expected settings: a preset is one of them, {{preset: {data}}}")
        if not isinstance(data, dict) or data.get("preset") not in PRESETS:
            return data  # no preset, or a mistake that validation names
        return expanded(data["preset"], data)

    @model_validator(mode="after")
    def _possible(self) -> AlgorithmSettings:
        # As a loss the gradient of k1 is noise around 0 (algorithms/kl.py).
        if self.kl_coef and self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator is k1, whose gradient as a loss is only noise: use k2, k3 or k3_k2, or kl_in: reward"
            )
        for name in _CRITICS:
            if self.baseline != "critic" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is set but baseline is {self.baseline}: set baseline: critic, or remove it")
        if self.dual_clip is not None and self.objective not in ("clip", "gspo"):
            raise ValueError(f"dual_clip is set but objective is {self.objective}, which has none: set dual_clip: null")
        if self.baseline == "critic" and self.critic is None:
            # A frozen model is completed while it is being made.
            object.__setattr__(self, "critic", CriticSettings())
        if self.process is not None and self.baseline != "leave_one_out":
            raise ValueError(f"process rewards need baseline: leave_one_out (PRIME), found {self.baseline}")
        if self.baseline not in GROUP_BASELINES and self.advantage == "std":
            raise ValueError(f"advantage: std is the group's, but baseline is {self.baseline}: use whiten or none")
        if self.per_reward and (self.baseline != "group" or (self.kl_coef and self.kl_in == "reward")):
            raise ValueError("per_reward (GDPO) normalises parts in their group: use baseline: group and kl_in: loss")
        if self.objective == "reinforce" and self.minibatches > 1:
            raise ValueError(
                f"objective is reinforce and minibatches {self.minibatches}: it has no ratio, so every minibatch after "
                "the first would be trained with samples of another policy, a silent bias; set minibatches: 1, or "
                "objective: clip or cispo"
            )
        if self.objective in ("gspo", "gmpo") and self.entropy.top_share < 1:
            raise ValueError(f"entropy.top_share picks tokens, but {self.objective} is about whole responses")
        return self

    def described(self) -> str:
        """The whole algorithm in one line that a recipe could hold, and where its preset is from."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=True, width=1 << 20)
        source = f" ({PRESETS[self.preset].source})" if self.preset else ""
        return f"algorithm{source}: {text.strip()}"

    @property
    def compares_group(self) -> bool:
        """Whether the advantage of a response depends on the other responses to its problem."""
        return self.baseline in GROUP_BASELINES

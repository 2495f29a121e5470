"""Settings of an `rl` stage."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from r1kit.config.alarms import AlarmSettings
from r1kit.config.algorithm import AlgorithmSettings
from r1kit.config.fields import Count, Natural, Positive, Settings
from r1kit.config.mismatch import MismatchSettings
from r1kit.config.parts import DynamicSamplingSettings, EngineSettings, OptimizerSettings, SamplingSettings
from r1kit.config.pools import PoolSettings
from r1kit.config.presets import PRESETS
from r1kit.config.rewards import RewardSettings
from r1kit.config.schedules import Schedule, check_schedule, phases_of
from r1kit.config.stage import CompiledSettings


class LoRASettings(Settings):
    """Low-rank adapters on the matrices of the policy's layers, in place of all its weights."""

    rank: Count = Field(16, description="columns of the two factors of each adapter")
    alpha: Positive = Field(32.0, description="the product of the factors is multiplied by alpha / rank")


class RLSettings(CompiledSettings):
    """R1-Zero's step: sample groups, judge them by rule, one policy-gradient update."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model", "reward.parts.source")
    produces_model: ClassVar[bool] = True
    kind: Literal["rl"] = "rl"
    model: str = Field(description="policy to start from: ${stage}, or a checkpoint directory")
    steps: Count = 75
    problems: Count | None = Field(None, description="train on the task's first so many problems only; null: on all")
    problems_per_step: Count = 32
    samples_per_problem: Count = Field(8, description="group size G")
    token_budget: Count = Field(8192, description="prompt + response tokens in one micro-batch, per process")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    reward: RewardSettings = Field(default_factory=RewardSettings)
    algorithm: AlgorithmSettings = Field(default_factory=AlgorithmSettings)
    dynamic_sampling: DynamicSamplingSettings = Field(default_factory=DynamicSamplingSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    warmup_steps: Natural = 5
    engine: EngineSettings = Field(default_factory=EngineSettings)
    lora: LoRASettings | None = Field(None, description="train adapters only; null trains all weights")
    recompute: bool = Field(
        False, description="make activations again in the backward pass: less memory, a third slower"
    )
    rollouts_every: Natural = Field(5, description="steps between stored rollouts; 0 stores none")
    schedule: Schedule = Field((), description="phases of settings that change over the stage, in order")
    pools: PoolSettings = Field(default_factory=PoolSettings)
    alarms: AlarmSettings = Field(default_factory=AlarmSettings)
    mismatch: MismatchSettings = Field(default_factory=MismatchSettings)

    @model_validator(mode="before")
    @classmethod
    def _preset_replaces_groups(cls, data: Any) -> Any:
        """A preset also says whether groups without signal are replaced; the stage's own setting goes over it."""
        algorithm = data.get("algorithm") if isinstance(data, dict) else None
        preset = PRESETS.get(str(algorithm.get("preset"))) if isinstance(algorithm, dict) else None
        own = data.get("dynamic_sampling", {}) if preset is not None else None
        if preset is None or not isinstance(own, dict):
            return data
        return {**data, "dynamic_sampling": {"enabled": preset.replaces_groups, **own}}

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> RLSettings:
        self._check_group()
        if self.lora is not None and self.recompute:
            raise ValueError("recompute works on the policy's own weights, not on adapters: set recompute: false")
        if self.token_budget <= self.sampling.max_tokens:
            raise ValueError(
                f"token_budget is {self.token_budget}, smaller than one sequence (a prompt and up to "
                f"sampling.max_tokens = {self.sampling.max_tokens} tokens): raise it"
            )
        rollouts = self.problems_per_step * self.samples_per_problem
        if self.algorithm.minibatches > rollouts:
            raise ValueError(
                f"algorithm.minibatches is {self.algorithm.minibatches} but a step has {rollouts} rollouts: "
                "lower minibatches"
            )
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature is 0 (greedy): all samples of a group would be one; 1.0 is usual")
        cut = [n for n, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)) if getattr(self.sampling, n) != off]
        if cut:
            raise ValueError(
                f"sampling.{cut[0]} is {getattr(self.sampling, cut[0])}: RL trains the full distribution, so samples "
                "of a truncated one would bias it silently; leave it off in training (evaluations may use it)"
            )
        self.reward.check_stage(self.steps, self.sampling.max_tokens)
        self._check_warmup(self.steps)
        self._check_on_policy()
        check_schedule(self)
        if not (info.context or {}).get("phase"):
            self._check_reference()
        return self

    @property
    def valued_parts(self) -> set[str]:
        """Reward parts that are paid or monitored in some phase: what has to be there."""
        rewards = (settings.reward.resolved() for _, settings in phases_of(self))
        return {name for parts in rewards for name, part in parts.items() if part.valued}

    def _check_on_policy(self) -> None:
        """REINFORCE has no ratio: a group of an older policy biases it, unless its tokens are weighted."""
        dynamic, weighted = self.dynamic_sampling, ("token_tis", "sequence_tis", "masked_is")
        carries = dynamic.carry and (dynamic.enabled or dynamic.when_short == "wait")
        if self.algorithm.objective == "reinforce" and carries and self.mismatch.correction not in weighted:
            raise ValueError(
                "algorithm.objective is reinforce, which has no ratio, but groups carried from earlier steps (an older "
                "policy's samples) would be trained, a silent bias: set dynamic_sampling.carry: false, or weight them "
                "with mismatch.correction: token_tis"
            )

    def _check_reference(self) -> None:
        """A refresh of a reference that no phase keeps would be ignored; a preset's own is idle with its KL."""
        algorithm = self.algorithm
        own = PRESETS[algorithm.preset].algorithm.get("reference_refresh") if algorithm.preset else None
        refresh = algorithm.reference_refresh
        if refresh and refresh != own and not any(s.algorithm.kl_coef for _, s in phases_of(self)):
            raise ValueError(
                f"algorithm.reference_refresh is {refresh}, but kl_coef is 0 (in every phase): there is no reference "
                "to refresh; set algorithm.kl_coef, or take reference_refresh out"
            )

    def _check_group(self) -> None:
        samples, algorithm = self.samples_per_problem, self.algorithm
        if self.problems is not None and self.problems < self.problems_per_step:
            raise ValueError(
                f"problems is {self.problems}, fewer than problems_per_step {self.problems_per_step}, and a step asks "
                f"none twice: lower problems_per_step to {self.problems}; more samples_per_problem keep the batch"
            )
        if samples < 2 and algorithm.compares_group:
            raise ValueError(
                f"samples_per_problem is {samples}: a group advantage compares the samples "
                "of one problem, so at least 2 are needed; 8 is usual"
            )
        if samples < 2 and self.dynamic_sampling.enabled:
            raise ValueError(
                "samples_per_problem is 1: a group of one never has spread, so dynamic sampling would drop everything; "
                "set dynamic_sampling.enabled: false"
            )
        alone = algorithm.critic.pretrain_steps if algorithm.critic is not None else 0
        if alone >= self.steps:
            raise ValueError(
                f"algorithm.critic.pretrain_steps is {alone} of {self.steps} steps: the policy would never be trained; "
                "lower it, or train longer"
            )
        kept = algorithm.group_filter
        if kept is not None and kept.keep >= samples:
            raise ValueError(f"algorithm.group_filter.keep is {kept.keep} of {samples} samples per problem: keep fewer")
        if kept is not None and kept.kind == "gfpo" and self.dynamic_sampling.truncated == "mask":
            raise ValueError(
                "dynamic_sampling.truncated is mask, but gfpo keeps responses by their trained tokens: a masked one "
                "would count as the shortest; set truncated: train"
            )

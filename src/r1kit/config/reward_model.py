"""Settings of a `reward_model` stage: a model that scores responses, trained on pairs, labels or step labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.data import DataSettings, ThinkingOut
from r1kit.config.fields import Count, NonNegative, Positive, Share
from r1kit.config.parts import OptimizerSettings
from r1kit.config.preference import HeldOutShare
from r1kit.config.stage import CompiledSettings, check_methods, check_passes, under_preset

Method = Literal["pairwise", "pointwise", "process", "implicit"]
_R1 = {"batch_size": 256, "max_tokens": 8192, "epochs": 1, "optimizer": {"lr": 6e-6}}
_ONLY = {
    "margin": "pairwise",
    "centre": "pairwise",
    "balance_lengths": "pairwise",
    "length_ratio": "pairwise",
    "neutral": "process",
    "monte_carlo": "process",
    "step_separator": "process",
    "beta": "implicit",
    "reference": "implicit",
    "reference_model": "implicit",
}

# Only what the sources state (docs/reward-models.md has them); everything else keeps its default.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "r1_helpful": {**_R1, "method": "pairwise", "balance_lengths": True},
    "r1_safety": {**_R1, "method": "pointwise"},
    "implicit_prm": {"method": "implicit", "beta": 0.05, "optimizer": {"lr": 1e-6}},
}


class RewardModelSettings(CompiledSettings):
    """A model that scores responses; algorithms/reward_model_loss.py has the equations."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model", "reference_model", "data.path")
    produces_model: ClassVar[bool] = True
    kind: Literal["reward_model"] = "reward_model"
    preset: str | None = Field(None, description="published settings that fill what is not set here")
    model: str = Field(description="language model or reward model to start from: ${stage}, or a directory")
    data: tuple[DataSettings, ...] = Field(
        min_length=1, description="pairs, labelled responses (pointwise, implicit), or labelled steps (process)"
    )
    method: Method = Field(
        "pairwise",
        description="pairs (helpfulness), single labels (safety), step labels, or a language model whose log-ratio "
        "to a reference is the score",
    )
    thinking: ThinkingOut = Field("think", description="how thoughts are written; drop leaves them out")
    max_tokens: Count = Field(4096, description="longest prompt with a response, in tokens")
    too_long: Literal["drop", "cut"] = Field("drop", description="longer responses are cut, or left out")
    held_out_share: HeldOutShare = Field(0.1, description="share of the prompts the report of accuracy is made on")
    margin: NonNegative = Field(0.0, description="pairwise only: by how much the better response is to win")
    centre: NonNegative = Field(0.0, description="pairwise only: pull of a pair's scores towards a mean of 0")
    balance_lengths: bool = Field(
        False, description="pairwise only: leave pairs out until the better response is the longer one in half of them"
    )
    length_ratio: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="pairwise only: leave out pairs whose longer response has more than this many times the tokens",
    )
    neutral: Literal["good", "bad", "skip"] = Field("good", description="process only: what a rating of 0 counts as")
    monte_carlo: Literal["soft", "hard"] = Field(
        "soft", description="process only: a share of right continuations is the label, or 1 where it is above 0"
    )
    step_separator: Annotated[str, Field(min_length=1)] = Field("\n\n", description="process only: what ends a step")
    beta: Positive = Field(0.05, description="implicit only: the score is beta times the log-ratio")
    reference: Literal["precomputed", "on_the_fly"] = Field(
        "precomputed", description="implicit only: log-probs of the reference once, kept on disk, or in every step"
    )
    reference_model: str | None = Field(None, description="implicit only: reference; none: the model started from")
    epochs: Count = Field(1, description="passes over the data")
    batch_size: Count = Field(32, description="pairs or responses of one step, over all processes")
    token_budget: Count = Field(8192, description="tokens in one micro-batch, per process")
    warmup_share: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    lr_floor: Share = Field(0.0, description="the learning rate ends at this share of lr")
    measure_every: Count | None = Field(None, description="steps between reports on what is held out; none: an epoch's")
    optimizer: OptimizerSettings = Field(default_factory=lambda: OptimizerSettings(lr=6e-6))

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """The preset's settings under those that the recipe names."""
        return under_preset(raw, PRESETS) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _possible(self) -> RewardModelSettings:
        check_methods(self, _ONLY)
        if self.method == "process" and self.too_long == "cut":
            raise ValueError("too_long is cut: a solution cut short loses the labels of its last steps; use drop")
        if self.evaluate.every:
            raise ValueError("evaluate.every is set, but a reward model samples nothing: use measure_every")
        check_passes(self, " (a pair that is larger is run one response at a time)")
        return self

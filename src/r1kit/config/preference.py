"""Settings of a `preference` stage: DPO and its kin on pairs of responses, KTO on single judged ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.data import DataSettings, ThinkingOut
from r1kit.config.fields import Count, NonNegative, Positive, Share
from r1kit.config.parts import OptimizerSettings
from r1kit.config.rl import LoRASettings
from r1kit.config.stage import CompiledSettings, check_methods, check_passes, fit_budget, under_preset

Method = Literal["dpo", "ipo", "nca", "simpo", "kto", "orpo"]
TOKEN_BUDGET = 8192
HeldOutShare = Annotated[float, Field(ge=0, lt=1)]
# Their loss compares mean log-probs; the others compare with a reference policy.
REFERENCE_FREE = ("simpo", "orpo")
_ONLY = {
    "label_smoothing": "dpo",
    "gamma": "simpo",
    "length_normalised": "ipo",
    "labelled": "kto",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
}

# Only what the sources state (docs/preference.md has them and the gaps); everything else keeps its default.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "dpo": {"method": "dpo", "beta": 0.1, "batch_size": 64, "warmup_share": 0.1, "optimizer": {"lr": 1e-6}},
    "light_r1_dpo": {"method": "nca", "beta": 0.3, "epochs": 3, "max_tokens": 32768, "optimizer": {"lr": 5e-7}},
    "sky_t1_flash": {
        "method": "simpo",
        "beta": 2.0,
        "gamma": 1.0,
        "decay": "cosine",
        "warmup_share": 0.1,
        "optimizer": {"lr": 6e-7},
    },
}


class PreferenceSettings(CompiledSettings):
    """Prefer one response to another without sampling; algorithms/preference_loss.py has the equations."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model", "reference_model", "data.path")
    produces_model: ClassVar[bool] = True
    kind: Literal["preference"] = "preference"
    preset: str | None = Field(None, description="published settings that fill what is not set here")
    model: str = Field(description="policy to start from: ${stage}, or a checkpoint directory")
    data: tuple[DataSettings, ...] = Field(min_length=1, description="data sets of pairs, or of labelled responses")
    labelled: bool = Field(True, description="kto only: rows are single responses with a label; false: pairs")
    thinking: ThinkingOut = Field("think", description="how thoughts are written; drop leaves them out")
    max_tokens: Count = Field(4096, description="longest prompt with a response, in tokens")
    too_long: Literal["drop", "cut"] = Field("drop", description="longer responses are cut, or their pairs left out")
    held_out_share: HeldOutShare = Field(0.0, description="share of the prompts kept out of training and measured")
    method: Method = "dpo"
    beta: Positive = Field(0.1, description="how dear it is to leave the reference (ipo: tau; orpo: lambda)")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="dpo only: share of pairs thought to be labelled the wrong way round (cDPO)"
    )
    gamma: NonNegative = Field(0.5, description="simpo only: margin by which the chosen response is to win")
    length_normalised: bool = Field(True, description="ipo only: log-ratios are taken per token")
    desirable_weight: Positive = Field(1.0, description="kto only: weight of wanted responses")
    undesirable_weight: Positive = Field(1.0, description="kto only: weight of unwanted responses")
    nll_coef: NonNegative | None = Field(
        None, description="weight of the mean next-token loss of the chosen responses; none: 1 with orpo, else 0"
    )
    reference: Literal["precomputed", "on_the_fly"] = Field(
        "precomputed", description="log-probs of the reference once, kept on disk; or in every step, its weights kept"
    )
    reference_model: str | None = Field(None, description="reference policy; none: the model started from")
    lora: LoRASettings | None = Field(
        None, description="train adapters only, the reference being the model without them; null trains all weights"
    )
    epochs: Count = Field(1, description="passes over the data")
    batch_size: Count = Field(32, description="pairs or labelled responses of one step, over all processes")
    token_budget: Count = Field(
        TOKEN_BUDGET, description="tokens in one micro-batch, per process; none: as many as the longest response needs"
    )
    warmup_share: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    lr_floor: Share = Field(0.0, description="the learning rate ends at this share of lr")
    optimizer: OptimizerSettings = Field(default_factory=lambda: OptimizerSettings(lr=5e-7))

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """The preset's settings under those that the recipe names."""
        if not isinstance(raw, dict):
            return raw
        filled = under_preset(raw, PRESETS)
        fit_budget(filled, TOKEN_BUDGET)
        return filled

    @model_validator(mode="after")
    def _possible(self) -> PreferenceSettings:
        check_methods(self, _ONLY)
        if not self.needs_reference and self.reference_model is not None:
            raise ValueError(f"reference_model is set, but method {self.method} has no reference: remove it")
        if self.method == "kto" and self.nll_coef:
            raise ValueError(f"nll_coef is {self.nll_coef}: kto has no chosen response to raise; remove it")
        if self.method == "kto" and self.batch_size < 2:
            raise ValueError("batch_size is 1: kto compares with the responses to other prompts of a step; raise it")
        check_passes(self, " (a pair that is larger is run one response at a time)")
        return self

    @property
    def nll_weight(self) -> float:
        """Weight of the next-token loss of the chosen responses."""
        return float(self.method == "orpo") if self.nll_coef is None else self.nll_coef

    @property
    def takes_labels(self) -> bool:
        """The data's rows are single responses with a label."""
        return self.method == "kto" and self.labelled

    @property
    def needs_reference(self) -> bool:
        return self.method not in REFERENCE_FREE

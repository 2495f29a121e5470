"""The typed recipe: every setting of every stage kind, with its default, its range and what it means.

Unknown keys are refused. Shares lie in [0, 1]; lengths and caps are tokens; rates are per optimiser step.
Nothing here imports torch, so a recipe can be read and checked on any machine in a moment.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from r1kit.config.corpus import CorpusSettings
from r1kit.config.fields import Count, Native, Natural, Positive, Settings
from r1kit.config.generate import GenerateSettings
from r1kit.config.journey import JourneySettings
from r1kit.config.merge import MergeSettings
from r1kit.config.parts import EvalSettings, ModelSettings, OptimizerSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.rl import RLSettings
from r1kit.config.sandbox import SandboxSettings
from r1kit.config.stage import CompiledSettings, Decay, Device, DType, StageSettings
from r1kit.config.supervised import SFTSettings
from r1kit.config.tasks import AnyTask

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
EXPECTATION = re.compile(r"([A-Za-z_]\w*)\.(\S+)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


class PretrainSettings(CompiledSettings):
    """A tiny base model from random weights on the generated corpus of the task."""

    produces_model: ClassVar[bool] = True
    kind: Literal["pretrain"] = "pretrain"
    model: ModelSettings = Field(default_factory=ModelSettings)
    corpus: CorpusSettings = Field(default_factory=CorpusSettings)
    tokens: Count = Field(3_900_000, description="training tokens")
    tokens_per_step: Count = Field(2048, description="tokens of one optimiser step, over all processes")
    document_length: Annotated[Count, Field(ge=16)] = Field(
        256, description="longer documents are cut to this many tokens"
    )
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(name="muon", lr=0.02, adam_lr=3e-3, betas=(0.9, 0.95))
    )
    warmup_steps: Natural = 50
    decay: Decay = "linear"
    token_budget: Count = 2048
    log_every: Count = 20
    checkpoint_every: Count = 500

    @property
    def steps(self) -> int:
        """Optimiser steps: `tokens` rounded up to whole steps."""
        return -(-self.tokens // self.tokens_per_step)

    @model_validator(mode="after")
    def _possible(self) -> PretrainSettings:
        if self.token_budget < self.document_length:
            raise ValueError(
                f"token_budget is {self.token_budget}, smaller than one sequence of document_length "
                f"{self.document_length}: set it to {self.document_length} or more"
            )
        self._check_warmup(self.steps)
        return self


class EvaluateSettings(StageSettings, EvalSettings):
    """Measure a model on the held-out problems of the recipe's task."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model",)
    kind: Literal["evaluate"] = "evaluate"
    model: str = Field(description="model to measure: ${stage}, or a checkpoint directory")
    top_k: Natural = Field(0, description="0 is off")
    deterministic: bool = Field(False, description="see engine.deterministic")
    native: Native = Field("off", description="see engine.native")
    slots: Count = Field(256, description="responses decoded at a time, per process")


class ReportSettings(StageSettings):
    """Write report.html once the stages in `after` are done (every run also writes it at its end)."""

    kind: Literal["report"] = "report"
    after: tuple[str, ...] = Field((), description="stages to wait for, as ${stage}")
    edge_fields: ClassVar[tuple[str, ...]] = ("after",)


Stage = Annotated[
    PretrainSettings
    | GenerateSettings
    | JourneySettings
    | SFTSettings
    | PreferenceSettings
    | MergeSettings
    | RewardModelSettings
    | RLSettings
    | EvaluateSettings
    | ReportSettings,
    Field(discriminator="kind"),
]
STAGE_KINDS: dict[str, type[StageSettings]] = {
    "pretrain": PretrainSettings,
    "generate": GenerateSettings,
    "journey": JourneySettings,
    "sft": SFTSettings,
    "preference": PreferenceSettings,
    "reward_model": RewardModelSettings,
    "merge": MergeSettings,
    "rl": RLSettings,
    "evaluate": EvaluateSettings,
    "report": ReportSettings,
}


class TrackSettings(Settings):
    """Optional trackers beside metrics.jsonl; they need the `track` extra."""

    tensorboard: bool = False
    wandb: bool = False


class RateSettings(Settings):
    """Stated rates that turn time into energy and money in ledger.json; unset leaves them out."""

    watts: Positive | None = Field(None, description="draw of the whole machine while it runs, in watts")
    price_per_hour: Positive | None = Field(None, description="price of an hour of this machine")
    currency: str = "USD"


class Recipe(Settings):
    """A whole recipe: one seed, one task, stages joined by ${stage}, and what must hold at the end."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    seed: Natural = 0
    task: AnyTask
    processes: Annotated[Count | Literal["auto"], Field(union_mode="left_to_right")] = "auto"
    device: Device = Field("auto", description="what computes: a GPU where torch sees one, else the processor")
    dtype: DType = Field("auto", description="compute type; master weights are always float32")
    native: Native = Field(
        "off", description="train and sample in C++, compiled once on this machine; true, or the type of its products"
    )
    stages: dict[str, Stage] = Field(min_length=1)
    expect: tuple[str, ...] = Field((), description='conditions on results, "stage.metric >= number"')
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    track: TrackSettings = Field(default_factory=TrackSettings)
    rates: RateSettings = Field(default_factory=RateSettings)

    @field_validator("stages")
    @classmethod
    def _stage_names(cls, stages: dict[str, Any]) -> dict[str, Any]:
        for name in stages:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(
                    f"stage name {name!r}: expected letters, digits and _ (it names directories and paths)"
                )
            if name in cls.model_fields:
                raise ValueError(f"stage name {name!r} is a setting of the recipe itself: choose another name")
        return stages

    @model_validator(mode="after")
    def _journeys(self) -> Recipe:
        for name, stage in self.stages.items():
            if isinstance(stage, JourneySettings) and self.task.name != "countdown":
                raise ValueError(
                    f"stages.{name} is of kind journey, which writes searches of countdown; the task is "
                    f"{self.task.name}: set task: countdown, or answer its problems with a stage of kind generate"
                )
        return self

    @model_validator(mode="after")
    def _expectations(self) -> Recipe:
        for text in self.expect:
            match = EXPECTATION.fullmatch(text.strip())
            if match is None:
                raise ValueError(f'expect {text!r}: expected "stage.metric >= number", such as "final.pass@1 >= 0.45"')
            if match[1] not in self.stages:
                raise ValueError(f"expect {text!r}: no stage {match[1]!r}; the stages are {', '.join(self.stages)}")
        return self

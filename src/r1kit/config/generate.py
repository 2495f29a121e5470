"""Settings of a generate stage: answers of a model, kept where they are right."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count
from r1kit.config.parts import EngineSettings, SamplingSettings
from r1kit.config.stage import StageSettings


class GenerateSettings(StageSettings):
    """Sample answers to the training problems of the recipe's task, verify them, and keep the right ones."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model",)
    produces_data: ClassVar[bool] = True
    kind: Literal["generate"] = "generate"
    model: str = Field(description="model that answers (the teacher): ${stage}, or a checkpoint directory")
    problems: Count | None = Field(None, description="at most this many training problems; none: all")
    samples: Count = Field(4, description="answers sampled of each problem")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    require: tuple[str, ...] = Field(
        ("accuracy",), description="verdicts that must be full marks; none: every finished answer is kept"
    )
    per_problem: Count | None = Field(1, description="answers kept of each problem; none: all that may be kept")
    prefer: Literal["first", "shortest", "longest"] = Field("first", description="which of them, where there are more")
    wave: Count = Field(256, description="problems sampled at a time; what a wave gave is saved before the next begins")
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="after")
    def _possible(self) -> GenerateSettings:
        if self.per_problem is not None and self.per_problem > self.samples:
            raise ValueError(
                f"per_problem is {self.per_problem}, but only {self.samples} answers are sampled of each problem: "
                "raise samples"
            )
        if self.sampling.temperature == 0 and self.samples > 1:
            raise ValueError(
                "sampling.temperature is 0 (greedy): all answers to a problem would be one; set samples: 1"
            )
        return self

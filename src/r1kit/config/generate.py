"""Settings of a generate stage: answers of a model, kept where they are right."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Share
from r1kit.config.parts import EngineSettings, SamplingSettings
from r1kit.config.stage import StageSettings


class GenerateSettings(StageSettings):
    """Sample answers to the training problems of the recipe's task, verify them, and keep the right ones, or pairs."""

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
    pass_rate: tuple[Share, Share] | None = Field(
        None, description="[lowest, highest] share of right answers of the problems that are kept; none: any"
    )
    pairs: Literal["verdict", "length"] | None = Field(
        None,
        description="preference pairs in place of answers: a right and a wrong one, or the shortest right one and the "
        "longest",
    )
    per_problem: Count | None = Field(1, description="answers or pairs kept of each problem; none: all that may be")
    prefer: Literal["first", "shortest", "longest"] = Field("first", description="which of them, where there are more")
    wave: Count = Field(256, description="problems sampled at a time; what a wave gave is saved before the next begins")
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="after")
    def _possible(self) -> GenerateSettings:
        needed = (self.per_problem or 1) * (2 if self.pairs else 1)
        if needed > self.samples:
            wish = f"per_problem is {self.per_problem or 1}{' and a pair has two answers' if self.pairs else ''}"
            raise ValueError(f"{wish}, but samples is {self.samples}: raise samples")
        if not self.require and (self.pairs == "verdict" or self.pass_rate is not None):
            name = "pairs" if self.pairs == "verdict" else "pass_rate"
            raise ValueError(f"{name} needs to know which answers are right: name verdicts in require")
        if self.pass_rate is not None and not 0 < self.pass_rate[1] >= self.pass_rate[0]:
            raise ValueError(
                f"pass_rate is {list(self.pass_rate)}: expected [lowest, highest] with lowest <= highest and highest "
                "above 0 (a problem without a right answer gives nothing to learn)"
            )
        if self.sampling.temperature == 0 and self.samples > 1:
            raise ValueError(
                "sampling.temperature is 0 (greedy): all answers to a problem would be one; set samples: 1"
            )
        return self

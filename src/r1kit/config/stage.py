"""What the settings of every stage kind share: the kind's name, its edges, and the schedule of what is trained."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from r1kit.config.fields import Count, Native, Natural, NonNegative, Settings
from r1kit.config.parts import OptimizerSettings, TrainingEvalSettings

DType = Literal["auto", "float32", "bfloat16"]
Decay = Literal["linear", "cosine", "constant"]


class StageSettings(Settings):
    """What every stage has.

    `edge_fields` name the settings that hold a path or ${stage}: a text, a list of texts, or such a text within a block
    or within each block of a list ("data.path") or of named blocks ("reward.parts.source"). An edge takes the upstream
    stage's data where the name begins with data, else its model.
    """

    edge_fields: ClassVar[tuple[str, ...]] = ()
    produces_model: ClassVar[bool] = False
    produces_data: ClassVar[bool] = False
    kind: str


class ScheduledSettings(StageSettings):
    """What all kinds of training share."""

    optimizer: OptimizerSettings
    warmup_steps: Natural = 0
    decay: Decay = Field("constant", description="shape of the learning rate after the warm-up")
    grad_clip: NonNegative = Field(1.0, description="largest norm of the gradient; 0 is off")
    token_budget: Count = Field(description="tokens in one micro-batch, per process: more memory, fewer passes")
    log_every: Count = 1
    checkpoint_every: Count = Field(10, description="steps between checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints kept")
    evaluate: TrainingEvalSettings = Field(default_factory=TrainingEvalSettings)

    def _check_warmup(self, steps: int) -> None:
        if self.warmup_steps > steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} but the stage has {steps} steps: "
                "the learning rate would never reach lr; lower warmup_steps or train longer"
            )


class CompiledSettings(ScheduledSettings):
    """Training whose forward and backward pass can run in C++."""

    native: Native = Field("off", description="this stage's own choice of the recipe's `native`")

"""What the settings of every stage kind share: the kind's name, its edges, and the schedule of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from r1kit.config.fields import Count, Native, Natural, NonNegative, Settings
from r1kit.config.parts import OptimizerSettings, TrainingEvalSettings
from r1kit.config.suggest import nearest

DType = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
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


def under_preset(raw: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Raw settings of a stage over those of the preset that they name; those of a block are joined one by one."""
    name = raw.get("preset")
    if name is None:
        return dict(raw)
    if name not in presets:
        raise ValueError(f"preset is {name!r}{nearest(str(name), presets)}: expected one of {', '.join(presets)}")
    filled = {**presets[name], **raw}
    for block, values in presets[name].items():
        own = raw.get(block)
        if isinstance(values, Mapping) and isinstance(own, Mapping):
            filled[block] = {**values, **own}
    return filled


def fit_budget(raw: dict[str, Any], usual: int) -> None:
    """Where max_tokens is more than the usual token_budget and none is named: one that holds such a sequence."""
    longest = raw.get("max_tokens")
    if isinstance(longest, int) and longest > usual:
        raw.setdefault("token_budget", longest)


def check_methods(stage: Any, only: Mapping[str, str]) -> None:
    """Refuse settings that the stage's method does not read; `only`: the one method that reads each of them."""
    for name, method in only.items():
        value = getattr(stage, name)
        if stage.method != method and value != type(stage).model_fields[name].default:
            raise ValueError(f"{name} is {value!r}, which only method {method} reads: remove it")


def check_passes(stage: Any, larger: str = "") -> None:
    """Refuse a budget below one sequence, and two warm-ups; `larger`: what becomes of a unit of several sequences."""
    if stage.token_budget < stage.max_tokens:
        raise ValueError(
            f"token_budget is {stage.token_budget}, smaller than one sequence of max_tokens {stage.max_tokens}: "
            f"set it to {stage.max_tokens} or more{larger}"
        )
    if stage.warmup_steps and stage.warmup_share:
        raise ValueError(f"warmup_steps {stage.warmup_steps} and warmup_share {stage.warmup_share}: set one of them")

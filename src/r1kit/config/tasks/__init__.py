"""Settings of every task; `name` tells which."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from r1kit.config.tasks.arithmetic import ArithmeticSettings, CountdownSettings, MultiplicationSettings
from r1kit.config.tasks.base import TaskSettings
from r1kit.config.tasks.data import (
    ChoiceSettings,
    CodeSettings,
    DataTaskSettings,
    FileSettings,
    InstructionSettings,
    MathSettings,
)
from r1kit.config.tasks.questions import KnightsKnavesSettings, QuestionSettings, ReasoningGymSettings


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_Task = (
    CountdownSettings
    | MultiplicationSettings
    | MathSettings
    | CodeSettings
    | ChoiceSettings
    | InstructionSettings
    | FileSettings
    | KnightsKnavesSettings
    | ReasoningGymSettings
)
AnyTask = Annotated[Annotated[_Task, Field(discriminator="name")], BeforeValidator(_bare_name)]
TASK_KINDS: dict[str, type[TaskSettings]] = {
    "countdown": CountdownSettings,
    "multiplication": MultiplicationSettings,
    "math": MathSettings,
    "code": CodeSettings,
    "choice": ChoiceSettings,
    "instruction": InstructionSettings,
    "file": FileSettings,
    "knights_knaves": KnightsKnavesSettings,
    "reasoning_gym": ReasoningGymSettings,
}

__all__ = [
    "TASK_KINDS",
    "AnyTask",
    "ArithmeticSettings",
    "ChoiceSettings",
    "CodeSettings",
    "CountdownSettings",
    "DataTaskSettings",
    "FileSettings",
    "InstructionSettings",
    "KnightsKnavesSettings",
    "MathSettings",
    "MultiplicationSettings",
    "QuestionSettings",
    "ReasoningGymSettings",
    "TaskSettings",
]

"""Settings of the generated arithmetic tasks: difficulty and prompt template."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Natural
from r1kit.config.tasks.base import TaskSettings

Template = Literal["compact", "tinyzero", "tinyzero_chat", "r1_zero", "chat"]


class ArithmeticSettings(TaskSettings):
    """What the arithmetic tasks share."""

    template: Template = Field("compact", description="prompt; compact is for the tiny tokenizer")


class CountdownSettings(ArithmeticSettings):
    """Reach a target with + - * / from given numbers, each used once."""

    name: Literal["countdown"] = "countdown"
    numbers: tuple[int, int] = Field((3, 3), description="fewest and most numbers, within 3..6")
    low: Count = Field(1, description="smallest given number")
    high: Natural = Field(15, description="largest given number")
    max_value: Count = Field(99, description="largest target and intermediate value")

    @model_validator(mode="after")
    def _ranges(self) -> CountdownSettings:
        fewest, most = self.numbers
        if not 3 <= fewest <= most <= 6:
            raise ValueError(f"numbers is [{fewest}, {most}]: expected [fewest, most] with 3 <= fewest <= most <= 6")
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}: expected low <= high")
        if self.high > self.max_value:
            raise ValueError(f"high is {self.high}, above max_value {self.max_value}: raise max_value")
        return self


class MultiplicationSettings(ArithmeticSettings):
    """The product of two numbers of given length."""

    name: Literal["multiplication"] = "multiplication"
    digits_a: Annotated[int, Field(ge=1, le=6)] = Field(2, description="digits of the first factor")
    digits_b: Annotated[int, Field(ge=1, le=6)] = Field(1, description="digits of the second factor")

    @model_validator(mode="after")
    def _enough_pairs(self) -> MultiplicationSettings:
        if (self.digits_a, self.digits_b) == (1, 1):
            raise ValueError("digits_a and digits_b are both 1: too few products to split; raise one of them")
        return self

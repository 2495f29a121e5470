"""Settings of the generated tasks: difficulty, prompt template and the held-out split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from r1kit.config.fields import Count, Natural, Settings

Template = Literal["compact", "tinyzero", "tinyzero_chat", "r1_zero", "chat"]


class TaskSettings(Settings):
    """What every task has."""

    name: str
    template: Template = Field("compact", description="prompt; compact is for the tiny tokenizer")
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of families held out for tests")
    seed: Natural = Field(0, description="salt of the split and of the order of problems")
    train_problems: Count | None = Field(None, description="cap on training problems; none: all, or the task's default")
    test_problems: Count | None = Field(None, description="cap on held-out problems; none: all, or the task's default")
    verifier: str | None = Field(
        None, description="your own judge of answers, module:function or path/to/file.py:function; none: the task's"
    )


class CountdownSettings(TaskSettings):
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


class MultiplicationSettings(TaskSettings):
    """The product of two numbers of given length."""

    name: Literal["multiplication"] = "multiplication"
    digits_a: Annotated[int, Field(ge=1, le=6)] = Field(2, description="digits of the first factor")
    digits_b: Annotated[int, Field(ge=1, le=6)] = Field(1, description="digits of the second factor")

    @model_validator(mode="after")
    def _enough_pairs(self) -> MultiplicationSettings:
        if (self.digits_a, self.digits_b) == (1, 1):
            raise ValueError("digits_a and digits_b are both 1: too few products to split; raise one of them")
        return self


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyTask = Annotated[
    Annotated[CountdownSettings | MultiplicationSettings, Field(discriminator="name")],
    BeforeValidator(_bare_name),
]
TASK_KINDS: dict[str, type[TaskSettings]] = {
    "countdown": CountdownSettings,
    "multiplication": MultiplicationSettings,
}

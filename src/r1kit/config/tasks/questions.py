"""Settings of the tasks that ask questions in words: the prompt, the shape of a response, the split; puzzles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Natural
from r1kit.config.tasks.base import TaskSettings

QuestionTemplate = Literal[
    "chat", "compact", "r1_zero", "deepseek_r1", "qwen_math", "qwen_boxed", "abel", "dapo", "deepscaler", "open_r1",
    "s1", "prime_math", "prime_code", "simple_choice",
]  # fmt: skip
Shape = Literal["auto", "any", "think", "tags", "tag_lines", "boxed", "answer_line", "fence"]
Families = Literal["near", "exact"]


class QuestionSettings(TaskSettings):
    """What every task of questions in words has."""

    template: QuestionTemplate = Field("chat", description="prompt: chat is the question alone as a user's turn")
    system: str | None = Field(None, description="a system prompt of your own, for templates that bring none")
    prompt: str | None = Field(
        None, description='your own text of the user\'s turn, with {question} in it, such as "{question} Think first."'
    )
    prefill: str | None = Field(
        None,
        description="text the response begins with, in place of the template's; <think> at its end opens a thought",
    )
    format: Shape = Field("auto", description="shape that the verdict format asks for; auto: the template's")
    families: Families = Field(
        "near", description="questions kept on one side of the split: nearly equal ones, or only equal ones"
    )

    @model_validator(mode="after")
    def _own_prompt(self) -> QuestionSettings:
        if self.prompt is not None and self.prompt.count("{question}") != 1:
            raise ValueError(f"prompt is {self.prompt!r}: expected {{question}} in it, once")
        if self.prompt is not None and self.template != "chat":
            raise ValueError(f"template {self.template} brings its own prompt: set template: chat, or leave prompt out")
        return self


class KnightsKnavesSettings(QuestionSettings):
    """Generated: knights tell the truth, knaves lie; who is what? Every puzzle has exactly one solution."""

    name: Literal["knights_knaves"] = "knights_knaves"
    people: tuple[int, int] = Field((3, 5), description="fewest and most people, within 2..8")
    # At depth 1 everybody says who is what: with a solution its opposite is one too, so none is the only one.
    depth: Annotated[int, Field(ge=2, le=4)] = Field(2, description="how deep statements are nested")
    families: Families = "exact"
    train_problems: Count = Field(2048, description="training problems")
    test_problems: Count = Field(256, description="held-out problems")

    @model_validator(mode="after")
    def _people(self) -> KnightsKnavesSettings:
        fewest, most = self.people
        if not 2 <= fewest <= most <= 8:
            raise ValueError(f"people is [{fewest}, {most}]: expected [fewest, most] with 2 <= fewest <= most <= 8")
        return self


class ReasoningGymSettings(QuestionSettings):
    """Generated: questions of reasoning-gym, judged by checks of our own (docs/verifiers-others.md)."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    kinds: dict[str, dict[str, Any]] = Field(
        min_length=1, description="its kinds, a list, or each with its settings: {spell_backward: {max_word_len: 5}}"
    )
    generator_seed: Natural = Field(0, description="seed of the questions")
    families: Families = "exact"
    train_problems: Count = Field(2048, description="training problems, over all kinds")
    test_problems: Count = Field(256, description="held-out problems, over all kinds")

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, data: Any) -> Any:
        kinds = data.get("kinds") if isinstance(data, dict) else None
        if isinstance(kinds, list | str):
            names = [kinds] if isinstance(kinds, str) else kinds
            if not all(isinstance(name, str) for name in names):
                raise ValueError("kinds: a list holds names; kinds with settings are written {name: {setting: value}}")
            return {**data, "kinds": {str(name): {} for name in names}}
        return data

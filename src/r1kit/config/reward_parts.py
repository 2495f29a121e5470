"""Settings of each reward part by name, and the published combinations. `r1kit.rewards` holds the equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Number, Positive, Settings, Share


class PartSettings(Settings):
    """What every part has: its weight, and the steps of the stage (counted from 1) in which it is paid."""

    # True where a right, well-formed response earns the most this part can give, which `r1kit check` then proves.
    rule: ClassVar[bool] = True
    part: str = Field(description="which part this is; left out, the entry's own name")
    weight: Number = Field(1.0, description="factor of the part's value; 0 pays nothing and monitors it")
    monitor: bool = Field(True, description="weight 0 only: value it all the same, as monitored_<name>; false: do not")
    from_step: Count = Field(1, description="first step in which the part is paid")
    to_step: Count | None = Field(None, description="last step in which the part is paid; none: the stage's last")
    last_steps: Count | None = Field(None, description="paid only in the last so many steps of the stage")

    @model_validator(mode="after")
    def _one_schedule(self) -> PartSettings:
        if self.last_steps is not None and (self.from_step > 1 or self.to_step is not None):
            raise ValueError("last_steps stands beside from_step or to_step: give one or the other")
        if self.to_step is not None and self.to_step < self.from_step:
            raise ValueError(f"to_step is {self.to_step}, before from_step {self.from_step}: the part is never paid")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the verdicts that the part reads."""
        return ()

    @property
    def valued(self) -> bool:
        """Whether the part is computed at all: it is paid, or monitored."""
        return self.weight != 0 or self.monitor

    def window(self, steps: int) -> tuple[int, int]:
        """First and last step, counted from 1, in which the part is paid in a stage of `steps` steps."""
        if self.last_steps is not None:
            return steps - self.last_steps + 1, steps
        return self.from_step, steps if self.to_step is None else self.to_step


class VerdictPart(PartSettings):
    verdict: str = Field("accuracy", description="the verdict it reads")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.verdict,)


class AccuracyPart(VerdictPart):
    right: Number = Field(1.0, description="value of a score of 1")
    wrong: Number = Field(0.0, description="value of a score of 0; scores between are interpolated")
    no_answer: Number | None = Field(None, description="value where no answer was found; none: as wrong")


class FormatPart(VerdictPart):
    verdict: str = Field("format", description="the verdict it reads")
    only_if_wrong: bool = Field(False, description="a consolation: paid in so far as the verdict accuracy is not 1")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.verdict, "accuracy") if self.only_if_wrong else (self.verdict,)


class BinaryCodePart(VerdictPart):
    above: Share = Field(0.99, description="share of tests that has to be exceeded; all of them is always enough")


class CodeforcesPart(VerdictPart):
    mode: Literal["pass_fail", "partial", "weighted_sum"] = Field(
        "weighted_sum", description="all tests or nothing; share of tests; all tests + bonus x share of tests"
    )
    bonus: Number = Field(0.1, description="weighted_sum: factor of the share of tests passed")
    no_code: Number = Field(-1.0, description="value where the response holds no program")
    not_compiled: Number = Field(-0.1, description="value where the program does not compile")


class LanguagePart(PartSettings):
    rule: ClassVar[bool] = False
    target: str = Field("en", description="language the thought is to keep to, as an ISO 639-1 code")


class TagCountPart(PartSettings):
    newlines: bool = Field(False, description="tags count only with the line breaks around them, as in Open-R1")


class ReasoningStepsPart(PartSettings):
    rule: ClassVar[bool] = False
    steps: Count = Field(3, description="step markers that earn the full value")


class CodeFormatPart(PartSettings):
    language: str = Field("python", description="language of the fenced block where the problem names none")


class CosinePart(VerdictPart):
    right: tuple[Number, Number] = Field((1.0, 0.5), description="value of a right response at 0 tokens, at max_tokens")
    wrong: tuple[Number, Number] = Field((0.0, -0.5), description="value of another response at 0, at max_tokens")
    max_tokens: Count | None = Field(None, description="length where the curve ends; none: sampling.max_tokens")


class OverlongPart(PartSettings):
    buffer: Count | None = Field(None, description="tokens below the cap where it starts; none: a fifth, as DAPO's")
    penalty: Positive = Field(1.0, description="size of the punishment at the cap")


class LcpoPart(VerdictPart):
    target: Count | None = Field(None, description="wished tokens; none: target_tokens in the problem's metadata")


class LcpoExactPart(LcpoPart):
    alpha: Positive = Field(1 / 3000, description="loss per token of distance from the target")


class LcpoMaxPart(LcpoPart):
    alpha: Positive = Field(0.001, description="slope per token around the budget")
    delta: Share = Field(0.5, description="value of a right response that meets the budget exactly")


class RepetitionPart(PartSettings):
    rule: ClassVar[bool] = False
    ngram: Count = Field(3, description="length of the n-grams compared")
    penalty: Positive = Field(1.0, description="size of the punishment where all n-grams are one")
    unit: Literal["words", "tokens"] = Field("words", description="what an n-gram is made of")


class RewardModelPart(PartSettings):
    rule: ClassVar[bool] = False
    source: str = Field(description="reward model that scores: ${stage}, or a directory (in a program: a name)")
    judges: Literal["answer", "whole"] = Field(
        "answer", description="what follows the thought (R1: helpfulness), or all of the response (harmlessness)"
    )
    joined: Literal["least", "product", "last"] = Field(
        "least", description="process model only: how the probabilities of steps become one score"
    )


class RandomPart(PartSettings):
    rule: ClassVar[bool] = False
    probability: Share = Field(0.5, description="chance of a 1, whatever the response")


class InvertedPart(VerdictPart):
    rule: ClassVar[bool] = False


class UserPart(PartSettings):
    rule: ClassVar[bool] = False
    function: str = Field(description="your function: module:function or path/to/file.py:function")
    group: bool = Field(False, description="called once for all responses of a problem instead of once for each")


PARTS: Mapping[str, type[PartSettings]] = {
    "accuracy": AccuracyPart,
    "format": FormatPart,
    "tag_count": TagCountPart,
    "reasoning_steps": ReasoningStepsPart,
    "length": VerdictPart,
    "kimi_length": VerdictPart,
    "cosine": CosinePart,
    "repetition": RepetitionPart,
    "code": VerdictPart,
    "binary_code": BinaryCodePart,
    "code_format": CodeFormatPart,
    "ioi": VerdictPart,
    "cf": CodeforcesPart,
    "overlong": OverlongPart,
    "lcpo_exact": LcpoExactPart,
    "lcpo_max": LcpoMaxPart,
    "language": LanguagePart,
    "reward_model": RewardModelPart,
    "random": RandomPart,
    "inverted": InvertedPart,
    "user": UserPart,
}

Kind = Literal[
    "tinyzero",
    "r1_zero",
    "r1",
    "simplerl",
    "dapo",
    "open_r1",
    "open_r1_codeforces",
    "kimi",
    "l1_exact",
    "l1_max",
    "random",
    "inverted",
    "custom",
]
# In the form a recipe writes them: part by name, settings that differ from the part's own.
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "tinyzero": {"accuracy": {}, "format": {"weight": 0.1, "only_if_wrong": True}},
    "r1_zero": {"accuracy": {}, "format": {}},
    "r1": {"accuracy": {}, "language": {}},
    "simplerl": {"accuracy": {"wrong": -0.5, "no_answer": -1.0}},
    "dapo": {"accuracy": {"wrong": -1.0}, "overlong": {}},
    "open_r1": {"accuracy": {}, "format": {}, "tag_count": {}},
    "open_r1_codeforces": {"cf": {}, "code_format": {"weight": 0.1}},
    "kimi": {"accuracy": {}, "kimi_length": {}},
    "l1_exact": {"lcpo_exact": {}},
    "l1_max": {"lcpo_max": {}},
    "random": {"random": {}},
    "inverted": {"inverted": {}},
    "custom": {},
}

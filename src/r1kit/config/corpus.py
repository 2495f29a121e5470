"""Settings of the generated pre-training corpus: the share of each kind of document and of each of its flaws.

The corpus is mixed on purpose (good and bad search, right and wrong verdicts, guesses): it gives a base
general priors, not the optimal policy. `r1kit.tasks.corpus` says what each document looks like.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from r1kit.config.fields import Count, Positive, Settings, Share

Range = tuple[Count, Count]


class CorpusSettings(Settings):
    """All shares lie in [0, 1]; pairs are fewest and most."""

    fact_share: Share = Field(0.30, description="documents of arithmetic facts; the rest are about the task")
    fact_lines: Range = Field((3, 10), description="lines of such a document")
    fact_small: Share = Field(0.50, description="countdown: facts whose operands are both given numbers")
    guess_share: Share = Field(0.20, description="of the task's documents: a bare guess, no working")
    guess_right: Share = Field(0.10, description="of the guesses: made right")
    guess_tagged: Share = Field(0.03, description="of the guesses: written in answer tags")
    continue_rate: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.60, description="attempts of a trace are geometric: chance of one more"
    )
    long_share: Share = Field(0.15, description="traces whose attempts are drawn from long_attempts instead")
    long_attempts: Range = Field((4, 16), description="attempts a long trace may make")
    near_share: Share = Field(0.30, description="countdown traces that prefer values near the target")
    near_scale: Positive = Field(8.0, description="the distance to the target that halves that preference")
    orderly_share: Share = Field(0.30, description="countdown traces that go through the expressions in order")
    repeat_share: Share = Field(0.50, description="traces that may try the same again")
    honest: Share = Field(0.98, description="verdicts that are true of the written value")
    slip: Share = Field(0.005, description="countdown attempts with one arithmetic slip")
    route_slip: Share = Field(0.10, description="multiplication attempts with one arithmetic slip")
    check_share: Share = Field(0.50, description="multiplication traces that work the product out again")
    recheck: Share = Field(0.05, description="countdown: a `yes` is followed by a second check")
    wait: Share = Field(0.20, description="retries that begin with `wait `")
    tagged: Share = Field(0.80, description="traces in think/answer tags")
    well_formed: Share = Field(0.80, description="of the tagged: all four tags in place")
    missing_think_end: Share = Field(0.10, description="of the tagged: no </think>; the rest lack <answer>")
    chat_share: Share = Field(0.0, description="task documents asked as a chat turn")

    @field_validator("fact_lines", "long_attempts")
    @classmethod
    def _ordered(cls, pair: tuple[int, int]) -> tuple[int, int]:
        if pair[0] > pair[1]:
            raise ValueError(f"found [{pair[0]}, {pair[1]}]: expected [fewest, most] with fewest <= most")
        return pair

    @model_validator(mode="after")
    def _tag_shares(self) -> CorpusSettings:
        if self.well_formed + self.missing_think_end > 1:
            raise ValueError(
                f"well_formed {self.well_formed} and missing_think_end {self.missing_think_end} add to more "
                "than 1: they are shares of the same documents; lower one"
            )
        return self

"""Settings of a journey stage: written searches, with or without what was tried before the way that worked."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from r1kit.config.fields import Count, Natural, Share
from r1kit.config.stage import StageSettings


class JourneySettings(StageSettings):
    """Write one answer to each training problem of countdown from its exhaustive search, as O1-Journey does.

    Both forms of one problem end with the same right expression, whatever the stage is called.
    """

    produces_data: ClassVar[bool] = True
    kind: Literal["journey"] = "journey"
    form: Literal["journey", "shortcut"] = Field(
        "journey", description="journey: trials, going back, then the right expression; shortcut: that one alone"
    )
    problems: Count | None = Field(None, description="at most this many training problems; none: all")
    trials: tuple[Natural, Natural] = Field(
        (0, 8), description="fewest and most wrong attempts before the right one, each a different expression"
    )
    wait: Share = Field(0.2, description="share of the attempts behind a wrong one that begin with `wait `")

    @field_validator("trials")
    @classmethod
    def _ordered(cls, pair: tuple[int, int]) -> tuple[int, int]:
        if pair[0] > pair[1]:
            raise ValueError(f"found [{pair[0]}, {pair[1]}]: expected [fewest, most] with fewest <= most")
        return pair

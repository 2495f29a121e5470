"""Which training problems are asked more often: by what the policy makes of them, and by where they come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from r1kit.config.fields import NonNegative, Positive, Settings, Share

Floor = Annotated[float, Field(gt=0, le=1)]


class PoolSettings(Settings):
    """A pass rate is kept for each problem (a Beta posterior) and decides how likely it is to be asked."""

    enabled: bool = Field(False, description="prefer problems by their pass rate; off: every problem once a round")
    low: Share = Field(0.2, description="below this pass rate a problem is too hard")
    high: Share = Field(0.8, description="above this pass rate a problem is used up")
    floor: Floor = Field(0.1, description="chance of a problem that is surely outside low..high, against one inside")
    prior: tuple[Positive, Positive] = Field((1.0, 1.0), description="Beta prior: right and wrong responses assumed")
    memory: Floor = Field(0.5, description="what a problem's older responses weigh when it is asked again")
    mix: dict[str, NonNegative] = Field(
        default_factory=dict, description="wished share by problem source; empty: as the problems come"
    )

    @model_validator(mode="after")
    def _sane(self) -> PoolSettings:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}: expected low < high")
        if self.mix and not any(self.mix.values()):
            raise ValueError("mix gives every source a share of 0: no problem would be asked; raise one")
        return self

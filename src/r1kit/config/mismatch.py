"""The gap between the policy that samples and the same policy as the trainer computes it, and how it is corrected."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Off, Positive, Settings

Correction = Literal["token_tis", "sequence_tis", "masked_is", "geometric_mask"]


class MismatchSettings(Settings):
    """Log-probs of engine and trainer differ by rounding, kernels or versions (`r1kit.algorithms.mismatch`)."""

    correction: Annotated[Correction | Literal["auto", "off"], Off] = Field(
        "auto",
        description="auto: off where the engine has the trainer's own weights and multiplies in the same type, "
        "else token_tis",
    )
    cap: Annotated[float, Field(gt=1)] = Field(2.0, description="token_tis, sequence_tis: largest weight")
    low: Positive = Field(0.5, description="masked_is: tokens whose ratio is below are masked")
    high: Positive = Field(5.0, description="masked_is: tokens whose ratio is above are masked")
    geometric_low: Positive = Field(0.999, description="geometric_mask: smallest geometric mean of a response's ratios")
    geometric_high: Positive = Field(1.002, description="geometric_mask: largest geometric mean")

    @model_validator(mode="after")
    def _ranges(self) -> MismatchSettings:
        for low, high in (("low", "high"), ("geometric_low", "geometric_high")):
            if not getattr(self, low) < 1 < getattr(self, high):
                raise ValueError(
                    f"{low} is {getattr(self, low)} and {high} is {getattr(self, high)}: 1 has to lie between them"
                )
        return self

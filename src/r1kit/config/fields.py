"""The base of all settings and the number types they use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _refuse_bool(value: Any) -> Any:
    # pydantic reads true as 1; in a recipe `steps: yes` is a mistake, not a 1.
    if isinstance(value, bool):
        raise ValueError(f"found {value}: expected a number")
    return value


def _off(value: Any) -> Any:
    # YAML reads a bare off as false.
    return "off" if value is False else value


_Number = BeforeValidator(_refuse_bool)
Off = BeforeValidator(_off)
Count = Annotated[int, _Number, Field(ge=1)]
Natural = Annotated[int, _Number, Field(ge=0)]
Positive = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, _Number, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, _Number, Field(ge=0, le=1)]
Number = Annotated[float, _Number, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen, and every key it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _switch(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


# What runs in C++, by the type of its products. true is "on": bfloat16 where the processor has it (AMX), else float32.
# "auto" is that where this machine and model can be compiled for, else off.
Native = Annotated[Literal["off", "auto", "on", "float32", "bfloat16"], BeforeValidator(_switch)]

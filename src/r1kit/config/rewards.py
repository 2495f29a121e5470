"""The reward of an RL stage: a published combination by `kind`, changed or replaced by `parts`, or parts alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from r1kit.config.fields import Count, Positive, Settings
from r1kit.config.reward_parts import PARTS, PRESETS, Kind, OverlongPart, PartSettings, UserPart
from r1kit.config.suggest import nearest


class OverlongSettings(Settings):
    """DAPO's soft punishment: from 0 down to -penalty over the last `buffer` tokens below the cap."""

    buffer: Count = Field(description="tokens below the cap where the punishment starts")
    penalty: Positive = Field(1.0, description="size of the punishment at the cap")


class RewardSettings(Settings):
    """Verdicts to one number: the sum of weighted parts, each logged apart as `reward_<name>`."""

    kind: Kind = Field("tinyzero", description="published combination to start from; custom: only what parts names")
    weights: dict[str, float] = Field(
        default_factory=dict, description="weight by part; a part not named keeps its own"
    )
    overlong: OverlongSettings | None = Field(None, description="short for the part overlong")
    parts: dict[str, SerializeAsAny[PartSettings]] = Field(
        default_factory=dict, description="parts by name: changed where the kind has them, else added"
    )

    @model_validator(mode="before")
    @classmethod
    def _parts_alone(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("parts") and "kind" not in data:
            return {"kind": "custom", **data}
        return data

    @field_validator("parts", mode="before")
    @classmethod
    def _typed_parts(cls, parts: Any, info: ValidationInfo) -> Any:
        if not isinstance(parts, Mapping):
            return parts
        preset = PRESETS.get(info.data.get("kind", "custom"), {})
        return {str(name): _typed(str(name), raw, preset.get(str(name), {})) for name, raw in parts.items()}

    @model_validator(mode="after")
    def _whole(self) -> RewardSettings:
        if self.overlong is not None and "overlong" in {*PRESETS[self.kind], *self.parts}:
            raise ValueError("overlong is there already as a part: set parts.overlong instead of overlong")
        known = dict.fromkeys([*PRESETS[self.kind], *self.parts, "overlong"])
        for name in self.weights:
            if name not in known:
                raise ValueError(
                    f"weights has a part {name!r}{nearest(name, known)}: expected one of {', '.join(known)}"
                )
        if not self.resolved():
            raise ValueError("kind is custom and parts is empty: name at least one part, such as parts: {accuracy: {}}")
        return self

    def resolved(self) -> dict[str, PartSettings]:
        """Every part by name: the kind's, then the others, with their final weights. One of weight 0 is not paid."""
        parts = {name: _typed(name, raw, {}) for name, raw in PRESETS[self.kind].items()} | self.parts
        if self.overlong is not None:
            parts["overlong"] = OverlongPart(part="overlong", **self.overlong.model_dump())
        return {
            name: part.model_copy(update={"weight": self.weights[name]}) if name in self.weights else part
            for name, part in parts.items()
        }

    @property
    def functions(self) -> list[str]:
        """Import paths of the user's own functions among the parts."""
        return [part.function for part in self.resolved().values() if isinstance(part, UserPart)]

    def described(self) -> str:
        """What is paid, and what is only monitored, in one line."""
        parts = self.resolved()
        paid = " + ".join(f"{part.weight:g} x {name}" for name, part in parts.items() if part.weight)
        watched = [name for name, part in parts.items() if not part.weight and part.monitor]
        idle = [name for name, part in parts.items() if not part.valued]
        found = f"reward: {paid or 'nothing is paid'}"
        if watched:
            found += f"; monitored, not paid: {', '.join(watched)} (weight 0; monitor: false saves computing it)"
        return found + (f"; not computed: {', '.join(idle)}" if idle else "")

    def phases(self, steps: int) -> list[int]:
        """The steps, counted from 1, at which the set of paid parts changes; 1 is always one of them."""
        windows = [part.window(steps) for part in self.resolved().values()]
        return sorted({1, *(s for first, last in windows for s in (first, last + 1) if 1 <= s <= steps)})

    def check_stage(self, steps: int, max_tokens: int) -> None:
        """Refuse what cannot work in a stage of so many steps, with responses of at most so many tokens."""
        parts = self.resolved()
        for name, part in parts.items():
            if isinstance(part, OverlongPart) and part.buffer is not None and part.buffer > max_tokens:
                raise ValueError(
                    f"reward.{name}.buffer is {part.buffer}, longer than the cap of {max_tokens} tokens: "
                    "every response would be punished; lower buffer"
                )
            first, last = part.window(steps)
            if first < 1 or first > steps or last > steps:
                raise ValueError(
                    f"reward.parts.{name} is paid in steps {first} to {last}, but the stage has {steps} steps: "
                    "change its from_step, to_step or last_steps"
                )
        for step in self.phases(steps):
            windows = [part.window(steps) for part in parts.values() if part.weight]
            if not any(first <= step <= last for first, last in windows):
                raise ValueError(
                    f"reward has no part that is paid in step {step}: widen a schedule, add a part or raise a weight"
                )


def _typed(name: str, raw: Any, preset: Mapping[str, Any]) -> PartSettings:
    """One entry of `parts` as the settings of its part; a number alone is its weight."""
    if isinstance(raw, PartSettings):
        return raw
    if raw is None or (isinstance(raw, int | float) and not isinstance(raw, bool)):
        raw = {} if raw is None else {"weight": raw}
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise _refusal(name, (name,), f"found {name!r}: expected letters, digits and _ (it names a metric)")
    if not isinstance(raw, Mapping):
        raise _refusal(raw, (name,), f"found {raw!r}: expected a weight, or settings such as {{weight: 0.5}}")
    part = raw.get("part", "user" if "function" in raw else name)
    raw = {**(preset if part == name else {}), **raw, "part": part}
    if not isinstance(part, str) or part not in PARTS:
        raise _refusal(
            part, (name,), f"there is no part {part!r}{nearest(str(part), PARTS)}; the parts are {', '.join(PARTS)}"
        )
    fields = PARTS[part].model_fields
    for key in raw:
        if key not in fields:
            raise _refusal(
                raw[key], (name, key), f"no such setting{nearest(str(key), fields)}; {part} has {', '.join(fields)}"
            )
    try:
        return PARTS[part].model_validate(raw)
    except ValidationError as error:
        details = [
            InitErrorDetails(type=e["type"], loc=(name, *e["loc"]), input=e["input"], ctx=e.get("ctx", {}))
            for e in error.errors()
        ]
        raise ValidationError.from_exception_data(part, details) from None


def _refusal(found: Any, place: tuple[str, ...], message: str) -> ValidationError:
    detail = InitErrorDetails(
        type=PydanticCustomError("value_error", "{message}", {"message": message}), loc=place, input=found
    )
    return ValidationError.from_exception_data("reward", [detail])

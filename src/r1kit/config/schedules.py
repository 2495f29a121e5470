"""Hyper-parameters that change over a stage: phases of settings, set or ramped, each left by step or by measurement.

`r1kit.training.schedules` walks through the phases; here is what they may say, and what a stage's settings are in each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from r1kit.config.fields import Count, NonNegative, Number, Settings
from r1kit.config.suggest import nearest

# What may change while a stage runs. Whatever shapes the model, the optimiser's state or the problem stream may not.
SCHEDULED = (
    "problems_per_step",
    "samples_per_problem",
    "sampling.max_tokens",
    "sampling.temperature",
    "algorithm.kl_coef",
    "algorithm.clip_low",
    "algorithm.clip_high",
    "dynamic_sampling.max_factor",
    "pools.mix",
    "pools.low",
    "pools.high",
    "reward.weights",
)
# Of these only the numbers inside are ramped.
_BLOCKS = ("pools.mix", "reward.weights")
_BATCH = ("problems_per_step", "samples_per_problem")
_WHOLE = (*_BATCH, "sampling.max_tokens")
Share = Annotated[float, Field(gt=0, le=1)]


class PlateauSettings(Settings):
    """Held-out results that stopped rising: the best of the last `evaluations` is no better than those before."""

    metric: str = Field("pass@1", description="a value of the stage's eval rows; larger is better")
    evaluations: Count = Field(3, description="how many of the newest evaluations have to show no gain")
    gain: NonNegative = Field(0.0, description="a rise up to this much counts as none")


class UntilSettings(Settings):
    """When a phase is over: as soon as one of these holds. None of them: the phase lasts to the end of the stage."""

    step: Count | None = Field(None, description="after this step of the stage")
    steps: Count | None = Field(None, description="after so many steps of the phase")
    remaining: Count | None = Field(None, description="when so many steps of the stage are left")
    truncated: Share | None = Field(None, description="mean share of truncated responses has come down to this")
    truncated_above: Share | None = Field(None, description="mean share of truncated responses has risen to this")
    clipped: Share | None = Field(None, description="mean share of clipped tokens (low and high) has risen to this")
    accuracy: Share | None = Field(None, description="mean training accuracy has risen to this")
    plateau: PlateauSettings | None = Field(None, description="held-out results have stopped rising")
    window: Count = Field(10, description="steps over which the means are taken")
    at_least: Count = Field(1, description="steps of the phase before any of its measured rules may end it")

    @property
    def measured(self) -> bool:
        """True where a rule depends on what the run measures."""
        rules = (self.truncated, self.truncated_above, self.clipped, self.accuracy, self.plateau)
        return any(rule is not None for rule in rules)

    @property
    def ever(self) -> bool:
        """True where anything can end the phase."""
        return self.measured or any(v is not None for v in (self.step, self.steps, self.remaining))


class RampSettings(Settings):
    """A straight line: `start` in the first step of the phase, `end` in step `steps` of it and in all that follow."""

    start: Number | None = Field(None, description="value in the phase's first step; none: what it was before")
    end: Number = Field(description="value from step `steps` of the phase on")
    steps: Annotated[Count, Field(ge=2)] = Field(description="steps from start to end, both included")

    def at(self, step: int, before: float, *, whole: bool) -> float:
        """The value in a step of the phase, counted from 1; `before`: in the step before the phase."""
        start = before if self.start is None else self.start
        value = self.end if step >= self.steps else start + (self.end - start) * ((step - 1) / (self.steps - 1))
        return math.floor(value + 0.5) if whole else value


class PhaseSettings(Settings):
    """Some settings of the stage, and how long they last. What a phase does not name stays as the phase before."""

    name: str = Field("", description="shown when the phase begins; none: its number")
    set: dict[str, Any] = Field(
        default_factory=dict, description="dotted setting -> value, such as sampling.max_tokens"
    )
    ramp: dict[str, RampSettings] = Field(
        default_factory=dict, description="dotted setting -> start, end and steps of a straight line"
    )
    until: UntilSettings = Field(default_factory=UntilSettings)

    @field_validator("set", "ramp")
    @classmethod
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:
        for path in values:
            if not any(path == known or path.startswith(f"{known}.") for known in SCHEDULED):
                raise ValueError(
                    f"a schedule cannot change {path!r}{nearest(path, SCHEDULED)}: it may set {', '.join(SCHEDULED)}"
                )
        return values

    @model_validator(mode="after")
    def _each_once(self) -> PhaseSettings:
        for path in self.ramp:
            if path in _BLOCKS:
                raise ValueError(f"ramp.{path} is a block, and only numbers are ramped: name one of it, {path}.<name>")
            fractions = [v for v in (self.ramp[path].start, self.ramp[path].end) if v is not None and v % 1]
            if path in _WHOLE and fractions:
                raise ValueError(f"ramp.{path} goes to or from {fractions[0]}: expected whole numbers")
            if any(f"{path}.".startswith(f"{other}.") for other in self.set):
                raise ValueError(f"{path} is in set and in ramp: a phase sets it or ramps it, not both")
        return self

    def changes(self) -> str:
        """What the phase changes, in words."""
        ramps = (f"{path}: to {r.end:g} over {r.steps} steps" for path, r in self.ramp.items())
        return ", ".join((*(f"{path}: {value}" for path, value in self.set.items()), *ramps)) or "as the stage has it"


Schedule = tuple[PhaseSettings, ...]


Model = TypeVar("Model", bound=BaseModel)


def check_schedule(settings: Any) -> None:
    """ValueError where a phase can never begin, or the stage could not run with its settings."""
    phases: Schedule = settings.schedule
    for number, phase in enumerate(phases[:-1], start=1):
        if not phase.until.ever:
            raise ValueError(f"schedule: phase {number} has no `until`, so the phases after it never begin: add one")
    steps = [phase.until.step for phase in phases if phase.until.step is not None]
    if steps != sorted({*steps}):
        raise ValueError(f"schedule: until.step is {steps} from phase to phase: expected rising steps")
    _check_times(phases, settings.steps)
    minibatches = settings.algorithm.minibatches
    for number, phase in enumerate(phases, start=1):
        if minibatches > 1 and (path := next((path for path in phase.ramp if path in _BATCH), None)):
            raise ValueError(
                f"schedule: phase {number} ramps {path}, whose values would not all divide into "
                f"algorithm.minibatches = {minibatches}: set it phase by phase, or minibatches: 1"
            )
    phases_of(settings)


def _check_times(phases: Schedule, total: int) -> None:
    """ValueError where a phase waits for a step that never comes, never begins, or ends before its ramps do."""
    for number, phase in enumerate(phases, start=1):
        for name in ("step", "steps"):
            value = getattr(phase.until, name)
            if value is not None and value > total:
                raise ValueError(
                    f"schedule: phase {number}: until.{name} is {value}, but the stage has {total} steps: that step "
                    f"never comes; lower until.{name} or raise steps"
                )
    spans = _spans(phases, total)
    for number, (phase, (first, last)) in enumerate(zip(phases, spans, strict=True), start=1):
        if first >= total:
            raise ValueError(
                f"schedule: phase {number} never begins: the phases before it last to the end of the stage's {total} "
                "steps; shorten them (until) or raise steps"
            )
        for path, ramp in phase.ramp.items():
            if first < last < first + ramp.steps:
                raise ValueError(
                    f"schedule: phase {number}: ramp.{path} takes {ramp.steps} steps, but the phase has at most "
                    f"{last - first}, so {ramp.end:g} is never reached: lower ramp.{path}.steps, or let the phase "
                    "last longer"
                )


def _spans(phases: Schedule, total: int) -> list[tuple[int, int]]:
    """For each phase the fewest steps that are done when it begins, and the most that are when it ends. The last one
    lasts to the end, whatever its `until`."""
    spans, earliest, latest = [], 0, 0
    for phase in phases[:-1]:
        until = phase.until

        def by_step(begin: int, until: UntilSettings = until) -> int:
            """The end that the rules by step set to a phase that begins after `begin` steps."""
            ends = [total, until.step or total, begin + (until.steps or total), total - (until.remaining or 0)]
            return max(begin, min(ends))

        begin, latest = earliest, by_step(latest)
        spans.append((begin, latest))
        earliest = min(by_step(begin), begin + until.at_least) if until.measured else by_step(begin)
    return [*spans, (earliest, total)] if phases else []


def phases_of(settings: Model) -> list[tuple[str, Model]]:
    """(name, settings) of the stage in each of its phases, in order, and at the end of the ramps of those that ramp;
    the stage's own alone, without a name, where it has no schedule.

    Each is validated as if it stood in the recipe; ValueError names the phase that could not. What a ramp passes
    through lies between two of these.
    """
    phases: Schedule = getattr(settings, "schedule", ())
    found: list[tuple[str, Model]] = []
    values: dict[str, Any] = {}
    for number, phase in enumerate(phases, start=1):
        before = values
        for name, step in (("", 1), (", end of its ramps", None)) if phase.ramp else (("", 1),):
            try:
                values = phase_values(settings, phase, before, step)
                found.append((f"phase {number}{name}", with_values(settings, values)))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(map(str, first["loc"]))
                message = first["msg"].removeprefix("Value error, ")
                place = f"{place}: " if place else ""
                raise ValueError(f"schedule: phase {number}{name}: {place}{message}") from None
    return found or [("", settings)]


def phase_values(settings: Any, phase: PhaseSettings, before: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    """What a schedule has changed in a step of a phase (counted from 1; None: its ramps are over): dotted setting ->
    value. `before`: what the phases before it left."""
    # A block that is set anew takes the place of what was said of its inside.
    values = {path: value for path, value in before.items() if not any(path.startswith(f"{p}.") for p in phase.set)}
    values |= phase.set
    for path, ramp in phase.ramp.items():
        start = _value(settings, before, path) if ramp.start is None else ramp.start
        values[path] = ramp.at(ramp.steps if step is None else step, start, whole=path in _WHOLE)
    return values


def _value(settings: Any, values: Mapping[str, Any], path: str) -> float:
    """A dotted setting as the stage has it, with `values` over its own."""
    node: Any = _data(settings, values)
    *parents, last = path.split(".")
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    value = node.get(last) if isinstance(node, dict) else None
    if value is None and path.startswith("reward.weights."):  # one that is not written is the part's own
        parts = settings.reward.resolved()
        value = parts[last].weight if last in parts else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"schedule: ramp.{path} has no start, and the stage no number {path}: give it one")
    return value


def with_values(settings: Model, values: Mapping[str, Any]) -> Model:
    """`settings` with dotted settings replaced, validated as a whole: what only a stage with all of its phases can be
    asked is left out (context `phase`)."""
    return type(settings).model_validate(_data(settings, values), context={"phase": True})


def _data(settings: BaseModel, values: Mapping[str, Any]) -> dict[str, Any]:
    data = settings.model_dump(mode="python", exclude={"schedule"})
    for path, value in values.items():
        *parents, last = path.split(".")
        node: Any = data
        for parent in parents:
            node = node.get(parent)
            if not isinstance(node, dict):
                raise ValueError(f"schedule: there is no setting {path}: {parent} holds no settings")
        if last not in node and parents[-1:] != ["weights"]:
            raise ValueError(f"schedule: there is no setting {path}{nearest(last, node)}")
        node[last] = deepcopy(value)
    return data

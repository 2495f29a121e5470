"""Hyper-parameters that change over a stage: phases of settings, each left by step or by what was measured.

`r1kit.training.schedules` walks through the phases; here is what they may say, and what a stage's settings are in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from r1kit.config.fields import Count, NonNegative, Settings
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


class PhaseSettings(Settings):
    """Some settings of the stage, and how long they last. What a phase does not name stays as the phase before."""

    name: str = Field("", description="shown when the phase begins; none: its number")
    set: dict[str, Any] = Field(
        default_factory=dict, description="dotted setting -> value, such as sampling.max_tokens"
    )
    until: UntilSettings = Field(default_factory=UntilSettings)

    @field_validator("set")
    @classmethod
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:
        for path in values:
            if not any(path == known or path.startswith(f"{known}.") for known in SCHEDULED):
                raise ValueError(
                    f"a schedule cannot change {path!r}{nearest(path, SCHEDULED)}: it may set {', '.join(SCHEDULED)}"
                )
        return values


Schedule = tuple[PhaseSettings, ...]


Model = TypeVar("Model", bound=BaseModel)


def check_schedule(settings: BaseModel) -> None:
    """ValueError where a phase can never begin, or the stage could not run with its settings."""
    phases: Schedule = getattr(settings, "schedule", ())
    for number, phase in enumerate(phases[:-1], start=1):
        if not phase.until.ever:
            raise ValueError(f"schedule: phase {number} has no `until`, so the phases after it never begin: add one")
    steps = [phase.until.step for phase in phases if phase.until.step is not None]
    if steps != sorted({*steps}):
        raise ValueError(f"schedule: until.step is {steps} from phase to phase: expected rising steps")
    phases_of(settings)


def phases_of(settings: Model) -> list[Model]:
    """The settings of the stage in each of its phases, in order; its own alone where it has no schedule.

    Each is validated as if it stood in the recipe; ValueError names the phase that could not.
    """
    phases: Schedule = getattr(settings, "schedule", ())
    found: list[Model] = []
    values: dict[str, Any] = {}
    for number, phase in enumerate(phases, start=1):
        values = {**values, **phase.set}
        try:
            found.append(_with_values(settings, values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"schedule: phase {number}: {f'{place}: ' if place else ''}{message}") from None
    return found or [settings]


def _with_values(settings: Model, values: Mapping[str, Any]) -> Model:
    """`settings` with dotted settings replaced, validated as a whole."""
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
        node[last] = value
    return type(settings).model_validate(data)

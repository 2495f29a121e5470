"""Settings of a `merge` stage: several checkpoints of one architecture into one, the best of a grid of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Native, Natural, NonNegative, Number, Positive, Settings, Share
from r1kit.config.parts import EvalSettings
from r1kit.config.stage import StageSettings

Method = Literal["linear", "slerp", "ties", "dare", "dare_ties"]
# Which settings each method reads.
READS: dict[str, tuple[str, ...]] = {
    "linear": ("weights",),
    "slerp": ("t",),
    "ties": ("weights", "density", "scale"),
    "dare": ("weights", "density", "scale", "seed"),
    "dare_ties": ("weights", "density", "scale", "seed"),
}
Weights = tuple[Number, ...]


class MergeGrid(Settings):
    """Values to try, every combination of them."""

    weights: tuple[Weights, ...] = Field((), description="weights of the models")
    t: tuple[Share, ...] = Field((), description="slerp's places between the two models")
    density: tuple[Share, ...] = Field((), description="shares of the changes that are kept")
    scale: tuple[Positive, ...] = Field((), description="factors of the merged change")


class MergeEvalSettings(EvalSettings):
    """How the candidates of a grid are measured."""

    split: Literal["train", "test"] = Field(
        "train", description="problems to choose by; train leaves the held-out ones to the stage that measures the best"
    )
    slots: Count = Field(256, description="responses decoded at a time, per process")
    native: Native = Field("off", description="see engine.native")


class MergeSettings(StageSettings):
    """Merge checkpoints; models/merge_methods.py has the methods."""

    edge_fields: ClassVar[tuple[str, ...]] = ("models", "base")
    produces_model: ClassVar[bool] = True
    kind: Literal["merge"] = "merge"
    models: tuple[str, ...] = Field(min_length=2, description="models to merge: ${stage}, or checkpoint directories")
    base: str | None = Field(None, description="ties and dare: the model from which the others were made")
    method: Method = "linear"
    weights: Weights | None = Field(None, description="one for each model; none: equal")
    normalise: bool = Field(True, description="weights are divided by their sum; false takes them as they are")
    t: Share = Field(0.5, description="slerp: 0 is the first model, 1 the second")
    density: Share = Field(0.5, description="ties, dare: share of the changes that is kept")
    scale: NonNegative = Field(1.0, description="ties, dare: factor of the merged change")
    seed: Natural = Field(0, description="dare: key of the entries that are dropped")
    grid: MergeGrid | None = Field(None, description="candidates; the best by pass@1 is handed on")
    evaluate: MergeEvalSettings = Field(default_factory=MergeEvalSettings)
    measure_inputs: bool = Field(True, description="with a grid: measure the models that are merged, too")

    @model_validator(mode="after")
    def _possible(self) -> MergeSettings:
        reads, fields = READS[self.method], type(self).model_fields
        for name in ("weights", "t", "density", "scale", "seed"):
            tried = getattr(self.grid, name, ())
            if name not in reads and (getattr(self, name) != fields[name].default or tried):
                raise ValueError(f"{name} is set, but method {self.method} does not read it: remove it")
        if self.needs_base and self.base is None:
            raise ValueError(
                f"method {self.method} merges changes from a base: set base to the model they were made from"
            )
        if not self.needs_base and self.base is not None:
            raise ValueError(f"base is set, but method {self.method} has none: remove it")
        if self.method == "slerp" and len(self.models) != 2:
            raise ValueError(f"slerp goes between two models, found {len(self.models)}: use linear, ties or dare")
        if self.needs_base and not (self.density > 0 and all(self.grid.density if self.grid else ())):
            raise ValueError("density is 0: nothing of the models would be kept")
        for weights in (*((self.weights,) if self.weights else ()), *(self.grid.weights if self.grid else ())):
            if len(weights) != len(self.models):
                raise ValueError(f"weights {list(weights)}: expected {len(self.models)} of them, one for each model")
            if self.normalise and not sum(weights) > 0:
                raise ValueError(f"weights {list(weights)} add up to {sum(weights):g}: a mean needs more than 0")
        if self.grid is not None and not any(getattr(self.grid, name) for name in type(self.grid).model_fields):
            raise ValueError("grid is empty: name values to try, such as t: [0.3, 0.5, 0.7]")
        return self

    @property
    def needs_base(self) -> bool:
        return self.method not in ("linear", "slerp")

    def candidates(self) -> Iterator[dict[str, Any]]:
        """The settings of models/merging.py for each candidate, in the order of the grid; one without a grid."""
        names = ("weights", "t", "density", "scale")
        own = {name: getattr(self, name) for name in (*names, "method", "normalise", "seed")}
        tried = {name: getattr(self.grid, name) for name in names if self.grid and getattr(self.grid, name)}
        for values in product(*tried.values()):
            yield {**own, **dict(zip(tried, values, strict=True))}

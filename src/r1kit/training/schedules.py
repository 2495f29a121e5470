"""Walks an RL stage through the phases of its schedule.

A phase ends by step or by what the run measured, and a ramp goes by the step; all of it depends on recorded,
reproducible values only, so a resumed run changes where the one left alone did. All state is plain JSON in the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from r1kit.config.schedules import phase_values, phases_of, with_values

# Rows that the measured rules read: setting of `until` -> value of a train row.
_MEASURED = ("truncated", "clipped", "accuracy")


class PhaseWalk:
    """The phase a stage is in. `now` are the stage's settings in the next step, `all` those of every phase."""

    def __init__(self, settings: Any, state: Mapping[str, Any]) -> None:
        self.settings = settings
        self.all = [found for _, found in phases_of(settings)]
        self.number = int(state.get("number", 0))
        self._began = int(state.get("began", 0))
        self._done = int(state.get("done", self._began))
        # What the phases before this one left: a ramp that was cut short leaves the value it had reached.
        self._left: dict[str, Any] = {}
        for phase in settings.schedule[: self.number]:
            self._left = phase_values(settings, phase, self._left, None)
        self._left = dict(state.get("left", self._left))
        self._recent: dict[str, list[float]] = {k: list(v) for k, v in state.get("recent", {}).items()}
        self._evaluations: list[float] = list(state.get("evaluations", []))
        self._set()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "number": self.number,
            "began": self._began,
            "done": self._done,
            "left": self._left,
            "recent": self._recent,
            "evaluations": self._evaluations,
        }

    def _set(self) -> None:
        """Settings of the next step, and what they are made of."""
        self.now, self._values = self.settings, dict[str, Any]()
        if self.settings.schedule:
            self._values = phase_values(self.settings, self._phase, self._left, self._done - self._began + 1)
            self.now = with_values(self.settings, self._values)

    @property
    def _phase(self) -> Any:
        return self.settings.schedule[self.number]

    @property
    def ramps(self) -> bool:
        """True where settings may change from step to step."""
        return bool(self.settings.schedule and self._phase.ramp)

    def metrics(self) -> dict[str, float]:
        """The phase's number, from 1, where there is a schedule, and what it ramps as it is in the next step."""
        if not self.settings.schedule:
            return {}
        return {"phase": self.number + 1, **{path: self._values[path] for path in self._phase.ramp}}

    def observe(self, row: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None) -> None:
        """A step's train row and, where one was made after it, its eval row."""
        if not self.settings.schedule:
            return
        until = self._phase.until
        values = {name: row.get(name) for name in _MEASURED}
        if "clip_low" in row and "clip_high" in row:
            values["clipped"] = row["clip_low"] + row["clip_high"]
        for name, value in values.items():
            if value is not None:
                self._recent[name] = [*self._recent.get(name, []), value][-until.window :]
        if until.plateau is not None and evaluation is not None and until.plateau.metric in evaluation:
            self._evaluations.append(float(evaluation[until.plateau.metric]))

    def settle(self, step: int) -> list[str]:
        """Go on to the phase that begins after `step` steps; what ended each phase that did, in words."""
        told = []
        while self.number + 1 < len(self.settings.schedule) and (why := self._over(step)):
            # A phase that no step was trained in leaves what it would have led to.
            trained = step - self._began or None
            self._left = phase_values(self.settings, self._phase, self._left, trained)
            self.number, self._began = self.number + 1, step
            self._recent, self._evaluations = {}, []
            told.append(f"phase {self.named} begins after step {step}: {why}; {self.changes}")
        self._done = step
        if told or self.ramps:
            self._set()
        return told

    def _over(self, step: int) -> str:
        """Why the phase is over after `step` steps; empty where it is not."""
        until, spent = self._phase.until, step - self._began
        if until.step is not None and step >= until.step:
            return f"step {until.step} is done"
        if until.steps is not None and spent >= until.steps:
            return f"{until.steps} steps are done"
        if until.remaining is not None and self.settings.steps - step <= until.remaining:
            return f"{until.remaining} steps are left"
        if not until.measured or spent < until.at_least:
            return ""
        return self._measured(until) or self._plateau(until)

    def _measured(self, until: Any) -> str:
        means = {name: fmean(v) for name, v in self._recent.items() if len(v) >= until.window}
        rules = (
            ("truncated", until.truncated, -1),
            ("truncated", until.truncated_above, 1),
            ("clipped", until.clipped, 1),
            ("accuracy", until.accuracy, 1),
        )
        for name, limit, sign in rules:
            if limit is not None and name in means and sign * (means[name] - limit) >= 0:
                way = "has risen to" if sign > 0 else "has come down to"
                return f"{name} {way} {means[name]:.3g} (limit {limit:g}, mean of {until.window} steps)"
        return ""

    def _plateau(self, until: Any) -> str:
        rule = until.plateau
        if rule is None or len(self._evaluations) <= rule.evaluations:
            return ""
        before, newest = self._evaluations[: -rule.evaluations], self._evaluations[-rule.evaluations :]
        if max(newest) > max(before) + rule.gain:
            return ""
        return (
            f"{rule.metric} has stopped rising: at most {max(newest):.3g} in the last {rule.evaluations} evaluations, "
            f"{max(before):.3g} before"
        )

    @property
    def changes(self) -> str:
        """What the phase changes, in words."""
        return str(self._phase.changes())

    @property
    def named(self) -> str:
        """The phase's number, from 1, and its name where it has one."""
        return f"{self.number + 1} ({self._phase.name})" if self._phase.name else str(self.number + 1)

"""The model before and after: which two evaluations a run is judged by, and their numbers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1kit.dashboard.formats import Estimate, Unit, change, finite, interval, number
from r1kit.dashboard.glossary import Entry, entry_of
from r1kit.dashboard.run_data import RunData, StageData, StoredEvaluation

# (key in the evaluation, label, unit, does more mean better: True, False, or None where it depends)
METRICS: tuple[tuple[str, str, Unit, bool | None], ...] = (
    ("tokens_mean", "tokens per response", "tokens", None),
    ("attempts", "attempts per response", "number", None),
    ("backtracking", "backtracking", "share", None),
    ("verification", "verification", "share", None),
    ("verdict_right", "verdicts right", "share", True),
    ("arithmetic_right", "arithmetic right", "share", True),
    ("numbers_right", "numbers right", "share", True),
    ("format_finished", "format, of finished", "share", True),
    ("right_finished", "right, of finished", "share", True),
    ("truncated", "truncated", "share", False),
    ("repeats", "repeated attempts", "share", False),
)
# An evaluation row of metrics.jsonl says some things by another name.
ROW_NAMES = {"tokens_mean": "response_tokens"}
PASS_KEY = "pass@"
# What must be equal for two evaluations to be compared.
PROTOCOL = ("benchmark", "n", "k", "cap", "temperature", "top_p", "top_k", "problems_hash", "prompts_hash")


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = values.get(key)
    return part if isinstance(part, Mapping) else {}


@dataclass(frozen=True)
class Measured:
    """One evaluation of one model. `values` is the `eval` object; `stored` its file, where there is one."""

    stage: str
    label: str
    values: Mapping[str, Any]
    stored: StoredEvaluation | None = None

    def estimate(self, key: str) -> Estimate | None:
        """A metric with its interval, where the evaluation kept one."""
        return Estimate.read(_part(self.values, "intervals").get(key)) or Estimate.read(self.values.get(key))

    def pass_at(self) -> dict[int, Estimate]:
        """pass@k by k, from `pass@1` and from `pass@k`."""
        many = _part(self.values, "pass@k")
        found = {}
        for k in sorted({1, *map(int, many)}):
            estimate = self.estimate(f"{PASS_KEY}{k}") or Estimate.read(many.get(str(k)))
            if estimate is not None:
                found[k] = estimate
        return found

    def protocol(self) -> str:
        """How it was measured: `512 problems × 8 samples, cap 240 tokens`."""
        n, k, cap = (finite(self.values.get(key)) for key in ("n", "k", "cap"))
        parts = [f"{n:,.0f} problems" if n else "", f"× {k:.0f} samples" if k else ""]
        text = " ".join(p for p in parts if p)
        temperature = finite(self.values.get("temperature"))
        extra = [f"cap {cap:,.0f} tokens" if cap else "", "" if temperature is None else f"T {temperature:g}"]
        return ", ".join(p for p in (text, *extra) if p)

    def errors(self) -> str:
        """What makes pass@1 uncertain: which responses were drawn, and which problems were asked."""
        decoding, problems = (finite(self.values.get(key)) for key in ("decoding_error", "problem_error"))
        if decoding is None or problems is None:
            return ""
        parts = f"{100 * decoding:.1f} points from sampling, {100 * problems:.1f} from the choice of problems"
        return f"standard error of pass@1: {parts}"


@dataclass(frozen=True)
class ComparisonRow:
    """One metric before and after; `wanted` says whether more is better (None: it depends)."""

    key: str
    label: str
    unit: Unit
    base: Estimate | None
    final: Estimate | None
    wanted: bool | None

    @property
    def change(self) -> str:
        return change(self.base.value, self.final.value, self.unit) if self.base and self.final else ""

    @property
    def better(self) -> bool | None:
        """True where the metric moved the good way, False the bad way, None where it cannot be told."""
        if self.wanted is None or self.base is None or self.final is None or self.base.value == self.final.value:
            return None
        return (self.final.value > self.base.value) == self.wanted

    @property
    def term(self) -> Entry | None:
        return entry_of(self.key)

    def cell(self, which: str) -> tuple[str, str]:
        """(value, interval) of "base" or "final" as text."""
        estimate: Estimate | None = getattr(self, which)
        return number(estimate.value if estimate else None, self.unit), interval(estimate, self.unit)


@dataclass(frozen=True)
class Comparison:
    """Base and final of a run; either may be missing while it is unfinished, and the final one is then "latest"."""

    base: Measured | None
    final: Measured | None
    final_name: str = "final"

    @property
    def same_protocol(self) -> bool:
        if self.base is None or self.final is None:
            return True
        return all(self.base.values.get(key) == self.final.values.get(key) for key in PROTOCOL)

    def rows(self) -> list[ComparisonRow]:
        """pass@k first, then behaviour; metrics that neither side has are left out."""
        base = self.base.pass_at() if self.base else {}
        final = self.final.pass_at() if self.final else {}
        rows = [
            ComparisonRow(f"{PASS_KEY}{k}", f"{PASS_KEY}{k}", "share", base.get(k), final.get(k), True)
            for k in sorted({*base, *final})
        ]
        for key, label, unit, wanted in METRICS:
            before = self.base.estimate(key) if self.base else None
            after = self.final.estimate(key) if self.final else None
            if before or after:
                rows.append(ComparisonRow(key, label, unit, before, after, wanted))
        return rows

    def row(self, key: str) -> ComparisonRow | None:
        return next((row for row in self.rows() if row.key == key), None)


def compare(run: RunData) -> Comparison:
    """The run's first and last measured models.

    Two evaluate stages measure base and result by one protocol, so they are the comparison. While the run is
    unfinished, or where the recipe has fewer: the newest measurement, against an evaluate stage before it, or the
    first measured stage before it, or the first row of its own stage.
    """
    proper = [m for m in map(_of_record, run.of_kind("evaluate")) if m]
    if len(proper) >= 2:
        return Comparison(proper[0], proper[-1])
    measured = [(stage, measurements) for stage in run.stages if (measurements := _all_of(stage))]
    if not measured:
        return Comparison(None, None)
    (_, last), earlier = measured[-1], measured[:-1]
    evaluated = [found[-1] for stage, found in earlier if stage.kind == "evaluate"]
    base = (evaluated or [found[-1] for _, found in earlier] or last)[0]
    final = last[-1] if last[-1] is not base else None
    return Comparison(base, final, "final" if run.finished else "latest")


def _of_record(stage: StageData) -> Measured | None:
    values = _part(stage.record, "eval")
    if Estimate.read(values.get("pass@1")) is None:
        return None
    stored = max(stage.evaluations, key=lambda e: float("inf") if e.step is None else e.step, default=None)
    return Measured(stage.name, stage.name, values, stored)


def _all_of(stage: StageData) -> list[Measured]:
    """What a stage measured, oldest first; its record, where it has one, stands for its last row."""
    rows = [row for row in stage.evals if Estimate.read(row.get("pass@1"))]
    files = {e.step: e for e in stage.evaluations}
    found = [_of_row(stage, row, files.get(row.get("step"))) for row in rows]
    record = _of_record(stage)
    return [*found[:-1], record] if record else found


def _of_row(stage: StageData, row: Mapping[str, Any], stored: StoredEvaluation | None) -> Measured:
    values: dict[str, Any] = {key: row.get(ROW_NAMES.get(key, key)) for key, _, _, _ in METRICS}
    values["pass@1"] = {"value": row["pass@1"], "low": row.get("pass@1_low"), "high": row.get("pass@1_high")}
    values["pass@k"] = {
        key.removeprefix(PASS_KEY): value
        for key, value in row.items()
        if key.startswith(PASS_KEY) and key.removeprefix(PASS_KEY).isdigit() and key != "pass@1"
    }
    planned = _part(stage.settings, "evaluate")
    values |= {"n": planned.get("problems"), "k": planned.get("samples"), "cap": planned.get("max_tokens")}
    return Measured(stage.name, f"{stage.name}, step {row.get('step', '?')}", values, stored)

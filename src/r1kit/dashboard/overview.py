"""The words and figures around the charts: headline, cards, set-up, stages, ledger, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from r1kit.config.rewards import RewardSettings
from r1kit.config.schema import EXPECTATION
from r1kit.dashboard.comparison import Comparison, ComparisonRow, Measured
from r1kit.dashboard.formats import compact, duration, finite, number
from r1kit.dashboard.run_data import RunData, StageData
from r1kit.dashboard.scales import line_path
from r1kit.dashboard.series import Series, read_series, smooth

TOKENS = ("sampled", "trained", "masked", "discarded")
# The figures of the first screen, and the training metric whose course is drawn beside each.
CARDS = (
    ("tokens_mean", "response_tokens"),
    ("attempts", "attempts"),
    ("backtracking", "backtracking"),
    ("verdict_right", "verdict_right"),
    ("format_finished", "format"),
    ("truncated", "truncated"),
)
SPARK = 100.0


@dataclass(frozen=True)
class Status:
    """One word on the run. `kind` colours it: "ok", "bad" or "open"."""

    kind: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Expected:
    """One line of `expect:` and the value found, as text."""

    text: str
    found: str


@dataclass(frozen=True)
class Card:
    row: ComparisonRow
    spark: str


@dataclass(frozen=True)
class TrackMark:
    """One measurement on the 0..100 % track, in per cent of its width."""

    name: str
    label: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class StageRow:
    """One line of the stage table; numbers are None where the stage has not said."""

    name: str
    kind: str
    status: str
    seconds: float | None
    cpu_seconds: float | None
    peak_memory: float | None
    tokens: dict[str, float | None]
    share: float
    measured: str


def title(run: RunData) -> str:
    """The heading that the recipe's report stage asks for, else the recipe's name."""
    wanted = next((stage.settings.get("title") for stage in run.of_kind("report")), "")
    return str(wanted or run.name)


def headline(run: RunData, comparison: Comparison) -> tuple[str, str]:
    """The result in one line, and what it is a result of."""
    row = comparison.row("pass@1")
    if row is None or row.base is None:
        return "No evaluation yet", "The headline appears with the first evaluation on held-out problems."
    base = number(row.base.value, "share")
    if row.final is None:
        return (
            f"{base} of held-out problems solved",
            f"pass@1 of {_label(comparison.base)}; nothing to compare it with yet.",
        )
    steps = [stage.last_step for stage in run.of_kind("rl") if stage.last_step]
    how = f" after {sum(steps):,} RL steps" if steps else ""
    return (
        f"From {base} to {number(row.final.value, 'share')}",
        f"of held-out problems solved by a single response (pass@1){how}.",
    )


def _label(measured: Measured | None) -> str:
    return measured.label if measured else "the model"


def status(run: RunData) -> Status:
    """Whether the run is finished, and whether what the recipe expects holds."""
    if not run.finished:
        open_stages = [stage for stage in run.stages if stage.status == "unfinished"]
        waiting = [stage.name for stage in run.stages if stage.status == "not started" and stage.kind != "report"]
        parts = [_progress(stage) for stage in open_stages]
        parts += [f"not started: {', '.join(waiting)}"] if waiting else []
        return Status("open", "unfinished run", "; ".join(parts))
    if "expect_ok" not in run.summary or not run.recipe.get("expect"):
        return Status("open", "finished, nothing was expected" if run.summary else "finished")
    if run.summary["expect_ok"]:
        return Status("ok", "finished, expectations hold")
    return Status("bad", "finished, an expectation does not hold")


def _progress(stage: StageData) -> str:
    total = stage.settings.get("steps")
    reached = f"step {stage.last_step:,}" if stage.last_step is not None else "begun"
    return f"{stage.name}: {reached}" + (f" of {total:,}" if isinstance(total, int) else "")


def expectations(run: RunData) -> list[Expected]:
    """`expect:` with what was found; whether all of it holds is in summary.json."""
    found = []
    for text in run.recipe.get("expect") or ():
        match = EXPECTATION.fullmatch(str(text).strip())
        stage = next((s for s in run.stages if match and s.name == match[1]), None)
        found.append(Expected(str(text), _found(stage, match[2]) if stage and match else "not known"))
    return found


def _found(stage: StageData, key: str) -> str:
    """The value of an expectation's metric, from the evaluation or from the stage's own record."""
    measured = Measured(stage.name, stage.name, _part(stage.record, "eval"))
    by_k = {f"pass@{k}": estimate.value for k, estimate in measured.pass_at().items()}
    estimate = measured.estimate(key)
    group, _, name = key.rpartition(".")
    record = _part(stage.record, group) if group else {**_part(stage.record, "metrics"), **stage.record}
    value = by_k.get(key, estimate.value if estimate else finite(record.get(name)))
    return "not measured" if value is None else f"found {value:.4g}"


def cards(run: RunData, comparison: Comparison) -> list[Card]:
    """The figures under the headline, each with its course over the (last) RL stage."""
    rl = run.of_kind("rl")
    found = []
    for key, metric in CARDS:
        row = comparison.row(key)
        if row is not None:
            found.append(Card(row, _spark(read_series(rl[-1].train, metric)) if rl else ""))
    return found


def _spark(series: Series) -> str:
    """The course of a series as a path in a square of 100, smoothed; empty for fewer than three points."""
    if len(series.x) < 3:
        return ""
    shown = smooth(series)
    low, high = min(shown.y), max(shown.y)
    span = (high - low) or 1.0
    width = shown.x[-1] - shown.x[0]
    return line_path(
        (SPARK * (x - shown.x[0]) / width, SPARK * (0.92 - 0.84 * (y - low) / span))
        for x, y in zip(shown.x, shown.y, strict=True)
    )


def track(comparison: Comparison) -> list[TrackMark]:
    """pass@1 of base and final on a track from 0 to 100 %."""
    marks = []
    sides = (("base", "base", comparison.base), ("final", comparison.final_name, comparison.final))
    for name, label, measured in sides:
        estimate = measured.estimate("pass@1") if measured else None
        if measured and estimate:
            low = estimate.value if estimate.low is None else estimate.low
            high = estimate.value if estimate.high is None else estimate.high
            marks.append(TrackMark(name, label, 100 * estimate.value, 100 * low, 100 * high))
    return marks


def setup(run: RunData) -> list[tuple[str, str]]:
    """What was done, in a few facts from the resolved recipe."""
    facts = [("Task", _task(run.recipe.get("task")))]
    for stage in run.of_kind("pretrain"):
        facts.append(("Base", ", ".join(_base_setup(stage.settings))))
    for stage in run.of_kind("rl"):
        facts += _rl_setup(stage.settings)
    facts.append(("Compute", _compute(run)))
    return [(name, text) for name, text in facts if text]


def _task(task: Any) -> str:
    if not isinstance(task, Mapping):
        return str(task or "")
    name = str(task.get("name", ""))
    numbers, low, high = task.get("numbers"), task.get("low"), task.get("high")
    if isinstance(numbers, (list, tuple)) and len(numbers) == 2:
        count = str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}–{numbers[1]}"
        return f"{name}: {count} numbers from {low}–{high}"
    if "digits_a" in task:
        return f"{name}: {task['digits_a']} × {task.get('digits_b', task['digits_a'])} digits"
    return name


def _base_setup(settings: Mapping[str, Any]) -> Iterator[str]:
    yield "from random weights"
    model = _part(settings, "model")
    if "layers" in model and "hidden" in model:
        yield f"{model['layers']} layers of width {model['hidden']}"
    if tokens := finite(settings.get("tokens")):
        yield f"{compact(tokens)} tokens"


def _rl_setup(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    problems, samples = settings.get("problems_per_step"), settings.get("samples_per_problem")
    if problems and samples:
        yield "Step", f"{problems} problems × {samples} samples"
    algorithm = _part(settings, "algorithm")
    if algorithm:
        kl = finite(algorithm.get("kl_coef"))
        preset = f"{algorithm['preset']}: " if algorithm.get("preset") else ""
        yield "Objective", f"{preset}advantage {_advantage(algorithm)}; {f'KL × {kl:g}' if kl else 'no KL'}"
    reward = _part(settings, "reward")
    overlong = _part(reward, "overlong")
    if reward.get("parts") or reward.get("kind", "tinyzero") not in ("tinyzero", "r1_zero"):
        yield "Reward", _composed(reward)
    elif reward:
        extra = "; nothing for length, attempts or checks"
        if overlong:
            shape = f"buffer {overlong.get('buffer')} tokens, penalty {overlong.get('penalty')}"
            extra = f"; with the overlong part ({shape})"
        yield "Reward", f"{reward.get('kind', '')}: accuracy and format by rule{extra}"


_BASELINES = {
    "group": "reward − group mean",
    "leave_one_out": "reward − mean of the others",
    "length_weighted": "reward − length-weighted group mean",
    "none": "reward",
    "critic": "estimated with a critic",
}
_SCALES = {"none": "{}", "std": "({}) / std", "batch_std": "({}) / std of the batch", "whiten": "{}, whitened"}


def _advantage(algorithm: Mapping[str, Any]) -> str:
    """What the policy's gradient is weighted with, in words."""
    baseline = str(algorithm.get("baseline", "group"))
    process = " + process rewards" if algorithm.get("process") else ""
    scale = _SCALES.get(str(algorithm.get("advantage")), "{}")
    return scale.format(_BASELINES.get(baseline, baseline) + process)


def _composed(reward: Mapping[str, Any]) -> str:
    """A reward's parts with their weights; its kind alone where another version wrote settings unknown here."""
    try:
        parts = RewardSettings.model_validate(dict(reward)).resolved()
    except ValidationError:
        return str(reward.get("kind", ""))
    return f"{reward.get('kind')}: " + " + ".join(f"{part.weight:g} × {name}" for name, part in parts.items())


def _part(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = settings.get(key)
    return part if isinstance(part, Mapping) else {}


def _compute(run: RunData) -> str:
    rows = stage_rows(run)
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return f"{duration(sum(seconds))} of wall time" if seconds else ""


def stage_rows(run: RunData) -> list[StageRow]:
    """Every stage of the recipe, finished or not, with its share of the run's time."""
    costs = [{**stage.begun, **stage.record} for stage in run.stages]
    total = sum(finite(cost.get("seconds")) or 0.0 for cost in costs) or 1.0
    rows = []
    for stage, cost in zip(run.stages, costs, strict=True):
        tokens = cost.get("tokens") if isinstance(cost.get("tokens"), Mapping) else {}
        seconds = finite(cost.get("seconds"))
        estimate = Measured(stage.name, stage.name, _part(stage.record, "eval")).estimate("pass@1")
        rows.append(
            StageRow(
                name=stage.name,
                kind=stage.kind,
                status=stage.status,
                seconds=seconds,
                cpu_seconds=finite(cost.get("cpu_seconds")),
                peak_memory=finite(cost.get("peak_memory_bytes")),
                tokens={name: finite((tokens or {}).get(name)) for name in TOKENS},
                share=(seconds or 0.0) / total,
                measured=number(estimate.value, "share") if estimate else "",
            )
        )
    return rows


@dataclass(frozen=True)
class LineageRow:
    """Where one stage's model came from and what it became: (path, content hash), each may be empty."""

    stage: str
    fingerprint: str
    input: tuple[str, str]
    output: tuple[str, str]
    finished: str


def lineage_rows(run: RunData) -> list[LineageRow]:
    """The stages of lineage.json, in order."""

    def file(stage: Mapping[str, Any], key: str) -> tuple[str, str]:
        part = _part(stage, key)
        return str(part.get("path", "")), str(part.get("sha256", ""))

    stages = {name: stage for name, stage in _part(run.lineage, "stages").items() if isinstance(stage, Mapping)}
    return [
        LineageRow(
            stage=str(name),
            fingerprint=str(stage.get("fingerprint", "")),
            input=file(stage, "input"),
            output=file(stage, "output"),
            finished=str(stage.get("finished", "")),
        )
        for name, stage in stages.items()
    ]


def ledger_facts(run: RunData) -> list[tuple[str, str]]:
    """The totals of ledger.json; empty where there is none."""
    total = _part(run.ledger, "total")
    tokens = _part(total, "tokens")
    facts = [(f"tokens {name}", number(finite(tokens.get(name)), "count")) for name in TOKENS if name in tokens]
    if "seconds" in total:
        facts.append(("wall time", duration(finite(total["seconds"]))))
    if "cpu_seconds" in total:
        facts.append(("CPU time", duration(finite(total["cpu_seconds"]))))
    if "energy_kwh" in total:
        facts.append(("energy, at the stated rate", f"{finite(total['energy_kwh']) or 0:.3g} kWh"))
    cost = _part(total, "cost")
    if cost:
        facts.append(("cost, at the stated rate", f"{finite(cost.get('amount')) or 0:.4g} {cost.get('currency', '')}"))
    return facts

"""What a reader with experience would check first, checked: each finding holds, or deserves a look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1kit.dashboard.comparison import Comparison
from r1kit.dashboard.formats import number
from r1kit.dashboard.glossary import Entry, entry_of
from r1kit.dashboard.run_data import RunData, StageData
from r1kit.dashboard.series import read_series, smooth

VERDICTS_BEFORE_RL = 0.9
USEFUL_GROUPS = 0.3
ENTROPY_KEPT = 0.1
FORMAT_FINISHED = 0.95
STEPS_TO_JUDGE = 6  # a shorter run says nothing about trends


@dataclass(frozen=True)
class Finding:
    """One check: `ok`, what was found, and the glossary entry that says what to do."""

    ok: bool
    text: str
    term: Entry | None


def find(run: RunData, comparison: Comparison) -> list[Finding]:
    """The checks that the run has data for, those that deserve a look first."""
    findings = [*_outcomes(comparison)]
    for stage in run.of_kind("rl"):
        findings += _training(stage)
    return sorted(findings, key=lambda finding: finding.ok)


def _outcomes(comparison: Comparison) -> Iterator[Finding]:
    first = comparison.row("pass@1")
    if first and first.base and first.final and first.base.has_interval and first.final.has_interval:
        apart = (first.final.low or 0) > (first.base.high or 0)
        text = (
            "pass@1 rose: the 95 % intervals of base and final do not touch"
            if apart
            else ("the 95 % intervals of base and final overlap: no gain is shown")
        )
        yield Finding(apart, text, first.term)
    verdicts = comparison.row("verdict_right")
    if verdicts and verdicts.base:
        yield Finding(
            verdicts.base.value >= VERDICTS_BEFORE_RL,
            f"the base's verdicts are right {number(verdicts.base.value, 'share')} of the time "
            f"(search pays from about {100 * VERDICTS_BEFORE_RL:g} %)",
            verdicts.term,
        )
    form = comparison.row("format_finished")
    if form and form.final:
        yield Finding(
            form.final.value >= FORMAT_FINISHED,
            f"{number(form.final.value, 'share')} of finished responses are well-formed "
            f"(aim {100 * FORMAT_FINISHED:g} %)",
            form.term,
        )


def _alarms(stage: StageData) -> Iterator[Finding]:
    """What the run itself raised, the newest of each name."""
    newest = {str(row.get("alarm")): row for row in stage.alarms}
    for name, row in newest.items():
        count = sum(other.get("alarm") == name for other in stage.alarms)
        times = f" ({count} times)" if count > 1 else ""
        yield Finding(False, f"alarm {row.get('message', name)}: {row.get('action', 'warn')}{times}", entry_of(name))
    if not stage.alarms and stage.train:
        yield Finding(True, "no alarm was raised", entry_of("alarm"))


def _training(stage: StageData) -> Iterator[Finding]:
    yield from _alarms(stage)
    truncated = smooth(read_series(stage.train, "truncated"))
    if len(truncated.y) >= STEPS_TO_JUDGE:
        peak, end = max(truncated.y), truncated.y[-len(truncated.y) // 3 :]
        mean = sum(end) / len(end)
        ok = mean < peak
        yield Finding(
            ok,
            f"truncated share: {number(mean, 'share')} in the last third, "
            f"{'below' if ok else 'not below'} its peak of {number(peak, 'share')}",
            entry_of("truncated"),
        )
    entropy = smooth(read_series(stage.train, "entropy"))
    if len(entropy.y) >= STEPS_TO_JUDGE and entropy.y[0] > 0:
        kept = entropy.y[-1] / entropy.y[0]
        yield Finding(
            kept >= ENTROPY_KEPT,
            f"entropy ends at {number(kept, 'share')} of where it began",
            entry_of("entropy"),
        )
    useful = read_series(stage.train, "useful_groups")
    if useful:
        mean = sum(useful.y) / len(useful.y)
        yield Finding(
            mean >= USEFUL_GROUPS,
            f"{number(mean, 'share')} of sampled groups could teach something",
            entry_of("useful_groups"),
        )

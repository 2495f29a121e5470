"""Which charts a stage shows, by its kind. A kind without a page of its own gets one chart per metric.

A curve names a metric and whether it comes from the training rows or the evaluation rows of metrics.jsonl;
curves without data are left out, and so are charts without curves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from r1kit.dashboard.formats import Unit
from r1kit.dashboard.glossary import entry_of
from r1kit.dashboard.run_data import StageData

Source = Literal["train", "eval"]
# Colours by meaning, the same in every chart: 1 held-out, 2 training, 3-5 further quantities.
HELD_OUT, TRAINING, THIRD, FOURTH, FIFTH = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Curve:
    key: str
    label: str
    source: Source
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class ChartSpec:
    """One chart. `wide` ones lead their group; `note` says what to look for."""

    title: str
    unit: Unit
    curves: tuple[Curve, ...]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class ChartGroup:
    title: str
    charts: tuple[ChartSpec, ...]


def both(key: str, *, held_out_key: str | None = None) -> tuple[Curve, Curve]:
    """A quantity that is measured on held-out problems and in training alike."""
    return (
        Curve(held_out_key or key, "held-out", "eval", HELD_OUT),
        Curve(key, "training", "train", TRAINING),
    )


RL_GROUPS = (
    ChartGroup(
        "Result",
        (
            ChartSpec(
                "Accuracy",
                "share",
                (
                    Curve("pass@1", "held-out pass@1", "eval", HELD_OUT),
                    Curve("accuracy", "training accuracy", "train", TRAINING),
                    Curve("pass@4", "held-out pass@4", "eval", THIRD, dashed=True),
                    Curve("pass@1_second", "pass@1, second verifier", "eval", FOURTH, dashed=True),
                ),
                "The band is the 95 % interval over problems.",
                wide=True,
            ),
            ChartSpec(
                "Response length",
                "tokens",
                (
                    *both("response_tokens"),
                    Curve("response_tokens_right", "right ones", "train", THIRD, dashed=True),
                    Curve("response_tokens_wrong", "wrong ones", "train", FOURTH, dashed=True),
                ),
                "Tokens per response. No part of the reward asks for length.",
                wide=True,
            ),
        ),
    ),
    ChartGroup(
        "Behaviour",
        (
            ChartSpec("Attempts per response", "number", both("attempts")),
            ChartSpec(
                "Reflection",
                "share",
                (
                    Curve("backtracking", "backtracking", "eval", HELD_OUT),
                    Curve("backtracking", "same, in training", "train", TRAINING),
                    Curve("verification", "verification", "eval", THIRD, dashed=True),
                ),
                "Responses that reject an attempt and try again, or check a result.",
            ),
            ChartSpec(
                "Self-verification",
                "share",
                both("verdict_right"),
                "Written verdicts (yes, no) that are true.",
            ),
            ChartSpec("Arithmetic right", "share", both("arithmetic_right"), "Written equations that hold."),
            ChartSpec("Truncated", "share", both("truncated"), "Responses cut at the cap."),
            ChartSpec(
                "Format",
                "share",
                (
                    Curve("format_finished", "held-out, of finished", "eval", HELD_OUT),
                    Curve("format", "training, of all", "train", TRAINING),
                ),
                "Well-formed responses.",
            ),
            ChartSpec(
                "Repetition",
                "share",
                (
                    Curve("repetition", "repeated 4-grams", "train", TRAINING),
                    Curve("one_token", "commonest token", "train", THIRD, dashed=True),
                ),
                "Of a response. Collapse shows here first.",
            ),
            ChartSpec(
                "Reflection words",
                "number",
                (Curve("reflection_words", "per 1,000 tokens", "train", TRAINING),),
                "wait, but, however, check and the like.",
            ),
            ChartSpec(
                "Code and language",
                "share",
                (
                    Curve("code_share", "in code fences", "train", TRAINING),
                    Curve("language_share", "words in the prompt's language", "train", THIRD, dashed=True),
                ),
            ),
        ),
    ),
    ChartGroup(
        "Training",
        (
            ChartSpec(
                "Reward",
                "number",
                (
                    Curve("reward", "mean reward", "train", TRAINING),
                    Curve("reward_accuracy", "accuracy part", "train", THIRD),
                    Curve("reward_format", "format part", "train", FOURTH),
                    Curve("reward_overlong", "overlong part", "train", FIFTH, dashed=True),
                ),
            ),
            ChartSpec("Entropy", "number", (Curve("entropy", "nats per token", "train", TRAINING),)),
            ChartSpec(
                "Useful groups",
                "share",
                (
                    Curve("useful_groups", "of groups sampled", "train", TRAINING),
                    Curve("all_right", "all right", "train", THIRD, dashed=True),
                    Curve("all_wrong", "all wrong", "train", FOURTH, dashed=True),
                ),
                "Groups with both better and worse responses.",
            ),
            ChartSpec(
                "Problem pool",
                "share",
                (
                    Curve("pool_hard", "too hard", "train", FOURTH),
                    Curve("pool_band", "in the band", "train", TRAINING),
                    Curve("pool_easy", "used up", "train", THIRD),
                    Curve("pool_asked", "asked so far, of all", "train", FIFTH, dashed=True),
                ),
                "Problems asked so far, by the posterior mean of their pass rate.",
            ),
            ChartSpec(
                "Engine against trainer",
                "small",
                (
                    Curve("gap_mean", "mean per token", "train", TRAINING),
                    Curve("gap_p95", "95th percentile", "train", THIRD),
                    Curve("gap_sequence_mean", "mean per response", "train", FOURTH, dashed=True),
                ),
                "Difference of log-probs of one policy, before anything is masked.",
            ),
            ChartSpec("Phase", "number", (Curve("phase", "of the schedule", "train", TRAINING),)),
            ChartSpec("Gradient norm", "number", (Curve("grad_norm", "before clipping", "train", TRAINING),)),
            ChartSpec(
                "Clip share",
                "share",
                (
                    Curve("clip_low", "below", "train", TRAINING),
                    Curve("clip_high", "above", "train", THIRD, dashed=True),
                ),
                "Zero is right when strictly on-policy.",
            ),
            ChartSpec(
                "KL",
                "small",
                (
                    Curve("approx_kl", "from the sampling policy", "train", TRAINING),
                    Curve("kl", "from the reference", "train", THIRD, dashed=True),
                ),
            ),
        ),
    ),
    ChartGroup(
        "Cost",
        (
            ChartSpec(
                "Tokens per step",
                "count",
                (
                    Curve("tokens_sampled", "sampled", "train", TRAINING),
                    Curve("tokens_trained", "trained", "train", THIRD),
                    Curve("tokens_masked", "masked", "train", FIFTH),
                    Curve("tokens_discarded", "discarded", "train", FOURTH, dashed=True),
                ),
            ),
            ChartSpec(
                "Step time",
                "number",
                (
                    Curve("sample_s", "sampling, s", "train", TRAINING),
                    Curve("train_s", "training, s", "train", THIRD),
                    Curve("reward_s", "judging, s", "train", FOURTH),
                    Curve("sync_s", "weight sync, s", "train", FIFTH, dashed=True),
                ),
            ),
            ChartSpec(
                "Speed",
                "count",
                (
                    Curve("tokens_per_s", "response tokens/s", "train", TRAINING),
                    Curve("sample_tokens_per_s", "of sampling alone", "train", THIRD, dashed=True),
                    Curve("train_tokens_per_s", "of training alone", "train", FOURTH, dashed=True),
                ),
            ),
            ChartSpec(
                "Groups per step",
                "number",
                (
                    Curve("groups_sampled", "sampled", "train", TRAINING),
                    Curve("groups_trained", "trained", "train", THIRD),
                    Curve("carried", "carried on", "train", FOURTH, dashed=True),
                    Curve("groups_failed", "failed", "train", FIFTH, dashed=True),
                ),
            ),
        ),
    ),
)

PRETRAIN_GROUPS = (
    ChartGroup(
        "Result",
        (
            ChartSpec("Loss", "number", (Curve("loss", "nats per token", "train", TRAINING),), wide=True),
            ChartSpec(
                "What it can do",
                "share",
                (
                    Curve("arithmetic_right", "arithmetic right", "eval", THIRD),
                    Curve("numbers_right", "numbers right", "eval", FOURTH),
                    Curve("verdict_right", "verdicts right", "eval", FIFTH),
                    Curve("pass@1", "pass@1", "eval", HELD_OUT),
                ),
                "Skills arrive one after another; the loss hardly shows it.",
                wide=True,
            ),
        ),
    ),
    ChartGroup(
        "Behaviour",
        (
            ChartSpec("Response length", "tokens", (Curve("response_tokens", "held-out", "eval", HELD_OUT),)),
            ChartSpec("Attempts per response", "number", (Curve("attempts", "held-out", "eval", HELD_OUT),)),
            ChartSpec("Backtracking", "share", (Curve("backtracking", "held-out", "eval", HELD_OUT),)),
        ),
    ),
    ChartGroup(
        "Training",
        (
            ChartSpec("Gradient norm", "number", (Curve("grad_norm", "before clipping", "train", TRAINING),)),
            ChartSpec("Learning rate", "small", (Curve("lr", "per step", "train", TRAINING),)),
            ChartSpec("Speed", "count", (Curve("tokens_per_s", "tokens/s", "train", TRAINING),)),
        ),
    ),
)

_PAGES = {"rl": RL_GROUPS, "pretrain": PRETRAIN_GROUPS}
_NOT_METRICS = {"stage", "kind", "step", "clock", "tokens"}


def groups_for(stage: StageData) -> tuple[ChartGroup, ...]:
    """The charts of a stage by its kind, and one for every logged metric that none of them shows."""
    groups = _PAGES.get(stage.kind, ())
    shown = {(curve.source, curve.key) for group in groups for chart in group.charts for curve in chart.curves}
    rest = tuple(_other_charts(stage, shown))
    return (*groups, ChartGroup("Other metrics" if groups else "Metrics", rest)) if rest else groups


def _other_charts(stage: StageData, shown: set[tuple[Source, str]]) -> Iterable[ChartSpec]:
    sources: tuple[tuple[Source, list[dict[str, object]]], ...] = (
        ("train", stage.train),
        ("eval", stage.evals),
    )
    known = {key for _, key in shown}
    curves: dict[str, list[Curve]] = {}
    for source, rows in sources:
        keys = {key for row in rows for key in row if not key.endswith(("_low", "_high")) or key in known}
        for key in sorted(keys - _NOT_METRICS):
            if (source, key) not in shown:
                colour, label = (HELD_OUT, "held-out") if source == "eval" else (TRAINING, "training")
                curves.setdefault(key, []).append(Curve(key, label, source, colour))
    for key, found in curves.items():
        entry = entry_of(key)
        yield ChartSpec(key.replace("_", " "), "number", tuple(found), entry.meaning if entry else "")

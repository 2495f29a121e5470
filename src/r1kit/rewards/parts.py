"""From a part's settings to a function of a group: what each part reads, and which equation it hands it to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from r1kit.config.errors import ConfigError
from r1kit.config.suggest import nearest
from r1kit.records import Problem, Rollout, Verdict
from r1kit.rewards import length, outcome, text
from r1kit.rewards.user import UserFunctionError, UserReward
from r1kit.tasks.templates import thinking_opened
from r1kit.verifiers.repetition import units


class ScoreSource(Protocol):
    """Where the scores of a reward model come from: one for each rollout, None where it could give none."""

    def __call__(self, problem: Problem, rollouts: Sequence[Rollout]) -> Sequence[float | None]: ...


class Unscored(Exception):
    """A verdict that a part reads is a skip or an error: the group has no reward."""


class PartError(Exception):
    """A part could give no value for a reason of its own: the group has no reward. `told`: the user knows why."""

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


@dataclass(frozen=True)
class Call:
    """One call of a reward: the group of a problem at a step, and what else a part may depend on."""

    problem: Problem
    rollouts: Sequence[Rollout]
    max_tokens: int
    step: int

    def verdicts(self, name: str) -> list[Verdict]:
        """The verdict `name` of each rollout, scores all."""
        for rollout in self.rollouts:
            if name not in rollout.verdicts:
                raise ValueError(
                    f"rollout {rollout.id} has no verdict {name}: verify it first; it has "
                    f"{', '.join(rollout.verdicts) or 'none'}"
                )
        found = [rollout.verdicts[name] for rollout in self.rollouts]
        if any(verdict.outcome != "score" for verdict in found):
            raise Unscored(name)
        return found

    def right(self, name: str) -> list[bool]:
        return [verdict.correct for verdict in self.verdicts(name)]

    @property
    def lengths(self) -> list[int]:
        return [rollout.response_length for rollout in self.rollouts]

    @property
    def opened(self) -> bool:
        return thinking_opened(self.problem)


Values = Callable[[Call], list[float]]


def build_part(name: str, s: Any, *, seed: int, sources: Mapping[str, ScoreSource]) -> Values:
    """The part that `s`, a PartSettings, describes, before its weight. ConfigError where it cannot work."""
    if s.part == "language":
        return _language(name, s)
    if s.part == "reward_model":
        return _reward_model(name, s, sources)
    if s.part == "user":
        return _user(s)
    if s.part == "random":
        return lambda call: [
            outcome.coin(s.probability, seed, name, call.step, r.problem_id, r.sample) for r in call.rollouts
        ]
    simple = _SIMPLE[s.part]
    return lambda call: simple(s, call)


def _language(name: str, s: Any) -> Values:
    try:
        text.language("any words", s.target)  # an unknown language is told now, not in the middle of a run
    except ValueError as error:
        raise ConfigError(f"reward.parts.{name}.target: {error}") from None

    return lambda call: [text.language(r.text, s.target, opened=call.opened) for r in call.rollouts]


def _reward_model(name: str, s: Any, sources: Mapping[str, ScoreSource]) -> Values:
    source = sources.get(name) or sources.get(s.source)
    if source is None:
        raise ConfigError(
            f"reward.parts.{name}.source is {s.source!r}{nearest(s.source, sources)}: no such source of scores; "
            f"this run has {', '.join(sources) or 'none'}"
        )

    def values(call: Call) -> list[float]:
        scores = source(call.problem, call.rollouts)
        if len(scores) != len(call.rollouts):
            raise PartError(f"source {s.source} gave {len(scores)} scores for {len(call.rollouts)} rollouts")
        for score, rollout in zip(scores, call.rollouts, strict=True):
            if score is None or not math.isfinite(score):
                raise PartError(f"source {s.source} has no score for rollout {rollout.id} (found {score})")
        return [float(score) for score in scores if score is not None]

    return values


def _user(s: Any) -> Values:
    function = UserReward(s.function, group=s.group)

    def values(call: Call) -> list[float]:
        try:
            return function(call.problem, call.rollouts)
        except UserFunctionError as error:
            raise PartError(str(error), told=True) from None

    return values


def _format(s: Any, call: Call) -> list[float]:
    forms = call.verdicts(s.verdict)
    if not s.only_if_wrong:
        return [outcome.score_of(form) for form in forms]
    return [outcome.consolation(*pair) for pair in zip(forms, call.verdicts("accuracy"), strict=True)]


def _cosine(s: Any, call: Call) -> list[float]:
    end = s.max_tokens or call.max_tokens
    return [
        length.cosine(n, right, end, right_ends=s.right, wrong_ends=s.wrong)
        for n, right in zip(call.lengths, call.right(s.verdict), strict=True)
    ]


def _overlong(s: Any, call: Call) -> list[float]:
    buffer = s.buffer or max(1, call.max_tokens // 5)
    return [s.penalty * length.overlong_penalty(n, call.max_tokens, buffer) for n in call.lengths]


def _lcpo(s: Any, call: Call) -> list[float]:
    target = s.target or call.problem.metadata.get("target_tokens")
    if not target:
        raise ConfigError(
            f"reward part {s.part} has no target, and problem {call.problem.id} names no target_tokens in its "
            "metadata: set one of them"
        )
    rows = zip(call.lengths, call.right(s.verdict), strict=True)
    if s.part == "lcpo_exact":
        return [length.lcpo_exact(n, right, target, alpha=s.alpha) for n, right in rows]
    return [length.lcpo_max(n, right, target, alpha=s.alpha, delta=s.delta) for n, right in rows]


def _repetition(s: Any, call: Call) -> list[float]:
    rows = [r.response_ids.tolist() if s.unit == "tokens" else units(r.text) for r in call.rollouts]
    return [s.penalty * text.repetition(row, ngram=s.ngram) for row in rows]


def _code_format(s: Any, call: Call) -> list[float]:
    language = str(call.problem.payload.get("language", s.language))
    return [text.code_format(r.text, opened=call.opened, language=language) for r in call.rollouts]


def _of_verdict(value: Callable[..., float], *names: str) -> Callable[[Any, Call], list[float]]:
    """A part that hands each verdict, and the named settings, to `value`."""

    def values(s: Any, call: Call) -> list[float]:
        settings = {name: getattr(s, name) for name in names}
        return [value(verdict, **settings) for verdict in call.verdicts(s.verdict)]

    return values


_SIMPLE: Mapping[str, Callable[[Any, Call], list[float]]] = {
    "accuracy": _of_verdict(outcome.accuracy, "right", "wrong", "no_answer"),
    "format": _format,
    "tag_count": lambda s, call: [
        text.tag_count(r.text, opened=call.opened, newlines=s.newlines) for r in call.rollouts
    ],
    "reasoning_steps": lambda s, call: [text.reasoning_steps(r.text, steps=s.steps) for r in call.rollouts],
    "length": lambda s, call: length.kimi_length(call.lengths, call.right(s.verdict)),
    "kimi_length": lambda s, call: length.kimi_length(call.lengths, call.right(s.verdict)),
    "cosine": _cosine,
    "repetition": _repetition,
    "code": _of_verdict(outcome.score_of),
    "binary_code": _of_verdict(outcome.binary_code, "above"),
    "code_format": _code_format,
    "ioi": _of_verdict(outcome.score_of),
    "cf": _of_verdict(outcome.codeforces, "mode", "bonus", "no_code", "not_compiled"),
    "overlong": _overlong,
    "lcpo_exact": _lcpo,
    "lcpo_max": _lcpo,
    "inverted": _of_verdict(outcome.inverted),
}

"""Alarms of an RL stage: each watches a few numbers of the rows, says in one message what it saw, and names its action.

An alarm fires when its condition becomes true, not again while it stays true. Conditions read recorded, reproducible
values only, and all state is in the checkpoint: a resumed run raises the same alarms at the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
Finding = tuple[str, dict[str, float]]


@dataclass(frozen=True)
class Alarm:
    """An alarm that fired: `message` explains it with its `numbers`."""

    name: str
    action: str
    step: int
    message: str
    numbers: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """Its row in metrics.jsonl (kind "alarm"); numbers that a rule does not have are missing."""
        return {"alarm": self.name, "action": self.action, "message": self.message, **self.numbers}


@dataclass
class Trend:
    """One metric over a window of steps: where it began, where it is, and its best so far."""

    window: int
    first: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    best: float | None = None
    seen: int = 0

    def add(self, value: float) -> None:
        self.seen += 1
        if len(self.first) < self.window:
            self.first.append(value)
        self.recent = [*self.recent, value][-self.window :]
        if len(self.recent) == self.window:
            self.best = max(self.now, self.best) if self.best is not None else self.now

    @property
    def start(self) -> float:
        return fmean(self.first)

    @property
    def now(self) -> float:
        return fmean(self.recent)

    @property
    def comparable(self) -> bool:
        """True once the newest window shares no step with the first."""
        return self.seen >= 2 * self.window

    @property
    def full(self) -> bool:
        return self.seen >= self.window


@dataclass
class Watch:
    """What one alarm has seen. `values` are trends by metric; `marks` what else it has to remember."""

    window: int
    values: dict[str, Trend] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    active: bool = False

    def add(self, row: Row, names: tuple[str, ...]) -> None:
        for name in names:
            if row.get(name) is not None:
                self.values.setdefault(name, Trend(self.window)).add(float(row[name]))

    def trend(self, name: str) -> Trend:
        return self.values.get(name) or Trend(self.window)

    def state(self) -> dict[str, Any]:
        return {
            "values": {n: dict(vars(t)) for n, t in self.values.items()},
            "marks": self.marks,
            "active": self.active,
        }

    @classmethod
    def restored(cls, window: int, state: Mapping[str, Any]) -> Watch:
        values = {name: Trend(**{**trend, "window": window}) for name, trend in state.get("values", {}).items()}
        return cls(window, values, dict(state.get("marks", {})), bool(state.get("active", False)))


class Alarms:
    """All alarms of a stage. `settings` is an AlarmSettings."""

    def __init__(self, settings: Any, state: Mapping[str, Any]) -> None:
        self.settings = settings.by_name()
        self._watches = {
            name: Watch.restored(alarm.window, state.get(name, {})) for name, alarm in self.settings.items()
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {name: watch.state() for name, watch in self._watches.items()}

    @property
    def quiet(self) -> bool:
        """True where no condition holds."""
        return not any(watch.active for watch in self._watches.values())

    def observe(self, step: int, row: Row, evaluation: Row | None = None) -> list[Alarm]:
        """The alarms that fire after a step, from its train row and, where one was made, its eval row."""
        fired = []
        for name, settings in self.settings.items():
            watch, (names, condition) = self._watches[name], CONDITIONS[name]
            watch.add(row, names)
            found = condition(watch, settings, row, evaluation)
            if found and not watch.active:
                message = f"{name} after step {step}: {found[0]}"
                fired.append(Alarm(name, settings.action, step, message, found[1]))
            watch.active = found is not None
        return fired


def entropy_collapse(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    entropy = watch.trend("entropy")
    if not entropy.comparable or entropy.now >= s.below * entropy.start:
        return None
    return (
        f"entropy is {entropy.now:.3g} nats a token (mean of {s.window} steps), down from {entropy.start:.3g} at the "
        f"start, below {s.below:g} of it: the policy explores no more. Lower the learning rate, raise clip_high, or "
        "add an entropy bonus",
        {"entropy": entropy.now, "entropy_start": entropy.start},
    )


def one_token_repetition(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    share = watch.trend("one_token")
    if not share.full or share.now <= s.above:
        return None
    return (
        f"{share.now:.0%} of a response is one and the same token (mean of {s.window} steps, limit {s.above:.0%}): the "
        "policy has fallen into repetition. Lower the learning rate, or look whether log-probs of engine and trainer "
        "agree (gap_*)",
        {"one_token": share.now},
    )


def length_collapse(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    length, accuracy = watch.trend("response_tokens"), watch.trend("accuracy")
    if not length.comparable or length.now >= s.below * length.start:
        return None
    rise = accuracy.now - accuracy.start if accuracy.comparable else 0.0
    if rise > s.gain:
        return None
    return (
        f"responses have {length.now:.3g} tokens (mean of {s.window} steps), down from {length.start:.3g} at the "
        f"start, and accuracy changed by {rise:+.3f}: thinking is being unlearned. Look for a length penalty that is "
        "too strong, or a format reward that short answers earn",
        {"response_tokens": length.now, "response_tokens_start": length.start, "accuracy_rise": rise},
    )


def reward_hacking(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    """Compares evaluations: reward over the window before the best one with reward now."""
    reward = watch.trend("reward")
    held_out = None if evaluation is None else evaluation.get("pass@1_second", evaluation.get("pass@1"))
    if held_out is None or not reward.recent:
        return _still(watch) if watch.active else None
    if held_out >= watch.marks.get("pass@1", -1.0):
        watch.marks = {"pass@1": float(held_out), "reward": reward.now}
        return None
    fall, rise = watch.marks["pass@1"] - held_out, reward.now - watch.marks["reward"]
    if fall < s.loss or rise < s.gain:
        return None
    watch.marks |= {"rise": rise, "fall": fall}
    return _still(watch)


def _still(watch: Watch) -> Finding:
    rise, fall = watch.marks["rise"], watch.marks["fall"]
    best = watch.marks["pass@1"]
    return (
        f"the training reward rose by {rise:.3g} while held-out pass@1 fell by {fall:.3g} from its best of {best:.3g}: "
        "the policy earns reward without solving problems. Read the best-rewarded responses of the last rollouts and "
        "mend the verifier or the reward",
        {"reward_rise": rise, "pass@1_fall": fall, "pass@1_best": best},
    )


def all_zero_rewards(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    """A wrong answer may cost something (kinds dapo and simplerl): then nothing earned is below 0."""
    reward, accuracy = watch.trend("reward"), watch.trend("accuracy")
    earned = max(reward.recent, default=1.0) > 0 if accuracy.recent else any(reward.recent)
    if not reward.full or earned or any(accuracy.recent):
        return None
    truncated, form = watch.trend("truncated"), watch.trend("format")
    shares = {"truncated": truncated.now if truncated.recent else 0.0, "format": form.now if form.recent else 0.0}
    return (
        f"in {s.window} steps no response was right and the mean reward never above 0, now {reward.now:.3g} "
        f"({shares['truncated']:.0%} truncated, {shares['format']:.0%} well-formed): look at the template, the cap and "
        "the verifier (r1kit check), then at the difficulty",
        {"reward": reward.now, **shares},
    )


def format_up_accuracy_down(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    form, accuracy = watch.trend("format"), watch.trend("accuracy")
    if not (form.comparable and accuracy.comparable) or accuracy.best is None or accuracy.best < s.floor:
        return None
    if form.now < form.start + s.gain or accuracy.now > (1.0 - s.loss) * accuracy.best:
        return None
    return (
        f"{form.now:.0%} of responses are well-formed, up from {form.start:.0%}, while accuracy fell to "
        f"{accuracy.now:.3g} from its best of {accuracy.best:.3g} (means of {s.window} steps): the policy lives on the "
        "format reward. Lower its weight, or use advantage: none",
        {"format": form.now, "format_start": form.start, "accuracy": accuracy.now, "accuracy_best": accuracy.best},
    )


def no_useful_group(watch: Watch, s: Any, row: Row, evaluation: Row | None) -> Finding | None:
    if not row.get("groups_sampled", 0) and row.get("groups_trained", 0):
        # Carried groups filled the step: no news of this kind.
        return _useless(watch, row, s) if watch.active else None
    watch.marks["steps"] = 0.0 if row["useful_groups"] > 0 else watch.marks.get("steps", 0.0) + 1.0
    return _useless(watch, row, s) if watch.marks["steps"] >= s.window else None


def _useless(watch: Watch, row: Row, s: Any) -> Finding:
    """In the words of the step at which the alarm fires."""
    sampled, failed = (float(row.get(name, 0.0)) for name in ("groups_sampled", "groups_failed"))
    shares = {name: float(row.get(name, 0.0)) for name in ("all_right", "all_wrong")}
    when = "in this step" if s.window == 1 else f"in {s.window} steps"
    if not sampled:
        text = (
            f"nothing could be sampled {when}: no problem was drawn whose prompt leaves room for a response. Shorten "
            "the prompts, lower sampling.max_tokens or raise token_budget (r1kit check compares them)"
        )
        return text, {"useful_groups": 0.0, "groups_sampled": 0.0}
    if sampled == failed:
        text = (
            f"no sampled group taught anything {when}, and of the last {failed:.0f} not one could be sampled and "
            "judged: the engine, the verifier or the reward fails, and the log names it. Until it is mended nothing is "
            "trained"
        )
        return text, {"useful_groups": 0.0, "groups_sampled": sampled, "groups_failed": failed}
    return (
        f"no sampled group had different rewards {when} ({shares['all_right']:.0%} all right, "
        f"{shares['all_wrong']:.0%} all wrong): there is nothing to learn from. All right: make the task harder. All "
        "wrong: easier problems, larger groups, a better base",
        {"useful_groups": 0.0, **shares},
    )


Condition = Callable[[Watch, Any, Row, Row | None], Finding | None]
# The trends each alarm needs, and its condition.
CONDITIONS: dict[str, tuple[tuple[str, ...], Condition]] = {
    "entropy_collapse": (("entropy",), entropy_collapse),
    "one_token_repetition": (("one_token",), one_token_repetition),
    "length_collapse": (("response_tokens", "accuracy"), length_collapse),
    "reward_hacking": (("reward",), reward_hacking),
    "all_zero_rewards": (("reward", "accuracy", "truncated", "format"), all_zero_rewards),
    "format_up_accuracy_down": (("format", "accuracy"), format_up_accuracy_down),
    "no_useful_group": ((), no_useful_group),
}

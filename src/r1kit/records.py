"""The words every room speaks: Problem, Verdict, Rollout, Group, Trace, PreferencePair.

All records are frozen and validated when made. `to_json` gives plain JSON values and `from_json` takes them back; the
pair is exact (`from_json(to_json(x)) == x`). A rollout is one flat token stream, prompt included: what was sampled is
what is trained, and text is never tokenised a second time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

Outcome = Literal["score", "skip", "error"]
Finish = Literal["stopped", "length", "aborted", "failed"]

SCORE_REASONS = ("correct", "wrong", "no_answer", "unparsable", "over_limit")
SKIP_REASONS = ("gold_invalid", "no_tests")
ERROR_REASONS = ("worker_lost", "voter_failed", "sandbox_failed")


class RecordError(ValueError):
    """A record that breaks its own rules; the message names the record, the field, and what was found."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RecordError(message)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `reasoning`: the thought of an assistant's turn, where it is known apart."""

    role: str
    content: str
    reasoning: str = ""

    def to_json(self) -> dict[str, str]:
        thought = {"reasoning": self.reasoning} if self.reasoning else {}
        return {"role": self.role, "content": self.content, **thought}


@dataclass(frozen=True)
class Problem:
    """A question whose answer can be checked.

    `payload` is what the verifier needs (gold answer, numbers and target, tests); the policy never sees it.
    `family` groups problems that share content (for countdown: the multiset of numbers); held-out splits and the
    bootstrap draw whole families. `prompt` is the conversation; `prefill` is text the assistant's turn starts with.
    A problem of a base model has a single message with role `"text"`: its content is the whole prompt, no template.
    """

    id: str
    prompt: tuple[Message, ...]
    task: str
    payload: Mapping[str, Any]
    family: str = ""
    prefill: str = ""
    source: str = "generated"
    split: str = "train"
    difficulty: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.id), "Problem.id is empty: give every problem a stable id")
        _require(bool(self.prompt), f"Problem {self.id}: prompt has no message")
        if not self.family:
            object.__setattr__(self, "family", self.id)
        for name in ("payload", "metadata"):
            object.__setattr__(self, name, _plain(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row["prompt"] = [m.to_json() for m in self.prompt]
        row["payload"], row["metadata"] = dict(self.payload), dict(self.metadata)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Problem:
        known = _known(cls, row)
        known["prompt"] = tuple(Message(**m) for m in row["prompt"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one response.

    `score` in [0, 1] exactly when outcome is "score": right, wrong, no answer, over limits are all the candidate's own
    doing. "skip": the problem cannot be judged. "error": our side failed; never trained, never counted as 0.
    `extracted` is the answer's span as written, `normal_form` what was compared, `voter` who decided.
    """

    outcome: Outcome
    score: float | None
    reason: str
    extracted: str | None = None
    normal_form: str | None = None
    voter: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        reasons = {"score": SCORE_REASONS, "skip": SKIP_REASONS, "error": ERROR_REASONS}
        _require(self.outcome in reasons, f"Verdict.outcome is {self.outcome!r}: expected one of {sorted(reasons)}")
        _require(
            self.reason in reasons[self.outcome],
            f"Verdict.reason is {self.reason!r}: a {self.outcome} has one of {reasons[self.outcome]}",
        )
        if self.outcome == "score":
            ok = self.score is not None and 0.0 <= self.score <= 1.0
            _require(ok, f"Verdict.score is {self.score!r}: expected a number in [0, 1]")
        else:
            _require(self.score is None, f"Verdict.score is {self.score!r}: a {self.outcome} carries no score")

    @classmethod
    def scored(cls, score: float, reason: str, **rest: Any) -> Verdict:
        return cls("score", float(score), reason, **rest)

    @property
    def correct(self) -> bool:
        return self.outcome == "score" and self.score == 1.0

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Verdict:
        return cls(**_known(cls, row))


@dataclass(frozen=True, eq=False)
class Rollout:
    """One sampled response as one flat token stream of length T (prompt first).

    Parallel arrays, all of length T: `token_ids` int32; `loss_mask` bool (True where the policy chose the token);
    `logprobs` float32 natural log (0 where not sampled), of the distribution sampled from; `policy_versions` int32
    (-1 where not sampled); `temperatures` float32 (0 where not sampled).
    `rewards` holds each reward part by name (already weighted); `reward` is their sum.
    """

    problem_id: str
    sample: int
    prompt_length: int
    token_ids: np.ndarray
    loss_mask: np.ndarray
    logprobs: np.ndarray
    policy_versions: np.ndarray
    temperatures: np.ndarray
    finish: Finish
    text: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=dict)

    _ARRAYS: ClassVar[dict[str, Any]] = {
        "token_ids": np.int32,
        "loss_mask": np.bool_,
        "logprobs": np.float32,
        "policy_versions": np.int32,
        "temperatures": np.float32,
    }

    def __post_init__(self) -> None:
        where = f"Rollout {self.problem_id}/{self.sample}"
        for name, dtype in self._ARRAYS.items():
            array = np.asarray(getattr(self, name), dtype=dtype)
            _require(array.ndim == 1, f"{where}: {name} has shape {array.shape}, expected one axis")
            _require(
                len(array) == len(self.token_ids),
                f"{where}: {name} has {len(array)} entries, token_ids has {len(self.token_ids)}",
            )
            object.__setattr__(self, name, array)
        _require(
            0 < self.prompt_length <= len(self.token_ids),
            f"{where}: prompt_length {self.prompt_length} does not fit {len(self.token_ids)} tokens",
        )
        _require(not self.loss_mask[: self.prompt_length].any(), f"{where}: loss_mask covers prompt tokens")
        _require(self.finish in get_args(Finish), f"{where}: finish is {self.finish!r}, expected {get_args(Finish)}")
        _require(bool(np.isfinite(self.logprobs).all()), f"{where}: a log-prob is not finite")

    @property
    def id(self) -> str:
        return f"{self.problem_id}/{self.sample}"

    @property
    def reward(self) -> float:
        return math.fsum(self.rewards.values())

    @property
    def response_ids(self) -> np.ndarray:
        return self.token_ids[self.prompt_length :]

    @property
    def response_length(self) -> int:
        """Tokens after the prompt, the stop token included."""
        return len(self.token_ids) - self.prompt_length

    @property
    def truncated(self) -> bool:
        return self.finish == "length"

    def scored(self, verdicts: Mapping[str, Verdict], rewards: Mapping[str, float]) -> Rollout:
        return replace(self, verdicts=dict(verdicts), rewards=dict(rewards))

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in self._ARRAYS:
            row[name] = getattr(self, name).tolist()
        row["verdicts"] = {name: v.to_json() for name, v in self.verdicts.items()}
        row["rewards"] = dict(self.rewards)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Rollout:
        known = _known(cls, row)
        known["verdicts"] = {name: Verdict.from_json(v) for name, v in row.get("verdicts", {}).items()}
        return cls(**known)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rollout) and self.to_json() == other.to_json()


@dataclass(frozen=True, eq=False)
class Group:
    """The G rollouts of one problem under one policy: trained whole or dropped whole, the reason counted."""

    problem: Problem
    rollouts: tuple[Rollout, ...]

    def __post_init__(self) -> None:
        _require(bool(self.rollouts), f"Group {self.problem.id}: no rollout")
        for rollout in self.rollouts:
            _require(
                rollout.problem_id == self.problem.id,
                f"Group {self.problem.id}: holds a rollout of problem {rollout.problem_id}",
            )

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.rollouts)

    def __len__(self) -> int:
        return len(self.rollouts)

    @property
    def rewards(self) -> np.ndarray:
        """Rewards of shape [G], float64."""
        return np.array([r.reward for r in self.rollouts], dtype=np.float64)

    @property
    def failed(self) -> bool:
        """True where a rollout could not be judged or sampled: such a group is dropped whole, never trained."""
        return any(
            r.finish in ("aborted", "failed") or any(v.outcome != "score" for v in r.verdicts.values())
            for r in self.rollouts
        )

    def to_json(self) -> dict[str, Any]:
        return {"problem": self.problem.to_json(), "rollouts": [r.to_json() for r in self.rollouts]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.problem == other.problem and self.rollouts == other.rollouts

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Group:
        return cls(Problem.from_json(row["problem"]), tuple(Rollout.from_json(r) for r in row["rollouts"]))


@dataclass(frozen=True)
class Trace:
    """A conversation to learn from: its last turn is the assistant's, reasoning and answer apart.

    A trace of a base model begins with one message of role "text", its whole prompt. `provenance` says where it comes
    from: the file and line, or teacher, checkpoint, sampling settings and verdicts of a generated one.
    """

    id: str
    messages: tuple[Message, ...]
    problem_id: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.id), "Trace.id is empty: give every trace a stable id")
        _require(len(self.messages) > 1, f"Trace {self.id}: expected a prompt and a response")
        _require_response(f"Trace {self.id}: the last turn", self.messages[-1])
        object.__setattr__(self, "provenance", _plain(self.provenance))

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All turns before the last."""
        return self.messages[:-1]

    @property
    def response(self) -> Message:
        """The last turn."""
        return self.messages[-1]

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row["messages"] = [m.to_json() for m in self.messages]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Trace:
        known = _known(cls, row)
        known["messages"] = tuple(Message(**m) for m in row["messages"])
        return cls(**known)


@dataclass(frozen=True)
class PreferencePair:
    """Two responses to one prompt, the first preferred. `why` says by what: a person, a verifier, length."""

    id: str
    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    why: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.id), "PreferencePair.id is empty: give every pair a stable id")
        _require(bool(self.prompt), f"PreferencePair {self.id}: prompt has no message")
        for name in ("chosen", "rejected"):
            _require_response(f"PreferencePair {self.id}: {name}", getattr(self, name))
        _require(self.chosen != self.rejected, f"PreferencePair {self.id}: chosen and rejected are equal")
        object.__setattr__(self, "provenance", _plain(self.provenance))

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row["prompt"] = [m.to_json() for m in self.prompt]
        return row | {"chosen": self.chosen.to_json(), "rejected": self.rejected.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> PreferencePair:
        known = _known(cls, row)
        known["prompt"] = tuple(Message(**m) for m in row["prompt"])
        known["chosen"], known["rejected"] = Message(**row["chosen"]), Message(**row["rejected"])
        return cls(**known)


def _require_response(what: str, message: Message) -> None:
    _require(message.role == "assistant", f"{what} is of role {message.role!r}, expected the assistant's")
    _require(bool(message.content.strip() or message.reasoning.strip()), f"{what} is empty")


def _known(cls: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` as constructor arguments, unknown keys refused by name."""
    names = {f.name for f in fields(cls)}
    unknown = sorted(set(row) - names)
    _require(not unknown, f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {sorted(names)}")
    return dict(row)


def _plain(value: Any) -> Any:
    """Mappings and sequences as JSON gives them back: dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def prompt_text(messages: Sequence[Message]) -> str:
    """A conversation in one readable string, for reports."""
    return "\n".join(m.content if m.role == "text" else f"[{m.role}] {m.content}" for m in messages)

"""Ask the held-out problems and judge the answers: one row of numbers per response, in shards that add up.

A shard is every size-th problem, so any number of processes can share an evaluation. The noise of a
response is keyed by (seed, problem, sample) and by nothing else: two shards never share noise, and one
process or four draw the same responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from r1kit.engines.protocol import Engine, Request, Sample, SamplingParams
from r1kit.evaluation.rollouts import make_rollout, response_texts
from r1kit.models.chat import stop_token_ids
from r1kit.records import Finish, Group, Outcome, Problem, Rollout, Verdict
from r1kit.tasks import Task, verify_many

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodePrompt = Callable[["PreTrainedTokenizerBase", Problem], list[int]]
Progress = Callable[[int, int], None]

# Responses asked for at a time where progress is watched: a wave's last responses run alone, so waves are
# not small.
WAVE = 1024
# Responses kept of each example problem.
SAMPLES_KEPT = 2
# How a whole response ends: by itself or at the cap. Any other is the engine's failure.
WHOLE = ("stopped", "length")


class EvaluationError(ValueError):
    """An evaluation that cannot be made or whose parts do not fit; the message names the part and the
    remedy."""


@dataclass(frozen=True)
class Scored:
    """One response, measured. `index`: place of its problem in the evaluation's list.

    `outcome` is the accuracy verdict's: only a "score" has `right`; "skip" (the problem cannot be judged)
    and "error" (our side failed: verifier or engine) are counted apart and are never a 0. `format` in [0,
    1]; None where it was not judged. `tokens`: of the response, the stop token included. `statistics`: what
    the task's `statistics` found.
    """

    index: int
    problem_id: str
    family: str
    sample: int
    outcome: Outcome
    reason: str
    right: bool | None
    format: float | None
    tokens: int
    finish: Finish
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def sampled(self) -> bool:
        """True where the engine gave a whole response (ended by itself or at the cap)."""
        return self.finish in WHOLE

    @property
    def kind(self) -> str:
        """What an example of it shows: right, wrong, truncated or unjudged."""
        if self.right is None:
            return "unjudged"
        if self.right:
            return "right"
        return "truncated" if self.finish == "length" else "wrong"

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        return row | {"statistics": dict(self.statistics)}


@dataclass(frozen=True)
class Shard:
    """What one process measured, as plain values that travel: rows, a digest per prompt, example responses
    by index."""

    rows: tuple[Scored, ...]
    prompts: Mapping[str, str]
    examples: Mapping[int, Group]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [row.to_json() for row in self.rows],
            "prompts": dict(self.prompts),
            "examples": [[index, group.to_json()] for index, group in self.examples.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shard:
        return cls(
            tuple(Scored(**row) for row in value["rows"]),
            dict(value["prompts"]),
            {int(index): Group.from_json(group) for index, group in value["examples"]},
        )


def select_problems(problems: Sequence[Problem], settings: Any) -> list[Problem]:
    """The first `settings.problems` problems; EvaluationError where there is none or an id comes twice."""
    chosen = list(problems[: settings.problems])
    if not chosen:
        raise EvaluationError("evaluate: there is no problem to ask; is the task's test split empty?")
    seen: set[str] = set()
    for problem in chosen:
        if problem.id in seen:
            raise EvaluationError(f"evaluate: problem id {problem.id} comes twice; ids must be unique")
        seen.add(problem.id)
    return chosen


def sample_and_score(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    problems: Sequence[Problem],
    settings: Any,
    *,
    seed: int,
    encode_prompt: EncodePrompt,
    rank: int = 0,
    size: int = 1,
    examples: int = 16,
    progress: Progress | None = None,
) -> Shard:
    """Sample and judge `settings.samples` responses of each problem of this shard (problems[rank::size]).

    `problems` is the whole list on every rank, as `select_problems` gives it. `settings`: samples,
    max_tokens, temperature, top_p, and top_k where it has one. The first `examples` problems keep responses
    as examples (the same problems at every evaluation, whatever the outcome, so that they can be compared
    through time), and so does the first problem that shows a kind of response (see `Scored.kind`).
    `progress(done, total)` counts this shard's responses.
    """
    params = SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=getattr(settings, "top_k", 0),  # the short evaluations during training have no such knob
        max_tokens=settings.max_tokens,
        stop_token_ids=stop_token_ids(tokenizer),
        seed=seed,
    )
    mine = list(enumerate(problems))[rank::size]
    per_wave = max(1, WAVE // settings.samples) if progress else max(1, len(mine))
    asker = _Asker(engine, tokenizer, task, params, settings.samples, encode_prompt)
    rows: list[Scored] = []
    prompts: dict[str, str] = {}
    kept: dict[int, Group] = {}
    kinds: set[str] = set()
    for start in range(0, len(mine), per_wave):
        for index, problem, prompt_ids, judged in asker.ask(mine[start : start + per_wave]):
            found = [row for row, _ in judged]
            rows += found
            prompts[problem.id] = _digest(prompt_ids)
            new = {row.kind for row in found} - kinds
            kinds |= new
            if index < examples or new:
                kept[index] = Group(problem, _examples(judged))
        if progress:
            progress(len(rows), len(mine) * settings.samples)
    return Shard(tuple(rows), prompts, kept)


Judged = list[tuple[Scored, Rollout]]


@dataclass(frozen=True)
class _Asker:
    """Asks a wave of problems: requests out, samples in, each judged by the task."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    task: Task
    params: SamplingParams
    samples: int
    encode_prompt: EncodePrompt

    def ask(self, wave: Sequence[tuple[int, Problem]]) -> list[tuple[int, Problem, tuple[int, ...], Judged]]:
        prompts = [tuple(self.encode_prompt(self.tokenizer, problem)) for _, problem in wave]
        requests = [
            Request(f"{problem.id}/{s}", prompt_ids, self.params, problem.id, s)
            for (_, problem), prompt_ids in zip(wave, prompts, strict=True)
            for s in range(self.samples)
        ]
        samples = self.engine.generate(requests)
        texts = response_texts(self.tokenizer, samples, self.params.stop_token_ids)
        answers = list(zip(samples, texts, self._verdicts(wave, samples, texts), strict=True))
        asked = []
        for place, ((index, problem), prompt_ids) in enumerate(zip(wave, prompts, strict=True)):
            own = answers[place * self.samples : (place + 1) * self.samples]
            judged = [self._judge(index, problem, prompt_ids, s, *answer) for s, answer in enumerate(own)]
            asked.append((index, problem, prompt_ids, judged))
        return asked

    def _verdicts(
        self, wave: Sequence[tuple[int, Problem]], samples: Sequence[Sample], texts: Sequence[str]
    ) -> list[dict[str, Verdict]]:
        """The verdicts of every response, a whole wave judged together; none for one that the engine lost."""
        whole = [i for i, sample in enumerate(samples) if sample.finish in WHOLE]
        problems = [wave[i // self.samples][1] for i in whole]
        judged = dict(zip(whole, verify_many(self.task, problems, [texts[i] for i in whole]), strict=True))
        return [judged.get(i, {}) for i in range(len(samples))]

    def _judge(
        self,
        index: int,
        problem: Problem,
        prompt_ids: tuple[int, ...],
        s: int,
        sample: Sample,
        text: str,
        verdicts: dict[str, Verdict],
    ) -> tuple[Scored, Rollout]:
        rollout = make_rollout(problem.id, s, prompt_ids, sample, temperature=self.params.temperature, text=text)

        def scored(outcome: Outcome, reason: str, **rest: Any) -> Scored:
            return Scored(
                index, problem.id, problem.family, s, outcome, reason,
                tokens=rollout.response_length, finish=sample.finish, **rest,
            )  # fmt: skip

        if sample.finish not in WHOLE:
            reason = sample.stop_reason or sample.finish
            return scored("error", reason, right=None, format=None), rollout
        accuracy, well_formed = verdicts["accuracy"], verdicts.get("format")
        row = scored(
            accuracy.outcome,
            accuracy.reason,
            right=accuracy.correct if accuracy.outcome == "score" else None,
            format=well_formed.score if well_formed else None,
            statistics=self.task.statistics(problem, text),
        )
        return row, rollout.scored(verdicts, {})


def _examples(judged: Judged) -> tuple[Rollout, ...]:
    """The first responses, and the first of each further kind. Depends on this problem only, not on the
    shard."""
    kept = list(judged[:SAMPLES_KEPT])
    shown = {row.kind for row, _ in kept}
    for row, rollout in judged[SAMPLES_KEPT:]:
        if row.kind not in shown:
            shown.add(row.kind)
            kept.append((row, rollout))
    return tuple(rollout for _, rollout in kept)


def _digest(prompt_ids: Sequence[int]) -> str:
    return hashlib.blake2b(np.asarray(prompt_ids, dtype="<i4").tobytes(), digest_size=8).hexdigest()

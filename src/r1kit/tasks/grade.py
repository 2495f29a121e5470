"""Grade stored answers again: pairs of gold and prediction, or problems and responses, to verdicts in order.

Everything is read and checked before anything is judged. A judge that raises, or a worker that is lost, costs no row:
what could not be decided is tried once more and is then an error with its reason.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from r1kit.config.errors import UserError
from r1kit.config.machine import usable_cores
from r1kit.records import Verdict
from r1kit.tasks.columns import IDS, OWN, Item, find_columns, item_of
from r1kit.tasks.data_files import Row, read_rows
from r1kit.tasks.own_judge import OwnJudge, judge_of_run
from r1kit.tasks.shapes import read_s1
from r1kit.verifiers.registry import Judge, make_judge

In = TypeVar("In")
Out = TypeVar("Out")
Policies = Mapping[str, Mapping[str, Any]]

THREADS = max(4, usable_cores())  # judges wait for voters and sandboxes, which are processes
AHEAD = 16 * THREADS  # judged before their turn to be written
RESPONSES = ("response", "responses", "completion", "completions", "prediction", "output", "text")


@dataclass(frozen=True, slots=True)
class Job:
    """A prediction and its judge; without a judge `refusal` says why. `before`: the score it was stored with."""

    id: Any
    prediction: str
    judge: Judge | None
    refusal: str = ""
    opened: bool = False
    sample: int | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """A job's verdict. `trouble`: what the judge raised."""

    job: Job
    verdict: Verdict
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        v, job = self.verdict, self.job
        row = {"id": job.id} | ({} if job.sample is None else {"sample": job.sample})
        row |= {"outcome": v.outcome, "score": v.score, "reason": v.reason, "extracted": v.extracted, "voter": v.voter}
        return row | {"seconds": round(v.seconds, 6)}


@dataclass
class Refusals:
    """Rows that cannot be judged: the first ends the reading, or all are kept as skips and named."""

    keep_going: bool = False
    messages: list[str] = field(default_factory=list)

    def refuse(self, place: str, message: str, ident: Any = None) -> Job:
        text = f"{place}: {message}"
        if not self.keep_going:
            raise UserError(f"{text}; nothing was judged (--keep-going makes such rows skips)")
        self.messages.append(text)
        return Job(ident, "", None, text)


def _judge(item: Item, policy: Mapping[str, Any], own: OwnJudge | None) -> Judge:
    """ValueError where the item cannot be judged."""
    if own is not None:
        plain = item.gold if item.gold is None or isinstance(item.gold, str | int | float | list | dict) else None
        return own.of(item.id, item.row.data, item.kind, plain, policy)
    if item.kind == OWN:
        named = judge_of_run(Path(item.row.place.rpartition(":")[0]))
        hint = f" (its recipe says {named})" if named else ""
        raise ValueError(
            f"problem {item.id!r} was judged by a function of your own{hint}: name it with --verifier "
            f"{named or 'path/to/file.py:function'}; it is run only where you say so"
        )
    return make_judge(item.kind, item.gold, policy)


def read_pairs(
    path: Path,
    refusals: Refusals,
    *,
    kind: str | None = None,
    policies: Policies | None = None,
    own: OwnJudge | None = None,
) -> list[Job]:
    """The jobs of rows `{"id", "gold", "prediction", "kind", "policy"}`; `kind` and `policies` where a row has none.

    `own` judges in the place of the kinds' judges.
    """
    return [_pair(row, refusals, kind, policies or {}, own) for row in read_rows(path)]


def _pair(row: Row, refusals: Refusals, kind: str | None, policies: Policies, own_judge: OwnJudge | None) -> Job:
    data = row.data
    ident = data.get("id", row.number)
    if row.error:
        return refusals.refuse(row.place, row.error)
    missing = [name for name in ("gold", "prediction") if name not in data]
    if missing:
        return refusals.refuse(row.place, f"no field {' and '.join(missing)}; it has {', '.join(data)}", ident)
    own = str(data.get("kind") or kind or "math")
    if "policy" not in data and (near := get_close_matches("policy", data, n=1, cutoff=0.8)):
        return refusals.refuse(row.place, f'field {near[0]!r}: did you mean "policy"?', ident)
    policy = data.get("policy") or {}
    try:
        if isinstance(policy, dict):
            policy = {**policies.get(own, {}), **policy}
        judge = _judge(Item(row, ident, "", own, data["gold"]), policy, own_judge)
        return Job(ident, _prediction(data["prediction"]), judge)
    except ValueError as error:
        return refusals.refuse(row.place, str(error), ident)


def _prediction(value: Any) -> str:
    """A prediction's text; null is an empty one, a number its text."""
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return "" if value is None else str(value)
    raise ValueError(f"prediction is {type(value).__name__}: expected text")


@dataclass
class Problems:
    """The problems of a file by id, with their judges."""

    path: Path
    own: OwnJudge | None = None
    items: dict[str, tuple[Item, Judge | None, str]] = field(default_factory=dict)

    def add(self, item: Item, refusals: Refusals, policies: Policies) -> None:
        policy = {**policies.get(item.kind, {}), **item.policy}
        before = self.items.get(str(item.id))
        if before is not None and before[0].gold != item.gold:
            raise ValueError(f"problem {item.id!r} has another gold than at {before[0].row.place}")
        try:
            judge, refusal = _judge(item, policy, self.own), ""
        except ValueError as error:
            judge, refusal = None, refusals.refuse(item.row.place, str(error)).refusal
        self.items[str(item.id)] = (item, judge, refusal)


def read_responses(
    problems: Path,
    responses: Path,
    refusals: Refusals,
    *,
    kind: str | None = None,
    policies: Policies | None = None,
    opened: bool = False,
    problem_column: tuple[str, ...] = (),
    answer_column: str | None = None,
    own: OwnJudge | None = None,
) -> list[Job]:
    """The jobs of stored responses: rows with the problem's id and a response (or a list), or a run's rollouts.

    `own` judges in the place of the kinds' judges.
    """
    known = Problems(problems, own)
    rows = [_problem_of(row) for row in read_rows(problems)]
    good = [row for row in rows if not row.error]
    for row in rows:
        if row.error:
            refusals.refuse(row.place, row.error)
    columns = find_columns(
        good, str(problems), kind=kind, problem=problem_column, answer=answer_column, answer_needed=own is None
    )
    for row in good:
        try:
            known.add(item_of(row, columns), refusals, policies or {})
        except ValueError as error:
            ident = str(row.data.get("id", row.number))
            item = Item(row, ident, "", columns.kind, None)
            known.items[ident] = (item, None, refusals.refuse(row.place, str(error)).refusal)
    return [job for row in read_rows(responses) for job in _responses(row, known, refusals, opened)]


def _problem_of(row: Row) -> Row:
    """The problem of a group of rollouts, as a run stores them; other rows as they are."""
    return replace(row, data=row.data["problem"]) if "rollouts" in row.data and "problem" in row.data else row


def _responses(row: Row, known: Problems, refusals: Refusals, opened: bool) -> Iterator[Job]:
    if row.error:
        yield refusals.refuse(row.place, row.error)
        return
    if isinstance(row.data.get("rollouts"), list):
        for rollout in row.data["rollouts"]:
            yield from _responses(replace(row, data=rollout), known, refusals, opened)
        return
    data = row.data
    ident = next((data[name] for name in ("problem_id", *IDS) if data.get(name) is not None), row.number)
    name = next((n for n in RESPONSES if n in data), None)
    if name is None:
        yield refusals.refuse(row.place, f"no field {', '.join(RESPONSES)}; it has {', '.join(data)}", ident)
        return
    if str(ident) not in known.items:
        yield refusals.refuse(row.place, f"no problem {ident!r} in {known.path}", ident)
        return
    item, judge, refusal = known.items[str(ident)]
    several = data[name] if isinstance(data[name], list) else [data[name]]
    for index, text in enumerate(several):
        sample = index if isinstance(data[name], list) else data.get("sample")
        try:
            response = _prediction(text)
            response = read_s1(response) if _template(item) == "s1" else response
        except ValueError as error:
            yield refusals.refuse(row.place, str(error), ident)
            continue
        before = _stored_score(data) if len(several) == 1 else None
        yield Job(ident, response, judge, refusal, opened or item.opened, sample, before)


def _template(item: Item) -> Any:
    """What a recorded problem was asked with; None of any other row."""
    metadata = item.row.data.get("metadata")
    return metadata.get("template") if isinstance(metadata, Mapping) else None


def _stored_score(data: Mapping[str, Any]) -> float | None:
    """The score a response was stored with: of a rollout's verdict "accuracy", or under "score"."""
    verdicts = data.get("verdicts")
    score = verdicts.get("accuracy", {}).get("score") if isinstance(verdicts, Mapping) else data.get("score")
    return float(score) if isinstance(score, int | float) else None


def grade(jobs: Iterable[Job]) -> Iterator[Graded]:
    """Every job's verdict, in order."""
    return in_order(_graded, jobs)


def _graded(job: Job) -> Graded:
    if job.judge is None:
        return Graded(job, Verdict("skip", None, "gold_invalid"))
    return Graded(job, *settled(job.judge, job.prediction, job.opened))


def settled(judge: Judge, prediction: str, opened: bool) -> tuple[Verdict, str]:
    """The verdict, and what the judge raised, if it did: a defect in a judge must not cost the other answers."""
    began, trouble, verdict = time.perf_counter(), "", None
    for _ in range(2):  # an error is tried once more
        try:
            verdict, trouble = judge(prediction, opened), ""
        except Exception as error:
            verdict, trouble = Verdict("error", None, "voter_failed"), f"{type(error).__name__}: {error}"
        if verdict.outcome != "error":
            break
    assert verdict is not None
    return replace(verdict, seconds=time.perf_counter() - began), trouble


def in_order(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` over a few threads, at most AHEAD items ahead of what was taken."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

"""Is a data file fit to train on: does every gold parse and score 1 against itself, is nothing empty or there twice?

A gold is not compared with its own letters, which always agree, but as a response would state it: math within dollar
signs and in a box, a letter behind "Answer:", numbers by an expression that reaches the target, tests by the reference
solution.
"""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r1kit.config.errors import UserError
from r1kit.records import Verdict
from r1kit.tasks.columns import Columns, Item, find_columns, item_of
from r1kit.tasks.data_files import Row, read_rows
from r1kit.tasks.grade import Policies, in_order
from r1kit.tasks.search import render, witness
from r1kit.verifiers.knights_knaves import judge_puzzle
from r1kit.verifiers.registry import KindError, countdown_gold, make_judge, text_gold

CHECKS = {
    "row": "can be read",
    "empty": "problem and answer are not empty",
    "gold": "parses and scores 1 against itself",
    "reference": "the reference solution passes",
    "duplicate": "no problem twice",
}
CONFLICT = ", with another answer"
REFERENCES = 5  # solutions tried where a row has several
MAX_VALUES = (1_000, 20_000)  # largest value on the way to a countdown target: narrow first, it is faster
MAX_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a row."""

    number: int
    place: str
    check: str
    message: str


@dataclass
class DataReport:
    """What was found. `deciders`: which voter decided how many golds. `checked`: rows by check."""

    path: str
    columns: str
    rows: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    deciders: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.findings

    def wrong(self, check: str) -> int:
        """Rows that fail a check."""
        return len({f.number for f in self.findings if f.check == check})

    def to_json(self) -> dict[str, Any]:
        checks = {name: {"rows": self.checked[name], "wrong": self.wrong(name)} for name in CHECKS}
        findings = [asdict(finding) for finding in self.findings]
        head = {"file": self.path, "columns": self.columns, "rows": self.rows, "ok": self.ok, "checks": checks}
        return head | {"deciders": dict(self.deciders), "findings": findings, "seconds": round(self.seconds, 3)}


def check_data(
    path: Path,
    *,
    kind: str | None = None,
    problem: Sequence[str] = (),
    answer: str | None = None,
    policies: Policies | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataReport:
    """Check every row of a file. UserError where the file cannot be read or its columns cannot be told.

    `progress` is told how many golds of how many are done.
    """
    return examined(
        path,
        lambda rows: find_columns(rows, str(path), kind=kind, problem=problem, answer=answer),
        policies=policies or {},
        progress=progress,
    )[1]


def examined(
    path: Path,
    find: Callable[[Sequence[Row]], Columns],
    *,
    policies: Policies,
    golds: bool = True,
    references: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Item], DataReport]:
    """The items of a file that nothing is wrong with, and the report on all of them; `find` tells its columns.

    Of a problem that is there twice the first item stays, or none where the answers differ. `golds`: answers have to be
    there and verify. `references`: programs are run, not only their tests read.
    """
    began = time.perf_counter()
    rows = list(read_rows(path))
    good = [row for row in rows if not row.error]
    if not good:
        first = f"no row can be read; {rows[0].place}: {rows[0].error}" if rows else "the file is empty"
        raise UserError(f"{path}: {first}")
    columns = find(good)
    report = DataReport(str(path), columns.describe(), len(rows))
    seen: dict[bytes, tuple[Row, str]] = {}
    contradicted: set[int] = set()
    items = []
    for row in rows:
        report.checked["row"] += 1
        try:
            item = None if row.error else item_of(row, columns)
        except ValueError as error:
            _note(report, row, "gold", str(error))
            continue
        if item is None:
            _note(report, row, "row", row.error)
        elif _filled(report, item, golds):
            contradicted |= _first(report, item, seen)
            items.append(item)
    found = in_order(lambda item: _gold(item, policies, references), items) if golds else []
    for done, (item, (check, voter, message)) in enumerate(zip(items, found, strict=golds)):
        progress(done, len(items))
        report.checked[check] += 1
        if message:
            _note(report, item.row, check, message)
        else:
            report.deciders[voter] += 1
    report.findings.sort(key=lambda f: f.number)
    report.seconds = time.perf_counter() - began
    wrong = contradicted | {finding.number for finding in report.findings}
    return [item for item in items if item.row.number not in wrong], report


def _note(report: DataReport, row: Row, check: str, message: str) -> None:
    report.findings.append(Finding(row.number, row.place, check, message))


def _filled(report: DataReport, item: Item, golds: bool) -> bool:
    """Notes empty fields; False where there is nothing to check."""
    report.checked["empty"] += 1
    values = item.gold if isinstance(item.gold, list) else [item.gold]
    no_gold = golds and all(value is None or not str(value).strip() for value in values)
    if not item.prompt and item.kind != "code":
        _note(report, item.row, "empty", "the problem is empty")
    if no_gold:
        _note(report, item.row, "empty", "the answer is empty")
    return not no_gold


def _first(report: DataReport, item: Item, seen: dict[bytes, tuple[Row, str]]) -> set[int]:
    """Notes a problem that stood before; the number of that row, where its answer was another one."""
    prompt = _squeezed(item.prompt)
    if not prompt:
        return set()
    report.checked["duplicate"] += 1
    key = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    gold = _squeezed(str(item.gold))
    row, before = seen.setdefault(key, (item.row, gold))
    if row.number == item.row.number:
        return set()
    first = row.place.removeprefix(f"{report.path}:")
    same = "" if before == gold else CONFLICT
    _note(report, item.row, "duplicate", f"the problem of {'line ' * first.isdigit()}{first}{same}")
    return set() if before == gold else {row.number}


def _squeezed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


Checked = tuple[str, str, str]  # the check, who decided, what is wrong


def _gold(item: Item, policies: Policies, references: bool) -> Checked:
    """Check one gold; an error of ours is tried once more."""
    for _ in range(2):
        try:
            check, verdict, message = _judged(item, {**policies.get(item.kind, {}), **item.policy}, references)
        except ValueError as error:  # KindError and those of kinds that are checked without a judge
            return "gold", "", str(error)
        if verdict.outcome != "error":
            break
    if verdict.correct:
        return check, verdict.voter or item.kind, ""
    reason = f"{verdict.reason}{f' ({verdict.normal_form})' if verdict.normal_form and verdict.score is None else ''}"
    return check, verdict.voter, message or f"{_shown(item.gold)}: {reason}"


def _judged(item: Item, policy: dict[str, Any], references: bool) -> tuple[str, Verdict, str]:
    gold, kind = item.gold, item.kind
    if kind == "math":
        return "gold", *_math(gold, policy)
    if kind == "choice":
        return "gold", *_choice(gold, policy)
    if kind == "countdown":
        return "gold", *_countdown(item)
    if kind == "code":
        return _code(item, references)
    judge = make_judge(kind, gold, policy)
    if kind == "knights_knaves" and isinstance(item.reference, list):
        unique = judge_puzzle(gold["statements"], item.reference)
        roles = zip(gold["names"], item.reference, strict=False)
        said = ", ".join(f"{name} is a {'knight' if knight else 'knave'}" for name, knight in roles)
        return "gold", judge(said) if unique.correct else unique, ""
    if kind in ("exact", "integer"):
        return "gold", judge(str(gold[0] if isinstance(gold, list) else gold)), ""
    if judge("-").outcome == "score":  # the gold is a rule, not an answer: it has to be usable
        return "gold", Verdict.scored(1, "correct", voter=kind), ""
    return "gold", judge("-"), ""


def bare_math(gold: Any) -> str:
    """The answer itself, out of a box, `#### `, an answer line or phrase that a gold is written in."""
    from r1kit.verifiers.math import DEFAULT_POLICY, extract

    text = str(gold[0] if isinstance(gold, list) else gold).strip()
    found = extract(text, DEFAULT_POLICY)
    return found.text if found is not None and found.where not in ("formula", "number") else text


def _math(gold: Any, policy: dict[str, Any]) -> tuple[Verdict, str]:
    judge = make_judge("math", gold, {k: v for k, v in policy.items() if k not in ("answer", "strict")})
    bare = bare_math(gold)
    plain = bare[1:-1] if bare[0] == bare[-1] == "$" and "$" not in bare[1:-1] else bare
    verdict = judge(plain if plain != bare else f"${bare}$")
    if not verdict.correct:
        alone = " (its own letters are accepted, nothing else)" if judge(bare).correct else ""
        return verdict, f"{_shown(bare)}: {verdict.reason}{alone}"
    boxed = judge(f"\\boxed{{{bare}}}")
    return (verdict, "") if boxed.correct else (boxed, f"{_shown(bare)} in a box: {boxed.reason}")


def _choice(gold: Any, policy: dict[str, Any]) -> tuple[Verdict, str]:
    texts = policy.get("options")
    if isinstance(texts, list):
        twice = [text for text, count in Counter(map(_squeezed, texts)).items() if count > 1 or not text]
        if twice or len(texts) < 2:
            wrong = f"option {twice[0]!r} is empty or there twice" if twice else f"{len(texts)} options"
            return Verdict("skip", None, "gold_invalid", voter="choice"), wrong
    letters = "".join(c for c in text_gold(gold).upper() if c.isalpha())
    return make_judge("choice", gold, policy)(f"Answer: {letters}"), ""


def _countdown(item: Item) -> tuple[Verdict, str]:
    """By the row's own expression, else by one that the search finds with whole numbers on the way."""
    numbers, target = countdown_gold(item.gold)
    judge = make_judge("countdown", item.gold, {"strict": False})
    if isinstance(item.reference, str):
        verdict = judge(item.reference)
        return verdict, "" if verdict.correct else f"its expression {_shown(item.reference)}: {verdict.reason}"
    if len(numbers) > MAX_NUMBERS or min(numbers) < 0 or target < 0:
        raise KindError(f"{_shown(item.gold)}: searched are up to {MAX_NUMBERS} numbers, from 0, and targets from 0")
    ordered = tuple(sorted(numbers))
    for most in MAX_VALUES:
        found = witness(ordered, target, max(most, target, *numbers))
        if found is not None:
            return judge(render(found)), ""
    reason = f"no way from {numbers} to {target} with whole numbers to {MAX_VALUES[-1]} on the way"
    return Verdict("skip", None, "gold_invalid", voter="search"), reason


def _code(item: Item, references: bool) -> tuple[str, Verdict, str]:
    """By the reference solutions; without one only that the tests can be read."""
    from r1kit.sandbox import shared_sandbox
    from r1kit.verifiers.code import CodeProblem, extract_code, judge_code

    problem = item.gold if isinstance(item.gold, CodeProblem) else CodeProblem.from_json(item.gold)
    if not problem.has_tests:
        return "gold", Verdict("skip", None, "no_tests"), "the problem has no tests"
    sources = reference_sources(item.reference)
    if not sources or not references:
        unused = "reference not run" if sources else "no reference"
        return "gold", Verdict.scored(1, "correct", voter=f"tests read, {unused}"), ""
    verdict = Verdict("skip", None, "no_tests")
    for source in sources[:REFERENCES]:
        if source.startswith("```"):  # as a problem record of ours keeps it
            source = extract_code(source, problem.language) or source
        verdict = judge_code(source, problem, shared_sandbox())
        if verdict.correct or verdict.outcome != "score":
            break
    passed = f", {verdict.normal_form} passed" if verdict.normal_form else ""
    message = f"none of {min(len(sources), REFERENCES)} reference solutions passes: {verdict.reason}{passed}"
    return "reference", verdict, "" if verdict.correct else message


def reference_sources(reference: Any) -> list[str]:
    """The sources of a reference column: one text, or several as a list or its JSON."""
    if isinstance(reference, str) and reference.lstrip().startswith("["):
        try:
            reference = json.loads(reference)
        except ValueError:
            return [str(reference)]
    if isinstance(reference, str):
        return [reference] if reference.strip() else []
    return [s for s in reference if isinstance(s, str)] if isinstance(reference, list) else []


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:80] + "..."

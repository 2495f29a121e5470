"""From data files to questions that can be asked: rows read and checked, each on its side of the split, nothing twice.

What is wrong with a row becomes a `Finding` with its file and line; what is left out for another reason is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r1kit.config.data_path import find_data
from r1kit.config.errors import UserError
from r1kit.tasks.check_data import CONFLICT, Finding, examined
from r1kit.tasks.columns import OWN, SIGNS, Columns, Item, find_columns, present_columns, require_columns
from r1kit.tasks.data_files import Row
from r1kit.tasks.families import families, plain
from r1kit.tasks.split import in_test
from r1kit.verifiers.choice import LETTERS

FORMED = ("code", "countdown", "knights_knaves", "instructions")
CONTRADICTED = "answered otherwise further down"
_SIDES = {"train": "train", "training": "train"} | dict.fromkeys(("test", "validation", "valid", "dev", "eval"), "test")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(slots=True)
class Entry:
    """A question on its way: `source` names its file within the task, `side` is "train" or "test"."""

    item: Item
    source: str
    id: str
    side: str
    difficulty: float | None
    family: str


@dataclass
class Intake:
    """All questions, what is wrong with others, counts of what was left out (with a first example), and columns."""

    entries: list[Entry] = field(default_factory=list)
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def leave_out(self, why: str, example: str) -> None:
        self.left_out[why] += 1
        self.examples.setdefault(why, example)

    def side(self, name: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.side == name]


def take_in(settings: Any, kind: str) -> Intake:
    """Everything the files of `settings` (a `config.tasks.DataTaskSettings`) hold.

    UserError where a file is missing or cannot be read, a column is not there, or one side of the split stays empty.
    """
    intake = Intake()
    paths = {path: find_data(path) for path in settings.data_files}
    names = short_names(paths)
    for side, files in (("train", settings.data), ("test", settings.test_data)):
        for path in dict.fromkeys(files):
            for entry in _read(paths[path], names[paths[path]], settings, kind, intake):
                entry.side = _side(entry, side, settings, intake) or ""
                entry.difficulty = _difficulty(entry, settings, intake)
                intake.entries.append(entry)
    wrong = {finding.place for finding in intake.findings}
    intake.entries = [entry for entry in intake.entries if entry.item.row.place not in wrong]
    _once(intake)
    _grouped(intake.entries, settings)
    _divided(intake, settings)
    intake.findings.sort(key=lambda f: (f.place.rpartition(":")[0], f.number))
    return intake


def short_names(paths: Mapping[str, Path]) -> dict[Path, str]:
    """A name for each file, given by the path as a recipe writes it: problems are known by it.

    What follows a variable or `~` without suffixes, else the file's own name alone, so that a folder that is moved
    renames nothing; with as much of the path before it as tells files of one name apart.
    """

    def own(written: str, path: Path) -> str:
        folders = written.split("/")[1:-1] if written.startswith(("$", "~")) else []
        return "/".join((*folders, path.name.split(".")[0]))

    found = {path: own(written, path) for written, path in paths.items()}
    for length in range(2, max((len(p.parts) for p in found), default=0) + 1):
        if len(set(found.values())) == len(found):
            break
        found = {path: "/".join((*path.parts[-length:-1], path.name.split(".")[0])) for path in found}
    return found


def _read(path: Path, name: str, settings: Any, kind: str, intake: Intake) -> Iterator[Entry]:
    """The good rows of one file; what is wrong with the others goes to `intake`."""
    named, own = settings.columns, kind == OWN

    def find(rows: Sequence[Row]) -> Columns:
        present = present_columns(rows)
        require_columns(named.named, present.values(), str(path))
        _require_form(kind, present, str(path), own_tests=named.answer is not None)
        found = find_columns(
            rows,
            str(path),
            kind="exact" if own else kind,
            problem=named.problem,
            answer=named.answer,
            options=named.options,
            answer_needed=not own,
            naming="task.columns.{}",
        )
        code = {"language": settings.language, "scoring": settings.scoring} if kind == "code" else {}
        code = {key: value for key, value in code.items() if value is not None}
        found = replace(found, kind=kind, reference=named.reference or "", id=named.id or "")
        return replace(found, code=code, fixed=True)

    policies = {kind: settings.policy}
    references = kind == "code" and settings.check_references
    items, report = examined(path, find, policies=policies, golds=not own, references=references)
    intake.rows += report.rows
    intake.columns[str(path)] = report.columns
    for finding in report.findings:
        if finding.check == "duplicate" and CONFLICT not in finding.message:
            intake.leave_out("there twice", f"{finding.place}: {finding.message}")
        else:
            intake.findings.append(finding)
    conflicts = [finding.place for finding in report.findings if CONFLICT in finding.message]
    for _ in range(report.rows - len(items) - len({finding.number for finding in report.findings})):
        intake.leave_out(CONTRADICTED, f"that of {conflicts[0]}")
    for item in items:
        yield Entry(item, name, f"{name}:{item.id}", "", None, "")


def _require_form(kind: str, present: Mapping[str, str], source: str, *, own_tests: bool) -> None:
    """Kinds whose gold is no single column are read from columns of known names; tests of one's own from any."""
    forms = [names for of, _, names in SIGNS if of == kind]
    if kind not in FORMED or (kind == "code" and own_tests) or any(set(names) <= set(present) for names in forms):
        return
    wanted = "; or ".join(", ".join(names) for names in forms)
    own = "; or tests of your own: name their column with task.columns.answer" if kind == "code" else ""
    raise UserError(
        f"{source}: {kind} is read from columns {wanted}{own}. Its columns are {', '.join(present.values())}"
    )


def _wrong(intake: Intake, entry: Entry, message: str) -> None:
    row = entry.item.row
    intake.findings.append(Finding(row.number, row.place, "row", message))


def _side(entry: Entry, side: str, settings: Any, intake: Intake) -> str | None:
    """The side that a split column names; without one, that of the file ("train" may be divided later)."""
    if not settings.columns.split:
        return side
    value = entry.item.row.data.get(settings.columns.split)
    found = _SIDES.get(str(value).strip().casefold())
    if found is None:
        _wrong(intake, entry, f"{settings.columns.split} is {value!r}: expected one of {', '.join(_SIDES)}")
    return found


def _difficulty(entry: Entry, settings: Any, intake: Intake) -> float | None:
    """A number, or the one number in a text ("Level 5"); None where the row has none."""
    name = settings.columns.difficulty
    value = entry.item.row.data.get(name) if name else None
    if value is None or value == "":
        return None
    numbers = _NUMBER.findall(str(value))
    if isinstance(value, bool) or len(numbers) != 1:
        _wrong(intake, entry, f"{name} is {value!r}: expected a number, or a text with one in it")
        return None
    return float(numbers[0])


def _once(intake: Intake) -> None:
    """Every id once, and every question once on each side; of two answers to one question neither is believed."""
    by_id: dict[str, Entry] = {}
    by_question: dict[tuple[str, str], Entry] = {}
    dropped: set[int] = set()
    for entry in intake.entries:
        same = by_id.setdefault(entry.id, entry)
        if same is not entry:
            _wrong(intake, entry, f"its id {entry.item.id!r} is that of {same.item.row.place}")
            dropped.add(id(entry))
            continue
        key = (entry.side, question_text(entry.item))
        first = by_question.setdefault(key, entry)
        if first is entry:
            continue
        dropped.add(id(entry))
        where = f"{entry.item.row.place}: the problem of {first.item.row.place}"
        if answer_text(first.item) == answer_text(entry.item):
            intake.leave_out("there twice", where)
        else:
            _wrong(intake, entry, f"the problem of {first.item.row.place}{CONFLICT}")
            if id(first) not in dropped:
                dropped.add(id(first))
                intake.leave_out(CONTRADICTED, f"that of {entry.item.row.place}")
    intake.entries = [entry for entry in intake.entries if id(entry) not in dropped]


def question_text(item: Item) -> str:
    """What a question is known by: its words, and its options in whatever order."""
    options = item.policy.get("options") if item.kind == "choice" else None
    return plain("\n".join([item.question or item.prompt, *sorted(map(str, options or ()))]))


def answer_text(item: Item) -> str:
    """The answer as text: of a choice what the options say, not where they stand."""
    options = item.policy.get("options") if item.kind == "choice" else None
    if not isinstance(options, list):
        return plain(str(item.gold))
    return plain("\n".join(sorted(options[LETTERS.index(c)] for c in str(item.gold).upper() if c in LETTERS)))


def _grouped(entries: Sequence[Entry], settings: Any) -> None:
    """Names every entry's family: by its column, or by the question where it has none."""
    found = families([question_text(entry.item) for entry in entries], near=settings.families == "near")
    for entry, family in zip(entries, found, strict=True):
        named = entry.item.row.data.get(settings.columns.family) if settings.columns.family else None
        entry.family = family if named is None else f"{settings.columns.family} {named}"


def _divided(intake: Intake, settings: Any) -> None:
    """Puts whole families on one side; training questions of a held-out family are left out."""
    if settings.test_data or settings.columns.split:
        held_out = {entry.family: entry for entry in intake.side("test")}
        for entry in intake.side("train"):
            if (near := held_out.get(entry.family)) is not None:
                entry.side = ""
                intake.leave_out("nearly a held-out one", f"{entry.item.row.place}: {near.item.row.place}")
    else:
        for entry in intake.entries:
            entry.side = "test" if in_test(entry.family, settings.test_share, settings.seed) else "train"
        _both_sides(intake, settings)
    if settings.train_difficulty:
        low, high = settings.train_difficulty
        for entry in intake.side("train"):
            if entry.difficulty is None or not low <= entry.difficulty <= high:
                entry.side = ""
                intake.leave_out(f"difficulty outside {low:g} to {high:g}", entry.item.row.place)


def _both_sides(intake: Intake, settings: Any) -> None:
    sizes = {side: len(intake.side(side)) for side in ("train", "test")}
    if all(sizes.values()) or not intake.entries:
        return
    count = len({entry.family for entry in intake.entries})
    near = settings.families == "near" and not settings.columns.family and count < len(intake.entries)
    advice = ", families: exact where nearly equal questions may be on both sides" if near else ""
    raise UserError(
        f"task.data: {len(intake.entries)} questions in {count} families, divided into {sizes['train']} to train on "
        f"and {sizes['test']} held out: move test_share or seed, or name test_data{advice}"
    )

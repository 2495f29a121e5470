"""From a row of somebody's data file to an item that can be judged: which columns hold what, and of what kind it is.

The names are those that published sets use. Where they do not say, the caller names the columns; a guess is printed,
so that a wrong one is seen.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from r1kit.config.errors import UserError
from r1kit.config.suggest import nearest
from r1kit.tasks.code_questions import code_question
from r1kit.tasks.data_files import Row
from r1kit.verifiers.choice import LETTERS
from r1kit.verifiers.registry import KINDS

OWN = "own"  # the kind of answers that a function of the user's own judges

PROBLEM = ("problem", "question", "prompt", "query", "quiz", "text", "instruction", "input", "messages")
CONTEXT = ("passage", "context", "body")
ANSWER = ("answer", "final_answer", "gold", "ground_truth", "gt_answer", "target", "output", "label", "solution")
CHOSEN = ("label", "correct", "answerkey", "answer_index", *ANSWER)
OPTIONS = ("options", "choices")
IDS = ("id", "problem_id", "unique_id", "task_id")

# The columns that tell a kind, the first that are all there; the code formats are those of verifiers.code.formats.
SIGNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("record", "", ("payload", "task")),
    ("code", "humaneval", ("canonical_solution", "entry_point", "test")),
    ("code", "leetcode", ("prompt", "entry_point", "test")),
    ("code", "mbpp", ("test_list", "test_setup_code")),
    ("code", "livecodebench", ("starter_code", "tests")),
    ("code", "code_contests", ("tests",)),
    ("code", "codeforces", ("test_cases",)),
    ("code", "taco", ("input_output",)),
    ("countdown", "", ("target", "nums")),
    ("countdown", "", ("target", "numbers")),
    ("knights_knaves", "", ("names", "statements")),
    ("instructions", "", ("instruction_id_list", "kwargs")),
    ("choice", "", ("options",)),
    ("choice", "", ("choices",)),
    ("choice", "", ("a", "b", "c")),
)
REFERENCE = {"humaneval": "canonical_solution", "leetcode": "completion", "mbpp": "code", "taco": "solutions"}
# Beside tests of one's own.
SOLUTIONS = ("solution", "solutions", "reference", "reference_solution", "canonical_solution")
# Kinds of our own generated tasks, with the policy that is their rule: text after the answer block is format's matter.
RECORDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "countdown": ("countdown", {"strict": False}),
    "multiplication": ("integer", {}),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a file. `reference`: a solution (code, an expression, an assignment), where the row has one.

    `prompt` tells problems apart; `question` is what a model is to be asked, for choice without the options.
    """

    row: Row
    id: Any
    prompt: str
    kind: str
    gold: Any
    policy: Mapping[str, Any] = field(default_factory=dict)
    reference: Any = None
    opened: bool = False
    question: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what.

    `form`: the format of published code sets; `code`: what it is read with. `fixed`: the kind is the caller's, columns
    of the names kind and policy are data like any other.
    """

    kind: str
    form: str = ""
    problem: tuple[str, ...] = ()
    answer: str = ""
    options: tuple[str, ...] = ()
    reference: str = ""
    id: str = ""
    code: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False

    def describe(self) -> str:
        """One line for a person."""
        if self.kind == "record":
            return "problem records"
        parts = [f"kind {self.kind}"] + ([f"format {self.form}"] if self.form else [])
        parts += [f"problem from {' + '.join(self.problem)}"] if self.problem else []
        parts += [f"answer from {self.answer}"] if self.answer else []
        parts += [f"reference from {self.reference}"] if self.reference else []
        return ", ".join(parts + ([f"options from {' '.join(self.options)}"] if self.options else []))


def find_columns(
    rows: Sequence[Row],
    source: str,
    *,
    kind: str | None = None,
    problem: Sequence[str] = (),
    answer: str | None = None,
    options: Sequence[str] = (),
    answer_needed: bool = True,
    naming: str = "--{}-column",
) -> Columns:
    """The columns of a file, by name; one without any value does not count. UserError where they cannot be told.

    `naming` is how the caller lets a column be named, for messages.
    """
    present = present_columns(rows)
    require_columns((*problem, *([answer] if answer else []), *options), present.values(), source)
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind {kind}{nearest(kind, KINDS)}: expected one of {', '.join(KINDS)}")
    sign = next(((k, f) for k, f, names in SIGNS if (kind or k) == k and set(names) <= set(present)), None)
    if kind == "code" and answer:
        sign = None  # tests of one's own, whatever their column is called
    found, form = sign or (kind or "math", "")
    if found == "code" and not sign and not answer:
        known = f"its columns are {', '.join(present.values()) or 'none'}"
        raise UserError(f"{source}: which column holds the tests? {known}; name it with {naming.format('answer')}")
    if found == "record" or (found in ("countdown", "knights_knaves", "instructions") and not sign):
        return Columns(found)
    listed = next(((present[n],) for n in OPTIONS if n in present), ())
    letters = tuple(present[c] for c in "abcdefghij" if c in present)
    asked = tuple(problem) or _asked(present)
    if found == "code" and form not in REFERENCE:
        solution = next((present[n] for n in SOLUTIONS if n in present and present[n] != answer), "")
        return Columns(found, form, asked, answer or "", reference=solution)
    if found not in ("math", "choice", "exact", "regex", "integer"):
        return Columns(found, form, asked)
    names = CHOSEN if found == "choice" else ANSWER
    answer = answer or next((present[n] for n in names if n in present and present[n] not in asked), None)
    if (answer is None and answer_needed) or not asked:
        what = "answer" if asked else "problem"
        raise UserError(
            f"{source}: which column is the {what}? Its columns are {', '.join(present.values()) or 'none'}; "
            f"name it with {naming.format(what)}"
        )
    return Columns(found, "", asked, answer or "", (tuple(options) or listed or letters) if found == "choice" else ())


def present_columns(rows: Sequence[Row]) -> dict[str, str]:
    """The names of columns with a value in some row, by their small letters."""
    present: dict[str, str] = {}
    for row in rows:
        for name, value in row.data.items():
            if value is not None:
                present.setdefault(name.lower(), name)
    return present


def require_columns(names: Sequence[str], known: Collection[str], source: str) -> None:
    """UserError for the first name that is no column."""
    for name in names:
        if name not in known:
            raise UserError(f"{source}: no column {name!r}{nearest(name, known)}; its columns are {', '.join(known)}")


def _asked(present: Mapping[str, str]) -> tuple[str, ...]:
    main = next((present[n] for n in PROBLEM if n in present), None)
    return (*(present[n] for n in CONTEXT if n in present), main) if main else ()


def item_of(row: Row, columns: Columns) -> Item:
    """The problem of a row. ValueError, naming the field, where the row does not hold one."""
    data = row.data
    if columns.kind == "record":
        return _recorded(row)
    kind = str((not columns.fixed and data.get("kind")) or columns.kind)
    own = next((data[name] for name in (columns.id, *IDS) if data.get(name) is not None), row.number)
    question = prompt = "\n".join(filter(None, (_text(data.get(name)) for name in columns.problem))).strip()
    policy = {} if columns.fixed else dict(data.get("policy") or {})
    reference = data.get(columns.reference)
    gold: Any = data.get(columns.answer)
    if kind == "choice" and columns.options:
        texts = _texts(data, columns.options)
        gold, policy = _letter(gold, texts), {"options": texts, **policy}
        prompt = "\n".join([prompt, *texts])
    elif kind == "countdown":
        numbers = _listed(data.get("nums", data.get("numbers")))
        gold = {"numbers": numbers, "target": _whole(data.get("target"))}
        reference = next((data[n] for n in ("expression", "witness", "solution") if data.get(n)), None)
        prompt = f"{sorted(numbers, key=str) if isinstance(numbers, list) else numbers} > {gold['target']}"
    elif kind == "knights_knaves":
        gold, reference = {n: data.get(n) for n in ("names", "statements")}, data.get("solution")
    elif kind == "instructions":
        gold = {"kinds": data.get("instruction_id_list"), "kwargs": data.get("kwargs")}
    elif kind == "code":
        gold, question = _code(data, columns, question)
        prompt = question
        reference = reference or data.get(REFERENCE.get(columns.form, ""))
    return Item(row, own, prompt, kind, gold, policy, reference, question=question)


def _code(data: Mapping[str, Any], columns: Columns, question: str) -> tuple[Any, str]:
    """The tests of a row, and what it asks."""
    from r1kit.verifiers.code.formats import FORMATS

    if not columns.form:
        tests = _listed(data.get(columns.answer))
        if not isinstance(tests, Mapping):
            expected = "expected the tests as an object or its JSON (docs/verifiers-code.md)"
            raise ValueError(f"{columns.answer} is {str(tests)[:80]!r}: {expected}")
        return tests, question
    read = FORMATS[columns.form]
    taken = inspect.signature(read).parameters
    options = {name: value for name, value in columns.code.items() if name in taken}
    try:
        problem = read(data, **options)
        return replace(problem, **columns.code), code_question(columns.form, data, question)
    except (KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise ValueError(f"not a row of {columns.form}: {type(error).__name__}: {error}") from None


def _recorded(row: Row) -> Item:
    """A `records.Problem`, by its task; other tasks say kind, gold and policy in their payload."""
    from r1kit.records import Problem, prompt_text
    from r1kit.tasks.templates import published_tinyzero, thinking_opened

    try:
        problem = Problem.from_json(row.data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a problem record: {error}") from None
    payload = problem.payload
    kind, policy = RECORDS.get(problem.task, (payload.get("kind", problem.task), payload.get("policy", {})))
    gold = payload["product"] if problem.task == "multiplication" else payload.get("gold", payload)
    opened = thinking_opened(problem) and not published_tinyzero(str(problem.metadata.get("template", "")))
    witness = problem.metadata.get("witness")
    return Item(row, problem.id, prompt_text(problem.prompt), kind, gold, policy, witness, opened)


def _text(value: Any) -> str:
    """A prompt as text; a conversation as its turns."""
    if isinstance(value, list):
        return "\n".join(str(m.get("content", m)) if isinstance(m, Mapping) else str(m) for m in value)
    return "" if value is None else str(value)


def _texts(data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The options as texts: a list, `{"text": [...]}`, or one column each."""
    if len(names) > 1:
        return [str(data[name]) for name in names if data.get(name) is not None]
    options = _listed(data.get(names[0]))
    options = options.get("text") if isinstance(options, Mapping) else options
    if not isinstance(options, list):
        raise ValueError(f"{names[0]} is {str(options)[:80]!r}: expected a list of options")
    return [str(option) for option in options]


def _letter(gold: Any, texts: Sequence[str]) -> Any:
    """A gold given as an index from 0, or as the text of an option, as its letter."""
    if isinstance(gold, int) and not isinstance(gold, bool):
        if not 0 <= gold < len(texts):
            raise ValueError(f"gold is option {gold}, counted from 0: there are {len(texts)}")
        return LETTERS[gold]
    if isinstance(gold, str) and not re.fullmatch(r"\(?[A-Z]\)?", gold.strip()) and gold in texts:
        return LETTERS[texts.index(gold)]
    return gold


def _listed(value: Any) -> Any:
    """A list that a CSV cell holds as JSON text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,12}", value.strip()) else value

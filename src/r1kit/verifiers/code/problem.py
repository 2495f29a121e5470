"""What a code problem is: its tests, how outputs are compared, how tests become a score, what a program may use.

A problem is one of three shapes: programs (standard input -> standard output), calls (a function and its arguments), or
assertions (a test program, as HumanEval, MBPP and LeetCode ship it). `to_json` and `from_json` are exact inverses, so a
problem travels as the payload of a `records.Problem`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from r1kit.sandbox.protocol import MIB, Limits
from r1kit.verifiers.code.languages import LANGUAGES, language_named

Scoring = Literal["pass_fail", "partial", "weighted", "subtasks"]
Comparing = Literal["tokens", "exact", "lines", "float"]
CheckerAnswer = Literal["exit_code", "stdout"]
CHECKER_FILES = ("input", "output", "answer")


class CodeProblemError(ValueError):
    """A code problem that breaks its own rules; the message names the field, what was expected and what was found."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CodeProblemError(message)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an output is compared, always whole, lengths included.

    how (of texts): "tokens" splits at white space; "lines" ignores white space at line ends and the last line breaks;
    "exact" is byte for byte but for one final line break; "float" is tokens, of which numbers may differ by
    `tolerance`, absolute or relative, the looser counts; an expected integer is not met by another integer.
    tolerance (of values too): 0 asks for equality.
    sequences_alike (of values): lists and tuples with equal items are equal, as where expected values came from JSON.
    """

    how: Comparing = "tokens"
    tolerance: float = 0.0
    sequences_alike: bool = False

    def __post_init__(self) -> None:
        _require(self.how in get_args(Comparing), f"comparison.how is {self.how!r}: one of {get_args(Comparing)}")
        ok = math.isfinite(self.tolerance) and 0 <= self.tolerance < 1
        _require(ok, f"comparison.tolerance is {self.tolerance!r}: expected a number in [0, 1)")
        _require(self.how != "float" or self.tolerance > 0, 'comparison.tolerance is 0: "float" needs one, e.g. 1e-6')


@dataclass(frozen=True, slots=True)
class ProgramTest:
    """One run of a program. `expected` never enters the sandbox with the candidate."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class CallTest:
    """One call of the entry point: JSON values (or any builtin data, when the problem is not to be stored as JSON)."""

    args: tuple[Any, ...]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checker:
    """A program that judges an output where many are right. It runs in a third process and gets three files.

    arguments: in which order the names of the files are its arguments (testlib's order is the default).
    answer: "exit_code" reads testlib's codes (0 right, 1 and 2 wrong, 7 with points as the first number of standard
    error, 3 the checker's own failure); "stdout" reads a number or "true"/"false".
    full_points: the points of a right output. A number on standard output is a share where it is not stated; points by
    exit code 7 have no scale of their own, so without it such a problem is skipped, not guessed at.
    """

    source: str
    language: str = "cpp"
    arguments: tuple[str, ...] = CHECKER_FILES
    answer: CheckerAnswer = "exit_code"
    full_points: float | None = None
    limits: Limits = field(default_factory=lambda: Limits(cpu_seconds=10.0))

    def __post_init__(self) -> None:
        _require(bool(self.source.strip()), "checker.source is empty: expected the text of a program")
        _require(self.language in LANGUAGES, f"checker.language is {self.language!r}: one of {sorted(LANGUAGES)}")
        ok = sorted(self.arguments) == sorted(CHECKER_FILES)
        _require(ok, f"checker.arguments is {self.arguments!r}: expected {CHECKER_FILES} in some order")
        _require(self.answer in get_args(CheckerAnswer), f"checker.answer is {self.answer!r}")
        full = self.full_points
        ok = full is None or (isinstance(full, int | float) and full > 0 and math.isfinite(full))
        _require(ok, f"checker.full_points is {full!r}: expected the points of a right output, such as 100")


@dataclass(frozen=True, slots=True)
class Subtask:
    """Points for a set of tests (their positions); the share of the points is the least score among them."""

    name: str
    points: float
    tests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """A problem and its tests. Exactly one of `programs`, `calls`, `assertions` is given.

    language: of the program to be judged; calls and assertions are Python.
    entry_point: "f" or "Solution().f" (calls, assertions), "Stack()" for a class whose methods assertions call.
    prelude: code in front of the candidate's, seen by it (imports, the problem's own classes).
    stub: text that a bare completion continues (HumanEval's prompt), for sources that do not define the entry point.
    assertions: a test program; `reference`: code for names its test program uses beside `candidate`, kept out of the
    candidate's process.
    trust_objects: the test program may hand values to what the candidate returned (`f(2)(3)`, `f(1).has(5)`), which it
    is refused otherwise: an object can say yes to whatever it is asked.
    scoring: "pass_fail"; "partial" (share of tests passed); "weighted" (Open-R1's weighted sum, passed + 0.1 x share,
    divided by 1.1 to stay in [0, 1]); "subtasks" (IOI: points of each subtask x the least score of its tests).
    limits: of one run of a program, or of all calls of one candidate together.
    """

    language: str = "python"
    programs: tuple[ProgramTest, ...] = ()
    calls: tuple[CallTest, ...] = ()
    assertions: str = ""
    entry_point: str = ""
    prelude: str = ""
    stub: str = ""
    reference: str = ""
    trust_objects: bool = False
    comparison: Comparison = field(default_factory=Comparison)
    checker: Checker | None = None
    scoring: Scoring = "pass_fail"
    subtasks: tuple[Subtask, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _require(self.language in LANGUAGES, f"language is {self.language!r}: one of {sorted(LANGUAGES)}")
        shapes = [n for n in ("programs", "calls", "assertions") if getattr(self, n)]
        _require(len(shapes) <= 1, f"{' and '.join(shapes)} are given: a problem has one kind of test")
        if self.calls or self.assertions:
            _require(self.language == "python", f"language is {self.language!r}: {shapes[0]} are judged in Python only")
            path = self.entry_point.removesuffix("()").replace("().", ".").split(".")
            ok = all(p.isidentifier() for p in path)
            _require(ok, f"entry_point is {self.entry_point!r}: expected a name such as f or Solution().f")
        _require(self.checker is None or bool(self.programs), "checker is given without programs to check")
        _require(self.scoring in get_args(Scoring), f"scoring is {self.scoring!r}: one of {get_args(Scoring)}")
        _require(
            (self.scoring == "subtasks") == bool(self.subtasks),
            f"scoring is {self.scoring!r} with {len(self.subtasks)} subtasks: subtasks need the scoring of that name",
        )
        tests = len(self.programs or self.calls)
        for s in self.subtasks:
            ok = s.points > 0 and bool(s.tests) and all(0 <= t < tests for t in s.tests)
            _require(ok, f"subtasks.{s.name}: needs points above 0 and positions of tests below {tests}, has {s}")

    @property
    def has_tests(self) -> bool:
        return bool(self.programs or self.calls or self.assertions)

    def with_limits(self, **changes: Any) -> CodeProblem:
        return replace(self, limits=replace(self.limits, **changes))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; fields at their default are left out. CodeProblemError where a call holds other than JSON."""
        default, row = CodeProblem(), {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value != getattr(default, f.name):
                row[f.name] = _plain(value)
        for i, test in enumerate(self.calls):
            ok = all(map(_is_json, (*test.args, dict(test.kwargs), test.expected)))
            _require(ok, f"calls[{i}]: holds values that JSON cannot carry; state such tests as assertions")
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> CodeProblem:
        known = dict(row)
        _parts(known, "programs", ProgramTest)
        _parts(known, "calls", CallTest, tuple_field="args")
        _parts(known, "subtasks", Subtask, tuple_field="tests")
        for name, kind in (("comparison", Comparison), ("limits", Limits)):
            if name in known:
                known[name] = _part(kind, known[name], name)
        if known.get("checker") is not None:
            checker = dict(known["checker"])
            checker["limits"] = _part(Limits, checker.get("limits", {"cpu_seconds": 10.0}), "checker.limits")
            checker["arguments"] = tuple(checker.get("arguments", CHECKER_FILES))
            known["checker"] = _part(Checker, checker, "checker")
        problem: CodeProblem = _part(cls, known, "problem")
        return problem


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in asdict(value).items()} if hasattr(value, "__dataclass_fields__") else value


def _part(kind: Any, row: Any, where: str) -> Any:
    _require(isinstance(row, Mapping), f"{where} is {type(row).__name__}: expected an object")
    names = {f.name for f in fields(kind)}
    unknown = sorted(set(row) - names)
    _require(not unknown, f"{where} has no field {', '.join(unknown)}; its fields are {sorted(names)}")
    try:
        return kind(**row)
    except TypeError as error:
        raise CodeProblemError(f"{where}: {error}") from None


def _parts(known: dict[str, Any], name: str, kind: Any, tuple_field: str = "") -> None:
    rows = known.get(name, ())
    ok = isinstance(rows, Sequence) and not isinstance(rows, str)
    _require(ok, f"{name} is {type(rows).__name__}: expected a list")
    parts = []
    for i, row in enumerate(rows):
        part = _part(kind, row, f"{name}[{i}]")
        if tuple_field:
            items = getattr(part, tuple_field)
            _require(isinstance(items, list | tuple), f"{name}[{i}].{tuple_field} is {items!r}: expected a list")
            part = replace(part, **{tuple_field: tuple(items)})
        parts.append(part)
    known[name] = tuple(parts)


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_is_json, value.values()))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def contest_limits(seconds: float, megabytes: float, language: str) -> Limits:
    """The limits a contest states (for compiled programs), stretched for `language`."""
    cpu = seconds * language_named(language).time_factor
    return Limits(cpu_seconds=cpu, memory_bytes=int(max(megabytes, 64) * MIB))

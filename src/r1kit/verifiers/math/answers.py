"""What an answer can be, once read: a value, a listing, a region of the real line, a relation, a table, words ...

These are plain holders. `reading` makes them from text, `comparison` asks whether two of them are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from r1kit.verifiers.math.evaluate import try_form
from r1kit.verifiers.math.forms import Form
from r1kit.verifiers.math.parser import Node

_UNSET = Form({("unset",): 1})  # type: ignore[dict-item]


@dataclass(slots=True)
class Name:
    """The left side of an assignment. `plain`: a variable or a call of one, so that two of them can contradict."""

    text: str
    node: Node | None = None
    plain: bool = False
    arity: int = 1


@dataclass(slots=True)
class Value:
    """One expression. `places`, `digits`: of a decimal as written (after the point; significant), else None."""

    node: Node
    unit: str | None = None
    percent: bool = False
    degree: bool = False
    name: Name | None = None
    places: int | None = None
    digits: int = 0
    integer: bool = False
    reduced: bool = True
    approximations: tuple[Node, ...] = ()
    _form: Form | None = field(default=_UNSET, repr=False)

    @property
    def form(self) -> Form | None:
        """The exact form, worked out once; None where exact algebra does not reach."""
        if self._form is _UNSET:
            self._form = try_form(self.node)
        return self._form


@dataclass(slots=True)
class Listing:
    """Several answers in brackets, or in none ("")."""

    items: list[Answer]
    opening: str = ""
    closing: str = ""
    name: Name | None = None

    @property
    def bare(self) -> bool:
        return self.opening == ""


@dataclass(slots=True)
class Piece:
    """An interval; None as an end is infinity."""

    low: Node | None
    low_closed: bool
    high: Node | None
    high_closed: bool


@dataclass(slots=True)
class Region:
    """A union of intervals, sorted where its ends are constants. `inequality`: how it was written."""

    pieces: list[Piece]
    variable: str = ""
    inequality: bool = False
    name: Name | None = None


@dataclass(slots=True)
class Relation:
    """left op right with op one of = < <= !=; what has > is turned round."""

    op: str
    left: Node
    right: Node
    name: Name | None = None


@dataclass(slots=True)
class Table:
    """A matrix, row by row."""

    rows: list[list[Node]]
    name: Name | None = None


@dataclass(slots=True)
class Words:
    """Text in lower case without punctuation; `original` keeps the case."""

    text: str
    original: str
    name: Name | None = None


@dataclass(slots=True)
class Based:
    """Digits in a number base."""

    digits: str
    base: int
    name: Name | None = None


@dataclass(slots=True)
class Ratio:
    """a : b : c; `clock` where it can be a time of day, `half` its am or pm."""

    parts: list[Node]
    clock: bool = False
    half: str = ""
    name: Name | None = None


@dataclass(slots=True)
class Cases:
    """A function by cases: (value, condition) each."""

    rows: list[tuple[Answer, Answer]]
    name: Name | None = None


@dataclass(slots=True)
class Contradiction:
    """A chain of equalities that is false, such as 41 = 42: equal to nothing."""

    name: Name | None = None


Answer = Value | Listing | Region | Relation | Table | Words | Based | Ratio | Cases | Contradiction

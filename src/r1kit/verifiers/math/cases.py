"""Functions by cases and systems of equations: `\\begin{cases} ... \\end{cases}` from tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r1kit.verifiers.math import regions
from r1kit.verifiers.math.answers import Answer, Cases, Piece, Region, Value, Words
from r1kit.verifiers.math.limits import MAX_ITEMS, MathError, NotMathError, OverLimitError, UnsupportedError

if TYPE_CHECKING:
    from r1kit.verifiers.math.reading import Reader

ENVIRONMENTS = frozenset(("cases", "dcases", "rcases"))
_LEADING = frozenset(("if", "when", "for", "where", "while", "当", "若", "如果", ",", "&"))
_TRAILING = frozenset((",", ".", ";", "时"))
_OTHERWISE = frozenset(("otherwise", "else", "elsewhere", "其他", "其它", "其余", "否则"))
Slice = tuple[int, int]


def read_cases(reader: Reader, start: int, stop: int) -> Answer:
    """The rows in tokens[start:stop]: with conditions a function by cases, without them a system."""
    rows = [row if len(row) != 3 else [row[0], (row[1][0], row[2][1])] for row in _cells(reader, start, stop)]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) > 2:
        raise UnsupportedError("cases of which some have no condition")
    if len(rows[0]) == 1:
        return reader.together([reader.items(*row[0]) for row in rows])
    values = [reader.items(*_stripped(reader, *row[0])) for row in rows]
    conditions = [_condition(reader, *_stripped(reader, *row[1])) for row in rows]
    return Cases(list(zip(values, _completed(conditions), strict=True)))


def _cells(reader: Reader, start: int, stop: int) -> list[list[Slice]]:
    rows: list[list[Slice]] = [[]]
    index = cell = start
    while index <= stop:
        kind, value = reader.tokens[index] if index < stop else ("o", "\\\\")
        if kind == "o" and value in ("&", "\\\\"):
            if cell < index:
                rows[-1].append((cell, index))
            elif value == "&":
                raise NotMathError("a case without a value")
            if value == "\\\\":
                rows.append([])
            cell = index + 1
        if (kind, value) == ("c", "begin"):
            index = reader.end_of_environment(index, stop)
        index = reader.partner.get(index, index) + 1
    rows = [row for row in rows if row]
    if not rows:
        raise NotMathError("no cases")
    if len(rows) > MAX_ITEMS:
        raise OverLimitError(f"more than {MAX_ITEMS} cases")
    return rows


def _stripped(reader: Reader, start: int, end: int) -> Slice:
    """Without commas, "if" and the like at the ends."""
    while start < end and reader.tokens[start][1].lower() in _LEADING:
        start += 1
    while start < end and reader.tokens[end - 1][1] in _TRAILING:
        end -= 1
    if start == end:
        raise NotMathError("an empty case")
    return start, end


def _condition(reader: Reader, start: int, end: int) -> Answer:
    """A region where it is one; what is no mathematics is compared word by word."""
    try:
        found = reader.items(start, end)
    except MathError:
        text = " ".join(value for _, value in reader.tokens[start:end])
        return Words(text.lower(), text)
    if isinstance(found, Value) and found.name is not None and found.name.plain:  # x = 0
        return Region([Piece(found.node, True, found.node, True)], found.name.text, inequality=True)
    return found


def _completed(conditions: list[Answer]) -> list[Answer]:
    """ "otherwise" as what the other conditions leave, where they are regions of one variable."""
    open_ = [c for c in conditions if isinstance(c, Words) and c.text in _OTHERWISE]
    others = [c for c in conditions if isinstance(c, Region)]
    if len(open_) != 1 or not others or len(others) + 1 != len(conditions) or len({c.variable for c in others}) != 1:
        return conditions
    union = others[0]
    for other in others[1:]:
        union = regions.join("∪", union, other)
    rest = Region(regions.complement(union).pieces, others[0].variable, inequality=True)
    return [rest if c is open_[0] else c for c in conditions]

"""Regions of the real line (intervals, inequalities, set builders) and matrices, from tokens and answers."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

from r1kit.verifiers.math.answers import Answer, Listing, Piece, Region, Value
from r1kit.verifiers.math.evaluate import try_form
from r1kit.verifiers.math.limits import NotMathError, UnsupportedError
from r1kit.verifiers.math.numeric import real_value, uses, variables
from r1kit.verifiers.math.parser import Node

if TYPE_CHECKING:
    from r1kit.verifiers.math.reading import Reader

POSITIVE = Region([Piece(("n", 0), False, None, False)])
WHOLE = Region([Piece(None, False, None, False)])
_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix vmatrix Vmatrix smallmatrix array".split())  # noqa: SIM905
_TURN = str.maketrans("<>", "><")
_INFINITY: Node = ("k", "inf")


def copy(answer: Answer) -> Answer:
    """A copy that may be given a name: what was read before is shared by the cache."""
    return (
        dataclasses.replace(answer, items=list(answer.items))
        if isinstance(answer, Listing)
        else dataclasses.replace(answer)
    )


def as_region(answer: Answer) -> Region | None:
    """An interval written as a pair, a finite set of numbers, or a region."""
    if isinstance(answer, Region):
        return answer
    if not isinstance(answer, Listing):
        return None
    if answer.bare and len(answer.items) > 1:  # (1, 2), (3, 4) beside a union
        parts = [as_region(i) for i in answer.items if isinstance(i, (Listing, Region)) and i.name is None]
        known = [p for p in parts if p is not None]
        return _normal([piece for p in known for piece in p.pieces]) if len(known) == len(answer.items) else None
    values = [i for i in answer.items if isinstance(i, Value) and i.name is None]
    if len(values) != len(answer.items):
        return None
    if answer.opening == "{":
        return _normal([Piece(v.node, True, v.node, True) for v in values]) if values else Region([])
    if len(values) != 2 or answer.opening not in ("(", "[") or answer.closing not in (")", "]"):
        return None
    low, high = (v.node for v in values)
    if low == _INFINITY or high == ("neg", _INFINITY):
        return None
    piece = Piece(
        None if low == ("neg", _INFINITY) else low,
        answer.opening == "[" and low != ("neg", _INFINITY),
        None if high == _INFINITY else high,
        answer.closing == "]" and high != _INFINITY,
    )
    return Region([piece])


def has_infinity(answer: Answer) -> bool:
    return isinstance(answer, Listing) and any(
        isinstance(i, Value) and uses(i.node, lambda n: n == _INFINITY) for i in answer.items
    )


def join(op: str, a: Region, b: Region) -> Region:
    if op in ("∪", "U"):
        return _normal([*a.pieces, *b.pieces])
    return _intersection(a, b if op == "∩" else complement(b))


def complement(region: Region) -> Region:
    pieces = []
    low: Node | None = None
    low_closed, open_end = False, True
    for piece in _normal(region.pieces).pieces:
        if piece.low is not None:
            pieces.append(Piece(low, low_closed, piece.low, not piece.low_closed))
        low, low_closed, open_end = piece.high, not piece.high_closed, piece.high is not None
        if not open_end:
            break
    if open_end:
        pieces.append(Piece(low, low_closed and low is not None, None, False))
    return Region(pieces)


def _bound(node: Node | None, infinite: int) -> Any:
    if node is None:
        return infinite * float("inf")
    value = real_value(node)
    if value is None:
        raise UnsupportedError("an interval with ends that are no numbers")
    return value


def _intersection(a: Region, b: Region) -> Region:
    pieces = []
    for p in a.pieces:
        for q in b.pieces:
            low, low_closed = _tighter((p.low, p.low_closed), (q.low, q.low_closed), -1)
            high, high_closed = _tighter((p.high, p.high_closed), (q.high, q.high_closed), 1)
            x, y = _bound(low, -1), _bound(high, 1)
            if x < y or (x == y and low_closed and high_closed):
                pieces.append(Piece(low, low_closed, high, high_closed))
    return _normal(pieces)


def _tighter(a: tuple[Node | None, bool], b: tuple[Node | None, bool], side: int) -> tuple[Node | None, bool]:
    x, y = _bound(a[0], side), _bound(b[0], side)
    if x == y:
        return a[0], a[1] and b[1]
    return a if (x < y) == (side > 0) else b


def _normal(pieces: list[Piece]) -> Region:
    """Sorted, touching pieces merged; as given where an end is not a number."""
    try:
        bounds = [(_bound(p.low, -1), _bound(p.high, 1)) for p in pieces]
    except UnsupportedError:
        return Region(pieces)
    order = sorted(zip(bounds, pieces, strict=True), key=cmp_to_key(_starts_first))
    merged: list[tuple[Any, Piece]] = []
    for (low, high), piece in order:
        if merged:
            last_high, last = merged[-1]
            if low < last_high or (low == last_high and (piece.low_closed or last.high_closed)):
                if high > last_high:
                    last.high, last.high_closed, last_high = piece.high, piece.high_closed, high
                elif high == last_high:
                    last.high_closed = last.high_closed or piece.high_closed
                merged[-1] = (last_high, last)
                continue
        merged.append((high, dataclasses.replace(piece)))
    return Region([p for _, p in merged])


def _starts_first(a: Any, b: Any) -> int:
    (x, _), p = a
    (y, _), q = b
    if x != y:
        return -1 if x < y else 1
    return int(q.low_closed) - int(p.low_closed)


def from_inequality(sides: list[Node], ops: list[str]) -> Region | None:
    """One variable against constants: x < 3, 1 <= x < 2, 2x + 1 > 5, |x| < 3; None for anything else."""
    if len(sides) == 2 and (found := _solved(sides, ops[0])) is not None:
        return found
    places = [k for k, s in enumerate(sides) if s[0] == "v"]
    if len(places) != 1 or any(variables(s) for k, s in enumerate(sides) if k != places[0]):
        return None
    if len(sides) > 3 or (len(sides) == 3 and places[0] != 1):
        return None
    name, region = sides[places[0]][1], WHOLE
    for k, op in enumerate(ops):
        left, right = sides[k], sides[k + 1]
        if right[0] == "v":  # 3 < x: turned round
            left, right, op = right, left, op.translate(_TURN)
        region = join("∩", region, _half_line(right, op))
    return Region(region.pieces, name, inequality=True)


def _solved(sides: list[Node], op: str) -> Region | None:
    """Linear inequalities with rational coefficients, and |linear| against a number."""
    if sides[1][0] == "abs":
        return _solved(sides[::-1], op.translate(_TURN))
    if sides[0][0] == "abs" and op != "!=":
        inner, end = sides[0][1], sides[1]
        above, below = _solved([inner, ("neg", end)], op.translate(_TURN)), _solved([inner, end], op)
        if above is None or below is None or (real_value(end) or 0) < 0:
            return None
        result = join("∩" if op[0] == "<" else "∪", above, below)
        return Region(result.pieces, below.variable, inequality=True)
    names = variables(sides)
    if len(names) != 1 or uses(sides, lambda n: n == _INFINITY or n[0] in ("abs", "f", "pm")):
        return None
    form = try_form(("+", [sides[0], ("neg", sides[1])]))
    (name,) = names
    if form is None or form.den is not None or form.opaque or set(form.num) - {(), ((name, 1),)}:
        return None
    slope, offset = form.num.get(((name, 1),), 0), form.num.get((), 0)
    if slope == 0:
        return None
    line = _half_line(("n", -Fraction(offset) / slope), op if slope > 0 else op.translate(_TURN))
    return Region(line.pieces, name, inequality=True)


def _half_line(end: Node, op: str) -> Region:
    infinite = end in (_INFINITY, ("neg", _INFINITY))
    if op == "!=":
        return complement(Region([Piece(end, True, end, True)]))
    if infinite:
        return WHOLE
    closed = op.endswith("=")
    return Region([Piece(None, False, end, closed) if op[0] == "<" else Piece(end, closed, None, False)])


def combine_inequalities(items: list[Answer], words: list[str]) -> Region | None:
    """x > 1 and x < 2; x < 1 or x > 2; x < 1, x > 2. None where the items are no inequalities of one variable."""
    parts = [i for i in items if isinstance(i, Region)]
    if len(parts) < len(items) or not any(p.inequality for p in parts):
        return None
    names = {p.variable or (p.name.text if p.name else "") for p in parts} - {""}
    if len(names) > 1:
        return None
    result = parts[0]
    for word, part in zip(words[-len(parts) + 1 :], parts[1:], strict=True):
        both = join("∩", result, part)
        # A comma between what cannot both hold is an "or".
        result = join("∪", result, part) if word == "or" or not both.pieces else both
    return Region(result.pieces, names.pop() if names else "", inequality=True)


def from_builder(reader: Reader, start: int, bar: int, end: int) -> Answer:
    """{x | x > 1}: the condition, where it is a region."""
    condition = reader.items(bar + 1, end)
    head = reader.item(start, bar)
    if not isinstance(condition, Region):
        raise UnsupportedError("a set by a condition that is no region")
    result = condition
    if isinstance(head, Region):
        result = join("∩", head, condition)
    elif not (isinstance(head, Value) and head.node[0] == "v"):
        raise UnsupportedError("a set of expressions")
    return Region(result.pieces, condition.variable, inequality=True)


def read_matrix(reader: Reader, begin: int, end: int) -> tuple[list[list[Node]], int]:
    """Rows of the environment that starts at `begin`, and the index after it."""
    tokens = reader.tokens
    close = reader.partner.get(begin + 1)
    if close is None or "".join(v for _, v in tokens[begin + 2 : close]) not in _MATRICES:
        raise UnsupportedError("an environment that is no matrix")
    finish = reader.end_of_environment(begin, end)
    index = close + 1
    if tokens[close - 1][1] == "array" and tokens[index] == ("o", "{"):
        index = reader.partner[index] + 1
    stop = next(i for i in range(index, end) if tokens[i] == ("c", "end"))
    rows: list[list[Node]] = [[]]
    cell = index
    while index <= stop:
        kind, value = tokens[index]
        if index == stop or (kind == "o" and value in ("&", "\\\\")):
            if cell < index:
                rows[-1].append(reader.node(cell, index))
            elif index < stop and value == "&":
                raise NotMathError("an empty cell")
            if value == "\\\\" and index < stop:
                rows.append([])
            cell = index + 1
        index = reader.partner.get(index, index) + 1
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise NotMathError("a matrix with rows of different length")
    return rows, finish + 1

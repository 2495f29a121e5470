"""Items with = < > ≈ ∈: assignments, chains of equalities, equations, inequalities."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from r1kit.verifiers.math import regions
from r1kit.verifiers.math.answers import Answer, Contradiction, Listing, Name, Relation, Value, Words
from r1kit.verifiers.math.limits import MathError, NotMathError, OverLimitError, UnsupportedError
from r1kit.verifiers.math.numeric import real_value, same_value, uses, variables
from r1kit.verifiers.math.parser import Node
from r1kit.verifiers.math.signs import expand_signs

if TYPE_CHECKING:
    from r1kit.verifiers.math.reading import Reader
    from r1kit.verifiers.math.tokens import Token

ORDER = ("<", ">", "<=", ">=", "!=")
_OPERATORS = ("=", "≈", "∈", "≡", "→", *ORDER)
MAX_SIDES = 12


def relation_positions(reader: Reader, start: int, end: int) -> list[int]:
    return reader.top(start, end, _OPERATORS)


def read_relation(reader: Reader, start: int, end: int) -> Answer:
    positions = relation_positions(reader, start, end)
    ops = [reader.tokens[p][1] for p in positions]
    if len(ops) > MAX_SIDES:
        raise OverLimitError(f"more than {MAX_SIDES} relations in a row")
    bounds = list(zip([start, *(p + 1 for p in positions)], [*positions, end], strict=True))
    if "≡" in ops or "→" in ops:
        raise UnsupportedError("a congruence or an arrow")
    if "∈" in ops:
        if ops != ["∈"]:
            raise UnsupportedError("a relation beside ∈")
        found = reader.item(*bounds[1])
        if bounds[0][0] == bounds[0][1] and isinstance(found, Value):
            return Contradiction()
        return _named(found, read_name(reader, *bounds[0]))
    if any(op in ORDER for op in ops):
        if not all(op in ORDER for op in ops):
            raise UnsupportedError("an equality beside an inequality")
        return _inequality(reader, bounds, ops)
    return _equalities(reader, bounds, ops)


def read_name(reader: Reader, start: int, end: int) -> Name | None:
    """The side as a name: x, x_1, f(x), (x, y), AB, m + n, P(A), area of ABC; None where it is none."""
    tokens = reader.tokens[start:end]
    if not tokens:
        return None
    text = "".join(v for _, v in tokens)
    kinds = {kind for kind, _ in tokens}
    core = _without_subscripts(reader, start, end)
    if len(core) == 1 and core[0][0] == "v":
        return Name(text.replace("{", "").replace("}", ""), reader.node(start, end), plain=True)
    calls = any(a[0] in ("v", "w", "q") and b[1] == "(" for a, b in pairwise(core))
    if calls and core[0][0] in ("v", "w", "q") and core[1][1] == "(" and _closes_last(core):
        return Name(text, None, plain=True)
    if calls and ("c", "frac") in core:
        return Name(text, None, arity=0)
    if tokens[0][1] == "(" and reader.partner[start] == end - 1 and all(k == "v" or v in "(,)_" for k, v in tokens):
        return Name(text, None, arity=text.count(",") + 1)
    if any(kind == "w" and len(value) > 3 for kind, value in tokens) or "q" in kinds or "accent" in text:
        return Name(text)
    if "n" in kinds or "k" in kinds or any(v in ("log", "ln", "lg", "^", "/") for _, v in tokens):
        return None
    try:
        return Name(text, reader.node(start, end))
    except MathError:
        return Name(text)


def _without_subscripts(reader: Reader, start: int, end: int) -> list[Token]:
    """The tokens of a name without primes and `_1`, `_{max}`, `^*`."""
    core, index = [], start
    while index < end:
        kind, value = reader.tokens[index]
        if kind == "o" and value == "_" and index + 1 < end:
            index = reader.partner.get(index + 1, index + 1) + 1
            continue
        if value != "'":
            core.append((kind, value))
        index += 1
    return core


def _closes_last(core: list[Token]) -> bool:
    """True for f(x) but not for f(x)g(x)."""
    depth = 0
    for index, (_, value) in enumerate(core):
        depth += (value == "(") - (value == ")")
        if index > 0 and depth == 0 and index < len(core) - 1:
            return False
    return core[-1][1] == ")"


def _named(answer: Answer, name: Name | None) -> Answer:
    answer = regions.copy(answer)
    if isinstance(answer, Listing) and answer.bare:
        answer.items = [_named(i, name) for i in answer.items]
    answer.name = name
    return answer


def _equalities(reader: Reader, bounds: list[tuple[int, int]], ops: list[str]) -> Answer:
    """Sides joined by = and ≈."""
    if bounds[0][0] == bounds[0][1]:  # ≈ 8.24
        rest = bounds[1:]
        return reader.simple(*rest[0]) if len(rest) == 1 else _equalities(reader, rest, ops[1:])
    if len(bounds) == 2 and ops == ["="] and (name := _variable_behind(reader, bounds)) is not None:
        return _named(reader.simple(*bounds[0]), name)
    name = read_name(reader, *bounds[0])
    if name is not None and len(bounds) > 2 and set(ops) == {"="}:
        names = [read_name(reader, *b) for b in bounds[:-1]]
        if all(n is not None and n.plain for n in names):  # x = y = 4, and y = f(x) = 2x
            value = reader.simple(*bounds[-1])
            chosen = [n for n in names if n is not None and "(" not in n.text] or names[:1]
            named = [_named(value, n) for n in chosen]
            return named[0] if len(named) == 1 else Listing(named)
    if (name is not None and "=" in ops[:1] + ops[-1:]) or (name is not None and ops[0] == "≈"):
        try:
            return _assignment(reader, name, bounds, ops)
        except _NotAssignmentError:
            pass
    if len(bounds) == 2 and ops == ["="]:
        left, right = (reader.node(*b) for b in bounds)
        if not variables(left) and not variables(right):
            return _chain(reader, None, bounds, ops)
        nodes = expand_signs(("pair", left, right))
        relations: list[Answer] = [Relation("=", n[1], n[2]) for n in nodes]
        return relations[0] if len(relations) == 1 else Listing(relations)
    return _chain(reader, None, bounds, ops)


def _variable_behind(reader: Reader, bounds: list[tuple[int, int]]) -> Name | None:
    """x of `12 = x`."""
    name = read_name(reader, *bounds[1])
    if name is None or not name.plain or name.node is None or variables(reader.node(*bounds[0])):
        return None
    return name


class _NotAssignmentError(Exception):
    """The left side looks like a name but what follows makes it an equation."""


def _assignment(reader: Reader, name: Name, bounds: list[tuple[int, int]], ops: list[str]) -> Answer:
    if not name.plain and name.arity == 1 and name.node is not None:
        # m + n = 5 names a quantity, x + y = z is an equation.
        sides = [reader.simple(*b) for b in bounds[1:]]
        if any(isinstance(s, Value) and variables(s.node) for s in sides):
            raise _NotAssignmentError
    if len(bounds) == 2:
        return _named(reader.simple(*bounds[1]), name)
    return _named(_chain(reader, name, bounds[1:], ops[1:]), name)


def _chain(reader: Reader, name: Name | None, bounds: list[tuple[int, int]], ops: list[str]) -> Answer:
    """a = b = c as one value, if it is true. What follows ≈ is an approximation of what stands before."""
    answers = [reader.simple(*b) for b in bounds]
    values = [a for a in answers if isinstance(a, Value)]
    if len(values) < len(answers):
        if len(answers) == 1:
            return answers[0]
        raise UnsupportedError("a chain of what are no values")
    exact = [values[0]]
    near: list[Value] = []
    for op, value in zip(ops, values[1:], strict=True):
        (near if op == "≈" or near else exact).append(value)
    for other in exact[1:]:
        if not _consistent(exact[0], other):
            return Contradiction()
    for other in near:
        if not _roughly(exact[-1].node, other.node):
            return Contradiction()
    # The last exact side is what was arrived at: x^2 - 1 of (x-1)(x+1) = x^2 - 1.
    chosen = exact[-1]
    chosen.approximations = tuple(v.node for v in near)
    return chosen


def _consistent(a: Value, b: Value) -> bool:
    try:
        if a.percent != b.percent:
            left = ("%", a.node) if a.percent else a.node
            right = ("%", b.node) if b.percent else b.node
            return same_value(left, right) is not False
        if a.degree != b.degree:
            left = ("deg", a.node) if a.degree else a.node
            right = ("deg", b.node) if b.degree else b.node
            return same_value(left, right) is True or same_value(a.node, b.node) is True
        if a.unit != b.unit and None not in (a.unit, b.unit):
            return True  # 1 m = 100 cm: the units' own business, the last side counts
        if same_value(a.node, b.node) is not False:
            return True
        # 2/3 = 0.667: a rounded decimal after an equals sign is sloppy, not false
        return b.places is not None and b.digits >= 3 and _roughly(a.node, b.node, 5 * 10.0**-(b.digits))
    except MathError:
        return False


def _roughly(a: Node, b: Node, tolerance: float = 0.02) -> bool:
    x, y = real_value(a), real_value(b)
    return x is None or y is None or abs(x - y) <= tolerance * max(abs(x), abs(y))


def _inequality(reader: Reader, bounds: list[tuple[int, int]], ops: list[str]) -> Answer:
    if any(a == b for a, b in bounds):
        raise NotMathError("an inequality without a side")
    sides: list[Node] = []
    for a, b in bounds:
        side = reader.simple(a, b)
        if isinstance(side, Value):
            sides.append(("deg", side.node) if side.degree and variables(side.node) else side.node)
        elif isinstance(side, Words):
            sides.append(("v", side.text))
        elif isinstance(side, Listing) and ops == ["!="] and side.bare and len(sides) == 1:
            found = [regions.from_inequality([sides[0], i.node], ops) for i in side.items if isinstance(i, Value)]
            both = regions.combine_inequalities([r for r in found if r is not None], ["and"] * (len(found) - 1))
            if both is None:
                raise UnsupportedError("± in an inequality")
            return both
        else:
            raise UnsupportedError("an inequality of what are no values")
    region = regions.from_inequality(sides, ops)
    if region is not None:
        return region
    parts: list[Answer] = [_turned(op, sides[i], sides[i + 1]) for i, op in enumerate(ops)]
    return parts[0] if len(parts) == 1 else Listing(parts, "{", "}")


def _turned(op: str, left: Node, right: Node) -> Relation:
    if uses((left, right), lambda n: n == ("k", "inf")):
        raise UnsupportedError("an inequality with infinity")
    return Relation(op.replace(">", "<"), right, left) if op in (">", ">=") else Relation(op, left, right)

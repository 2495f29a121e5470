"""Numbers where exact algebra ends: both sides at the same points, to many more digits than any text needs.

Evaluation is real first: a square root or logarithm of a negative number makes a point invalid unless the imaginary
unit occurs. Agreement at every valid point to `DIGITS` digits is equality; one clear difference is inequality; lost
precision, no valid point, or a value out of range leaves the question open (None).

mpmath keeps its precision in global state, so a private context is used under a lock (threads) that a forked child
replaces.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

from r1kit.verifiers.math.limits import MAX_ARGUMENT, MathError, OverLimitError, UndefinedError, UnsupportedError
from r1kit.verifiers.math.parser import CALLED, Node

DIGITS = 50
GUARD = 40
MAX_MAGNITUDE = 10**8  # bits
_SERIES = (
    Fraction(7193, 5040),
    Fraction(2741, 7919),
    Fraction(16033, 3571),
    Fraction(-9967, 6133),
    Fraction(-1459, 2903),
)

_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
_context = MPContext()
_context.dps = DIGITS + 2 * GUARD


class _LostError(MathError):
    """The point is outside the domain."""


class _PrecisionError(_LostError):
    """Digits were lost at this point."""


def variables(node: Any) -> set[str]:
    """The variables of a tree."""
    found: set[str] = set()
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple) and item and item[0] == "v":
            found.add(item[1])
        elif isinstance(item, (tuple, list)):
            stack.extend(i for i in item if isinstance(i, (tuple, list)))
    return found


def uses(node: Any, wanted: Callable[[Node], bool]) -> bool:
    """True where a node of the tree is wanted."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple) and item and isinstance(item[0], str) and wanted(item):
            return True
        if isinstance(item, (tuple, list)):
            stack.extend(i for i in item if isinstance(i, (tuple, list)))
    return False


def _points(names: Iterable[str]) -> list[dict[str, Fraction]]:
    """Rational points, positive and negative, with another value for every variable."""
    ordered = sorted(names)
    count = len(_SERIES) if ordered else 1
    return [
        {name: _SERIES[k] + Fraction(1009 * (i + 1), 7001 + 13 * i) * (i > 0) for i, name in enumerate(ordered)}
        for k in range(count)
    ]


def same_value(a: Node, b: Node) -> bool | None:
    """True or False where numbers settle whether two trees are equal, None where they do not."""
    return _agree(a, b, lambda x, y: [(x, y)])


def proportional(a: Node, b: Node, positive: bool = False) -> bool | None:
    """True where a is a constant multiple of b (a positive one if asked)."""

    def pairs(points: list[tuple[Any, Any]]) -> bool:
        (x0, y0), *rest = points
        return all(_close(x * y0, y * x0) for x, y in rest) and (not positive or _context.re(x0 * y0) > 0)

    with _lock:
        try:
            values = _values(a, b)
        except (MathError, ArithmeticError, ValueError):
            return None
        values = [(x, y) for x, y in values if x != 0 and y != 0]
        if len(values) < 2:
            return None
        return pairs(values)


def real_value(node: Node) -> Any | None:
    """A constant real tree as a number of many digits, or None."""
    if node == ("k", "inf") or node == ("neg", ("k", "inf")):
        return _context.inf if node[0] == "k" else -_context.inf
    if variables(node):
        return None
    with _lock:
        try:
            value = _at(node, {}, _is_complex(node))
        except (MathError, ArithmeticError, ValueError):
            return None
    return value if isinstance(value, _context.mpf) else None


def _agree(a: Node, b: Node, pairs: Any) -> bool | None:
    with _lock:
        try:
            values = _values(a, b)
        except OverLimitError:
            raise
        except _PrecisionError:
            return False
        except (MathError, ArithmeticError, ValueError):
            return None
        needed = 3 if variables((a, b)) else 1
        if any(not _close(x, y) for x, y in values):
            return False
        return True if len(values) >= needed else None


def _values(a: Node, b: Node) -> list[tuple[Any, Any]]:
    """Values of both trees at every point where both have one."""
    complex_ = _is_complex((a, b))
    found = []
    for point in _points(variables(a) | variables(b)):
        here = {name: _context.mpf(v.numerator) / v.denominator for name, v in point.items()}
        try:
            found.append((_at(a, here, complex_), _at(b, here, complex_)))
        except _PrecisionError:
            if not point:  # constants that differ by less than any honest answer does
                raise
        except (_LostError, UndefinedError, ZeroDivisionError):
            continue
    return found


def _is_complex(node: Any) -> bool:
    return uses(node, lambda n: n == ("k", "i") or n[:2] == ("f", "cis"))


def _at(node: Node, point: dict[str, Any], complex_: bool) -> Any:
    """The value at a point. Complex numbers have no order: what asks for one has no value."""
    try:
        return _evaluate(node, point, complex_)
    except TypeError as error:
        raise _LostError("an order of complex numbers") from error


def _close(x: Any, y: Any) -> bool:
    scale = max(abs(x), abs(y))
    return bool(abs(x - y) <= scale * _context.mpf(10) ** -DIGITS)


def _evaluate(node: Node, point: dict[str, Any], complex_: bool) -> Any:
    kind = node[0]
    if kind == "n":
        value = node[1]
        return _context.mpf(value.numerator) / value.denominator
    if kind == "v":
        return point[node[1]]
    if kind == "k":
        if node[1] == "inf":
            raise UnsupportedError("infinity inside an expression")
        return {"pi": +_context.pi, "e": +_context.e, "i": _context.mpc(0, 1)}[node[1]]
    if kind == "+":
        return _sum([_evaluate(n, point, complex_) for n in node[1]])
    if kind == "*":
        result = _context.mpf(1)
        for part in node[1]:
            result *= _evaluate(part, point, complex_)
        return result
    if kind == "f":
        return _call(node[1], [_evaluate(n, point, complex_) for n in node[2]], complex_)
    if kind == "log":
        base = _context.mpf(10) if node[1] is None else _evaluate(node[1], point, complex_)
        return _log(_evaluate(node[2], point, complex_), complex_) / _log(base, complex_)
    values = [_evaluate(n, point, complex_) for n in node[1:]]
    return _OPERATIONS[kind](values, complex_)


def _sum(values: list[Any]) -> Any:
    """A sum that notices when a term is too small beside another to be seen: then digits were lost."""
    sizes = [_context.mag(v) for v in values if v != 0]
    total = _context.fsum(values)
    bits = _context.prec
    if sizes and max(sizes) - min(sizes) > bits // 3:
        raise _PrecisionError("terms of very different size")
    if sizes and total != 0 and max(sizes) - _context.mag(total) > bits // 3:
        # Either exactly zero up to rounding, or a difference too small to trust.
        if max(sizes) - _context.mag(total) < bits - 20:
            raise _PrecisionError("a difference lost its digits")
        return _context.mpf(0)
    return total


def _power(values: list[Any], complex_: bool) -> Any:
    base, exponent = values
    if base == 0:
        if _context.re(exponent) <= 0:
            raise _LostError("zero to such a power")
        return base
    if abs(_context.mag(base)) * abs(exponent) > MAX_MAGNITUDE:
        raise OverLimitError("a power out of range")
    if not complex_ and base < 0 and exponent != int(exponent):
        return _odd_root(base, exponent)
    return base**exponent


def _odd_root(base: Any, exponent: Any) -> Any:
    """(-8)^(1/3) is -2: real roots of odd index, as schools have it."""
    for index in (3, 5, 7, 9, 11):
        top = exponent * index
        if abs(top - _context.nint(top)) < _context.mpf(10) ** -DIGITS:
            value = _context.power(-base, exponent)
            return -value if int(_context.nint(top)) % 2 else value
    raise _LostError("a root of a negative number")


def _root(values: list[Any], complex_: bool) -> Any:
    radicand, index = values
    if index == 0:
        raise UndefinedError("a root of index 0")
    return _power([radicand, 1 / index], complex_)


def _log(value: Any, complex_: bool) -> Any:
    if value == 0 or (not complex_ and value < 0):
        raise _LostError("the logarithm of such a number")
    return _context.log(value)


def _factorial(values: list[Any], complex_: bool) -> Any:
    (value,) = values
    if abs(value) > MAX_ARGUMENT:
        raise OverLimitError("a large factorial")
    return _context.gamma(value + 1)


def _binomial(values: list[Any], complex_: bool) -> Any:
    n, k = values
    if abs(n) > MAX_ARGUMENT or abs(k) > MAX_ARGUMENT:
        raise OverLimitError("a large binomial coefficient")
    return _context.binomial(n, k)


def _whole(values: list[Any], rounding: Callable[[Any], Any]) -> Any:
    (value,) = values
    if isinstance(value, _context.mpc) or abs(_context.mag(value)) > _context.prec // 2:
        raise _LostError("rounding a number of that size")
    nearest = _context.nint(value)
    return nearest if abs(value - nearest) < _context.mpf(10) ** -DIGITS else rounding(value)


_OPERATIONS: dict[str, Callable[[list[Any], bool], Any]] = {
    "neg": lambda v, c: -v[0],
    "/": lambda v, c: v[0] / v[1],
    "^": _power,
    "root": _root,
    "!": _factorial,
    "binom": _binomial,
    "abs": lambda v, c: abs(v[0]),
    "floor": lambda v, c: _whole(v, _context.floor),
    "ceil": lambda v, c: _whole(v, _context.ceil),
    "deg": lambda v, c: v[0] * _context.pi / 180,
    "%": lambda v, c: v[0] / 100,
}


def _call(name: str, values: list[Any], complex_: bool) -> Any:
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in CALLED:
        return _generic(name, values)
    (x,) = values if len(values) == 1 else (None,)
    if x is None:
        raise UnsupportedError(name)
    if _context.mag(x) > 200:
        raise _LostError("an argument too large")
    if name == "cis":
        return _context.expj(x)
    reciprocal = {"sec": "cos", "csc": "sin", "cot": "tan", "sech": "cosh", "csch": "sinh", "coth": "tanh"}
    if name in reciprocal:
        return 1 / _call(reciprocal[name], values, complex_)
    inverse = {"arcsec": "arccos", "arccsc": "arcsin"}
    if name in inverse:
        return _call(inverse[name], [1 / x], complex_)
    if name == "arccot":
        return _context.pi / 2 - _context.atan(x)
    if name in ("sinh", "cosh", "exp") and abs(x) > 10**6:
        raise OverLimitError("a power out of range")
    short = name.replace("arc", "a")
    method = getattr(_context, short, None) if short in _METHODS else None
    if method is None:
        raise UnsupportedError(name)
    value = method(x)
    if not complex_ and isinstance(value, _context.mpc):
        raise _LostError(f"{name} outside its domain")
    tiny = value == 0 or _context.mag(value) < -(_context.prec * 2 // 3)
    return _context.mpf(0) if tiny and _context.mag(x) > -10 else value  # sin(pi), not sin(10^-100)


def _generic(name: str, values: list[Any]) -> Any:
    """A function nobody has defined, by one that satisfies no identity by chance."""
    shift = 1 + CALLED.index(name)
    total = _context.mpf(shift)
    for k, value in enumerate(values):
        if _context.mag(value) > 50:
            raise _LostError("an argument too large")
        total += _context.cos(3 * value + shift + k) + value * value / (7 + 4 * shift + k)
    return total


_METHODS = frozenset("sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh".split())  # noqa: SIM905

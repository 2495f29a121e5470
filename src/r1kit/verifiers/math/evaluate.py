"""An expression tree to its exact form."""

from __future__ import annotations

import math
from fractions import Fraction

from r1kit.verifiers.math import forms
from r1kit.verifiers.math.forms import Form, Rational
from r1kit.verifiers.math.limits import TooLargeError, UnsupportedError
from r1kit.verifiers.math.parser import Node

_DEGREE = forms.divide(forms.PI, forms.number(180))
_CONSTANTS = {"pi": forms.PI, "e": forms.E, "i": forms.I}


def to_form(node: Node) -> Form:
    """The exact form of a tree; `MathError` where it has none (undefined, unsupported, over a limit)."""
    kind = node[0]
    if kind == "n":
        return forms.number(node[1])
    if kind == "v":
        return forms.generator(node[1])
    if kind == "k":
        if node[1] == "inf":
            raise UnsupportedError("infinity inside an expression")
        return _CONSTANTS[node[1]]
    if kind in ("+", "*"):
        join = forms.add if kind == "+" else forms.multiply
        result = to_form(node[1][0])
        for part in node[1][1:]:
            result = join(result, to_form(part))
        return result
    if kind == "neg":
        return forms.negate(to_form(node[1]))
    if kind == "/":
        return forms.divide(to_form(node[1]), to_form(node[2]))
    if kind == "^":
        return forms.power(to_form(node[1]), to_form(node[2]))
    if kind == "root":
        return forms.power(to_form(node[1]), forms.invert(to_form(node[2])))
    return _special(node)


def _special(node: Node) -> Form:
    kind = node[0]
    if kind == "f":
        return _function(node)
    if kind == "log":
        return _logarithm(node)
    if kind == "!":
        return forms.factorial(to_form(node[1]))
    if kind == "binom":
        return forms.binomial(to_form(node[1]), to_form(node[2]))
    if kind == "deg":
        return forms.multiply(to_form(node[1]), _DEGREE)
    if kind == "%":
        return forms.multiply(to_form(node[1]), forms.number(Fraction(1, 100)))
    if kind in ("abs", "floor", "ceil"):
        inner = to_form(node[1])
        value: Rational | None = inner.rational()
        if value is None:
            return forms.opaque(kind, inner)
        if kind == "abs":
            return forms.number(-value if value < 0 else value)
        return forms.number(math.floor(value) if kind == "floor" else math.ceil(value))
    raise UnsupportedError(f"{kind} inside an expression")


def _function(node: Node) -> Form:
    name, arguments = node[1], [to_form(a) for a in node[2]]
    values = [a.rational() for a in arguments]
    if name in ("max", "min", "gcd", "lcm") and None not in values:
        known = [v for v in values if v is not None]
        if name in ("max", "min"):
            return forms.number(max(known) if name == "max" else min(known))
        if all(v == int(v) for v in known):
            whole = [int(v) for v in known]
            return forms.number(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
    return forms.opaque(name, *arguments)


def _logarithm(node: Node) -> Form:
    base = None if node[1] is None else to_form(node[1])
    inner = to_form(node[2])
    b, x = (None if base is None else base.rational()), inner.rational()
    if x == 1:
        return forms.number(0)
    if b is not None and x is not None and b > 1 and x > 0 and b == int(b):
        exponent = _exact_log(int(b), Fraction(x))
        if exponent is not None:
            return forms.number(exponent)
    return forms.opaque("log", *([inner] if base is None else [base, inner]))


def _exact_log(base: int, x: Fraction) -> int | None:
    """k where base^k is x, if x is a power of base or one over it."""
    sign = 1
    if x < 1:
        x, sign = 1 / x, -1
    if x.denominator != 1:
        return None
    value, k = int(x), 0
    while value % base == 0:
        value //= base
        k += 1
    return sign * k if value == 1 else None


def try_form(node: Node) -> Form | None:
    """The form, or None where exact algebra does not reach (numbers may). Over-limit and undefined still raise."""
    try:
        return to_form(node)
    except TooLargeError:
        return None

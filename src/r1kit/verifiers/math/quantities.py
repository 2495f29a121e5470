"""Two expressions with their signs, units and digits: the rules for percent, degrees, decimals and fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from r1kit.verifiers.math import forms
from r1kit.verifiers.math.answers import Value
from r1kit.verifiers.math.evaluate import try_form
from r1kit.verifiers.math.forms import Form
from r1kit.verifiers.math.limits import OverLimitError, TooLargeError, UndefinedError
from r1kit.verifiers.math.numeric import real_value, same_value, uses, variables
from r1kit.verifiers.math.parser import Node
from r1kit.verifiers.math.policy import MathPolicy
from r1kit.verifiers.math.units import BARE_LETTERS, canonical_unit, conversion

Same = bool | None
_HUNDREDTH = Fraction(1, 100)


def same_quantity(gold: Value, prediction: Value, policy: MathPolicy) -> Same:
    """The whole rule for two values."""
    if _infinite(gold.node) or _infinite(prediction.node):
        return _infinite(gold.node) == _infinite(prediction.node)
    gold, prediction = _with_letter_units(gold, prediction)
    if gold.degree and prediction.unit == "rad":
        return same_node(("deg", gold.node), prediction.node)
    factor = _unit_factor(gold, prediction, policy)
    if factor is None:
        return False
    if policy.fractions == "reduced" and not prediction.reduced:
        return False
    node = prediction.node
    scales = _percent_scales(gold, prediction, policy)
    alike = gold.percent == prediction.percent
    results = [_compare(gold, prediction, node, s * factor, policy, rounds=alike or s != 1) for s in scales]
    results += [_compare_degrees(gold, prediction, policy)] if gold.degree != prediction.degree else []
    if gold.degree != prediction.degree and policy.degrees != "drop":
        results = results[-1:]
    if True in results:
        return True
    return None if None in results else False


def _infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, else 0."""
    sign = 1
    while node[0] == "neg":
        node, sign = node[1], -sign
    return sign if node == ("k", "inf") else 0


def _unit_factor(gold: Value, prediction: Value, policy: MathPolicy) -> Fraction | None:
    g, p = gold.unit, prediction.unit
    if policy.units == "drop" or g == p:
        return Fraction(1)
    if g and p and g[0] == p[0] == "^":  # square units against cubic units
        return None
    if not g or g[0] == "^":
        return Fraction(1) if policy.units != "exact" or not p else None
    if p is None:
        return Fraction(1) if policy.units == "match" else None
    return conversion(g, p)


def _letter_unit(value: Value) -> Value | None:
    """`5 m` and `5 m^2` as a number and a unit."""
    node = value.node
    if value.unit or node[0] != "*" or len(node[1]) != 2 or node[1][0][0] != "n":
        return None
    number, letter = node[1]
    power = ""
    if letter[0] == "^" and letter[2] in (("n", 2), ("n", 3)):
        letter, power = letter[1], f"^{letter[2][1]}"
    if letter[0] != "v" or letter[1] not in BARE_LETTERS:
        return None
    return Value(number, canonical_unit(letter[1]) + power, name=value.name)


def _with_letter_units(gold: Value, prediction: Value) -> tuple[Value, Value]:
    """Letters as units: of the prediction beside a gold without variables, of the gold beside a prediction's unit."""
    if not variables(gold.node):
        return gold, _letter_unit(prediction) or prediction
    if prediction.unit:
        return _letter_unit(gold) or gold, prediction
    return gold, prediction


def _percent_scales(gold: Value, prediction: Value, policy: MathPolicy) -> list[Fraction]:
    """By what the prediction's number may be multiplied to be compared with the gold's number."""
    one = Fraction(1)
    if gold.percent == prediction.percent:
        return [one]
    rule = policy.percent if gold.percent else policy.percent_of_plain_gold
    scaled = 1 / _HUNDREDTH if gold.percent else _HUNDREDTH
    return {"scale": [scaled], "strip": [one], "either": [one, scaled]}[rule]


def _compare_degrees(gold: Value, prediction: Value, policy: MathPolicy) -> Same:
    if policy.degrees == "exact":
        return False
    left = ("deg", gold.node) if gold.degree else gold.node
    right = ("deg", prediction.node) if prediction.degree else prediction.node
    return same_node(left, right)


def _compare(
    gold: Value, prediction: Value, node: Node, scale: Fraction, policy: MathPolicy, *, rounds: bool = True
) -> Same:
    if scale != 1:
        node = ("*", [("n", scale), node])
        form = try_form(node)
    else:
        form = prediction.form if node is prediction.node else try_form(node)
    result = same_forms(gold.form, form, gold.node, node)
    if result is not False or policy.decimals == "exact" or not rounds:
        return result
    if any(same_node(gold.node, n) for n in prediction.approximations):
        return True
    if any(same_node(n, node) for n in gold.approximations):
        return True
    return _rounded(gold, prediction, node, scale, policy)


def same_forms(a: Form | None, b: Form | None, left: Node, right: Node) -> Same:
    """Exact algebra first, numbers where it leaves the question open."""
    if a is not None and b is not None:
        try:
            if forms.equal(a, b):
                return True
            if not a.opaque and not b.opaque:
                return False
        except TooLargeError:
            pass
    return _numerically(left, right)


def _numerically(left: Node, right: Node) -> Same:
    result = same_value(left, right)
    if result is not True and uses((left, right), lambda n: n[0] == "log" and n[1] is None):
        natural = same_value(_natural(left), _natural(right))  # `log` is ln where that makes them agree
        return True if natural else result
    return result


def _natural(node: Any) -> Any:
    if isinstance(node, list):
        return [_natural(n) for n in node]
    if not isinstance(node, tuple):
        return node
    if node[0] == "log" and node[1] is None:
        return ("log", ("k", "e"), _natural(node[2]))
    return tuple(_natural(n) if isinstance(n, (tuple, list)) else n for n in node)


def same_node(left: Any, right: Any) -> Same:
    """Two trees, nothing but their values."""
    if left == right:
        return True
    try:
        return same_forms(try_form(left), try_form(right), left, right)
    except (UndefinedError, OverLimitError):
        return False


def same_number(node: Node, value: Value) -> Same:
    return same_node(node, ("%", value.node) if value.percent else value.node)


def _rounded(gold: Value, prediction: Value, node: Node, scale: Fraction, policy: MathPolicy) -> Same:
    """A decimal against a gold that is no integer; or, the other way round, a rounded gold against an exact value."""
    if gold.integer or (_rational(gold) is not None and Fraction(_rational(gold) or 0).denominator == 1):
        return False
    written, exact = (prediction, gold.node) if gold.places is None else (gold, node)
    if written.places is None:
        return False
    both = gold.places is not None and prediction.places is not None
    if both and prediction.digits < max(gold.digits + 2, 6):  # it may only refine the gold, by two digits at least
        return False
    value = _rational(written)
    if value is None:
        return None
    if written is prediction:
        value *= scale
    if policy.decimals == "relative":
        return _within(exact, value, abs(Fraction(value)) * Fraction(policy.relative_tolerance))
    if written.digits < policy.significant_digits:
        return False
    step = _last_place(written) * (scale if written is prediction else 1)
    return _within(exact, value, step / 2)


def _rational(value: Value) -> Any:
    return value.form.rational() if value.form is not None else None


def _last_place(value: Value) -> Fraction:
    """The worth of the last digit written: 10^-3 for 0.125, 10^1 for 1.25 x 10^3."""
    node = value.node
    while node[0] == "neg":
        node = node[1]
    power = Fraction(1)
    if node[0] == "*":
        power = Fraction(_rational(Value(("*", node[1][1:]))) or 1)
    mantissa = Fraction(1, 10 ** (value.places or 0))
    if node[0] == "n" and mantissa:
        number = abs(Fraction(node[1]))
        while number and (number / mantissa).denominator != 1:  # 1.25e-3: the exponent is in the number
            mantissa /= 10
    return mantissa * power


def _within(exact: Node, value: Any, tolerance: Fraction) -> Same:
    number = real_value(exact)
    if number is None:
        return False
    gap = abs(number - _mpf(number, Fraction(value)))
    return bool(gap <= _mpf(number, tolerance) * (1 + type(number)(10) ** -30))


def _mpf(like: Any, value: Fraction) -> Any:
    return type(like)(value.numerator) / value.denominator

"""Exact canonical forms: a rational function over Q in named generators, compared by cross multiplication.

Generators are variables, pi, e, i, roots of primes (`√2` with an exponent in [0, 1)), and opaque ones that stand for
what has no canonical form here (`sin(...)`, a root of a sum, a power with a symbolic exponent). Products of prime roots
with distinct exponents are linearly independent over Q, so without opaque generators equal forms mean equal values and
unequal forms mean unequal values. With opaque ones, equal still means equal; unequal is a question for `numeric`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

from r1kit.verifiers.math.limits import (
    MAX_ARGUMENT,
    MAX_BITS,
    MAX_DEGREE,
    MAX_EXPONENT,
    MAX_FACTORIAL,
    MAX_TERMS,
    OverLimitError,
    TooLargeError,
    UndefinedError,
)

Rational = int | Fraction
Mono = tuple[tuple[str, Any], ...]
Poly = dict[Mono, Rational]
_ONE: Poly = {(): 1}
_I, _PI, _E = "ⅈ", "π", "ℯ"
_PRIMES = [p for p in range(2, 1000) if all(p % q for q in range(2, math.isqrt(p) + 1))]


class Form:
    """num / den, `den` None for 1. `opaque` where a generator has no canonical form."""

    __slots__ = ("den", "num", "opaque")

    def __init__(self, num: Poly, den: Poly | None = None, opaque: bool = False) -> None:
        self.num, self.den, self.opaque = num, den, opaque

    def rational(self) -> Rational | None:
        """The value where the form is a rational number, else None."""
        if self.den is not None or self.opaque:
            return None
        if not self.num:
            return 0
        return self.num.get(()) if len(self.num) == 1 else None

    def variables(self) -> set[str]:
        """The names of plain variables (opaque generators hide theirs)."""
        polys = (self.num, self.den or {})
        return {g for poly in polys for mono in poly for g, _ in mono if g[0] not in "√ⅈπℯ{"}

    def key(self) -> str:
        """One string for one form; used inside opaque generators and shown as the normal form."""
        text = _poly_key(self.num)
        return text if self.den is None else f"({text})/({_poly_key(self.den)})"


def number(value: Rational) -> Form:
    return Form({(): value} if value else {})


def generator(name: str, opaque: bool = False) -> Form:
    return Form({((name, 1),): 1}, None, opaque)


PI, E, I = generator(_PI), generator(_E), generator(_I)  # noqa: E741


def opaque(name: str, *arguments: Form) -> Form:
    key = "{" + name + "(" + ";".join(a.key() for a in arguments) + ")}"
    if len(key) > 4000:
        raise TooLargeError("an opaque generator grew too long")
    return generator(key, opaque=True)


def add(a: Form, b: Form, sign: int = 1) -> Form:
    mixed = a.opaque or b.opaque
    if a.den is None and b.den is None:
        return Form(_add(a.num, b.num, sign), None, mixed)
    if a.den == b.den:
        return Form(_add(a.num, b.num, sign), a.den, mixed)
    x = _multiply(a.num, b.den) if b.den else a.num
    y = _multiply(b.num, a.den) if a.den else b.num
    den = _multiply(a.den or _ONE, b.den or _ONE)
    return Form(_add(x, y, sign), den, mixed)


def multiply(a: Form, b: Form) -> Form:
    num = _multiply(a.num, b.num)
    den = None if a.den is None and b.den is None else _multiply(a.den or _ONE, b.den or _ONE)
    return Form(num, den, a.opaque or b.opaque)


def divide(a: Form, b: Form) -> Form:
    return multiply(a, invert(b))


def invert(a: Form) -> Form:
    if not a.num:
        raise UndefinedError("division by zero")
    den = a.den or _ONE
    if len(a.num) > 1:
        return Form(den, a.num, a.opaque)
    ((mono, coefficient),) = a.num.items()
    factor, inverse = _power_mono(mono, -1)
    return Form(_multiply(den, {inverse: Fraction(factor) / coefficient}), None, a.opaque)


def negate(a: Form) -> Form:
    return Form({m: -c for m, c in a.num.items()}, a.den, a.opaque)


def equal(a: Form, b: Form) -> bool:
    """True where the forms are one rational function. Raises TooLargeError where that is too much to expand."""
    if a.den is None and b.den is None:
        return a.num == b.num
    return _multiply(a.num, b.den or _ONE) == _multiply(b.num, a.den or _ONE)


def power(base: Form, exponent: Form) -> Form:
    n = exponent.rational()
    if n is None:
        return opaque("^", base, exponent)
    if isinstance(n, Fraction) and n.denominator == 1:
        n = int(n)
    if isinstance(n, int):
        return _integer_power(base, n)
    return _rational_power(base, n)


def _integer_power(base: Form, n: int) -> Form:
    value = base.rational()
    if value is not None:
        return _number_power(value, n)
    if n < 0:
        return invert(_integer_power(base, -n))
    if base.den is None and len(base.num) == 1:
        ((mono, coefficient),) = base.num.items()
        if n > MAX_EXPONENT:
            raise OverLimitError(f"an exponent of more than {MAX_EXPONENT}")
        factor, raised = _power_mono(mono, n)
        scaled = _number_power(coefficient, n).rational()
        if scaled is None:
            raise TooLargeError("a large power")
        return Form({raised: scaled * factor}, None, base.opaque)
    if n > MAX_DEGREE:
        return opaque("^", base, number(n))
    result = Form(_ONE)
    for _ in range(n):
        result = multiply(result, base)
    return result


def _number_power(value: Rational, n: int) -> Form:
    if n == 0:
        return Form(_ONE)
    if value in (0, 1, -1):
        if value == 0 and n < 0:
            raise UndefinedError("division by zero")
        return number(value if n % 2 or value != -1 else 1)
    if abs(n) > MAX_EXPONENT:
        raise OverLimitError(f"an exponent of more than {MAX_EXPONENT}")
    size = max(abs(value.numerator), value.denominator).bit_length()
    if size * abs(n) > MAX_BITS:
        return opaque("^", number(value), number(n))
    return number(Fraction(value) ** n if n < 0 or isinstance(value, Fraction) else value**n)


def _rational_power(base: Form, n: Fraction) -> Form:
    """Of a single term with real positive factors; a real root for odd indices, i for square roots below zero."""
    if base.den is not None or len(base.num) > 1 or n.denominator > 12:
        return opaque("^", base, number(n))
    if not base.num:
        if n < 0:
            raise UndefinedError("division by zero")
        return number(0)
    mono, coefficient = next(iter(base.num.items()))
    if any(_keeps_root(g, e) is False for g, e in mono):
        return opaque("^", base, number(n))
    size: Rational = -coefficient if coefficient < 0 else coefficient
    result = _root_of_rational(size, n)
    if coefficient < 0:
        if n.denominator % 2:
            result = negate(result) if n.numerator % 2 else result
        elif n.denominator == 2 and not mono:
            result = multiply(result, _integer_power(I, n.numerator % 4))
        else:
            return opaque("^", base, number(n))
    factor, raised = _power_mono(mono, n)
    return multiply(result, Form({raised: factor}, None, base.opaque))


def _keeps_root(name: str, exponent: Any) -> bool:
    """True where (g^exponent)^n is g^(exponent n) for real values: positive constants, and x itself but not x^2."""
    return name[0] in "√πℯ" or (name[0] not in "ⅈ{" and exponent == 1)


def _root_of_rational(value: Rational, n: Fraction) -> Form:
    form = Form(_ONE)
    for part, sign in ((value.numerator, 1), (value.denominator, -1)):
        factors = _factor(part)
        if factors is None:
            return opaque("^", number(value), number(n))
        for prime, count in factors:
            exponent = n * count * sign
            whole = math.floor(exponent)
            if abs(whole) * prime.bit_length() > MAX_BITS:
                raise TooLargeError("a large power")
            mono: Mono = ((f"√{prime}", exponent - whole),) if exponent != whole else ()
            form = multiply(form, Form({mono: Fraction(prime) ** whole}))
    return form


@lru_cache(maxsize=4096)
def _factor(n: int) -> tuple[tuple[int, int], ...] | None:
    """The prime factors of n with their counts; None where what remains is not known to be prime."""
    factors = []
    for prime in _PRIMES:
        if prime * prime > n:
            break
        count = 0
        while n % prime == 0:
            n //= prime
            count += 1
        if count:
            factors.append((prime, count))
    if n > 1:
        root = math.isqrt(n)
        if root * root == n and root < 10**6:
            factors.append((root, 2))
        elif n < 10**6:
            factors.append((n, 1))
        else:
            return None
    return tuple(factors)


def factorial(a: Form) -> Form:
    n = a.rational()
    if n is None:
        return opaque("!", a)
    if n < 0 or n != int(n):
        raise UndefinedError(f"the factorial of {n}")
    if n > MAX_ARGUMENT:
        raise OverLimitError(f"a factorial of more than {MAX_ARGUMENT}")
    if n > MAX_FACTORIAL:
        return opaque("!", a)
    return number(math.factorial(int(n)))


def binomial(a: Form, b: Form) -> Form:
    n, k = a.rational(), b.rational()
    if n is None or k is None or n != int(n) or k != int(k) or n < 0:
        return opaque("binom", a, b)
    if n > MAX_ARGUMENT:
        raise OverLimitError(f"a binomial coefficient of more than {MAX_ARGUMENT}")
    if n > MAX_FACTORIAL and min(k, n - k) > 20:
        return opaque("binom", a, b)
    return number(math.comb(int(n), int(k)) if k >= 0 else 0)


def _add(a: Poly, b: Poly, sign: int) -> Poly:
    result = dict(a)
    for mono, coefficient in b.items():
        total = result.get(mono, 0) + (coefficient if sign > 0 else -coefficient)
        if total:
            result[mono] = total
        else:
            result.pop(mono, None)
    if len(result) > MAX_TERMS:
        raise TooLargeError("too many terms")
    return result


def _multiply(a: Poly, b: Poly) -> Poly:
    if len(a) * len(b) > MAX_TERMS * 8:
        raise TooLargeError("too many terms")
    result: Poly = {}
    for m1, c1 in a.items():
        for m2, c2 in b.items():
            factor, mono = _multiply_monos(m1, m2)
            total = result.get(mono, 0) + c1 * c2 * factor
            if total:
                result[mono] = total
            else:
                del result[mono]
    if len(result) > MAX_TERMS:
        raise TooLargeError("too many terms")
    for coefficient in result.values():
        if coefficient.numerator.bit_length() > 2 * MAX_BITS:
            raise TooLargeError("a large coefficient")
    return result


def _multiply_monos(a: Mono, b: Mono) -> tuple[Rational, Mono]:
    if not a or not b:
        return 1, a or b
    exponents = dict(a)
    factor: Rational = 1
    for name, exponent in b:
        total = exponents.get(name, 0) + exponent
        if name == _I and total >= 2:
            factor, total = -factor, total - 2
        elif name[0] == "√" and total >= 1:
            factor, total = factor * int(name[1:]), total - 1
        if total:
            exponents[name] = total
        else:
            exponents.pop(name, None)
    return factor, tuple(sorted(exponents.items()))


def _power_mono(mono: Mono, n: Rational) -> tuple[Rational, Mono]:
    """mono^n as (rational factor, monomial)."""
    factor: Rational = 1
    result = []
    for name, exponent in mono:
        total = exponent * n
        if name == _I:
            total %= 4
            if total >= 2:
                factor, total = -factor, total - 2
        elif name[0] == "√":
            whole = math.floor(total)
            factor, total = factor * Fraction(int(name[1:])) ** whole, total - whole
        if total:
            result.append((name, total))
    return factor, tuple(result)


def show_rational(value: Rational) -> str:
    """Decimal where Python prints integers of that size quickly, hexadecimal beyond."""
    top, bottom = value.numerator, value.denominator
    text = str(top) if top.bit_length() < 4_000 else hex(top)
    if bottom == 1:
        return text
    return f"{text}/{bottom if bottom.bit_length() < 4_000 else hex(bottom)}"


def _poly_key(poly: Poly) -> str:
    if not poly:
        return "0"
    terms = []
    for mono in sorted(poly, key=repr):
        names = "*".join(g if e == 1 else f"{g}^{e}" for g, e in mono)
        coefficient = poly[mono]
        if not names:
            terms.append(show_rational(coefficient))
        else:
            terms.append(names if coefficient == 1 else f"{show_rational(coefficient)}*{names}")
    return " + ".join(terms)

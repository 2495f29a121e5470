"""Units and currencies after (or before) a number: names brought together, a few exact conversions, scale words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1kit.verifiers.math.tokens import Token

Rational = int | Fraction

# canonical name: (dimension, factor to the dimension's base, spellings)
_TABLE: dict[str, tuple[str, Fraction, str]] = {
    "mm": ("length", Fraction(1, 1000), "millimeter millimetre millimeters millimetres 毫米"),
    "cm": ("length", Fraction(1, 100), "centimeter centimetre centimeters centimetres cms 厘米"),
    "dm": ("length", Fraction(1, 10), "decimeter decimetre decimeters decimetres 分米"),
    "m": ("length", Fraction(1), "meter metre meters metres 米"),
    "km": ("length", Fraction(1000), "kilometer kilometre kilometers kilometres kms 千米 公里"),
    "in": ("inch", Fraction(1), "inch inches"),
    "ft": ("inch", Fraction(12), "foot feet"),
    "yd": ("inch", Fraction(36), "yard yards"),
    "mi": ("inch", Fraction(63360), "mile miles"),
    "mg": ("mass", Fraction(1, 1000), "milligram milligrams"),
    "g": ("mass", Fraction(1), "gram grams gm gms 克"),
    "kg": ("mass", Fraction(1000), "kilogram kilograms kgs 千克 公斤"),
    "t": ("mass", Fraction(10**6), "tonne tonnes 吨"),
    "lb": ("ounce", Fraction(16), "lbs pound pounds"),
    "oz": ("ounce", Fraction(1), "ounce ounces"),
    "s": ("time", Fraction(1), "sec secs second seconds 秒 秒钟"),
    "min": ("time", Fraction(60), "mins minute minutes 分钟"),
    "h": ("time", Fraction(3600), "hr hrs hour hours 小时 时"),
    "day": ("time", Fraction(86400), "days 天 日"),
    "week": ("time", Fraction(604800), "weeks 周 星期"),
    "month": ("month", Fraction(1), "months 个月 月"),
    "year": ("month", Fraction(12), "years yr yrs 年"),
    "ml": ("volume", Fraction(1, 1000), "mL milliliter millilitre milliliters millilitres 毫升"),
    "l": ("volume", Fraction(1), "L liter litre liters litres 升"),
    "cent": ("money", Fraction(1, 100), "cents ¢"),
    "dollar": ("money", Fraction(1), "dollars USD bucks \x04 美元"),
    "euro": ("euro", Fraction(1), "euros EUR €"),
    "yuan": ("yuan", Fraction(1), "元 ¥ 块 块钱 RMB"),
    "sterling": ("sterling", Fraction(1), "£ GBP"),
    "mph": ("mph", Fraction(1), ""),
    "°": ("angle", Fraction(1), "degree degrees deg 度"),
    "°C": ("celsius", Fraction(1), "摄氏度 celsius Celsius"),
    "°F": ("fahrenheit", Fraction(1), "fahrenheit Fahrenheit"),
    "rad": ("radian", Fraction(1), "radian radians"),
    "km/h": ("kmh", Fraction(1), "kmh kph"),
    "": ("", Fraction(1), "unit units"),
}
_CANONICAL = {name: name for name in _TABLE if name} | {
    spelling: name for name, (_, _, spellings) in _TABLE.items() for spelling in spellings.split()
}
_POWERS_OF_TEN = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = dict(zip("third fourth fifth sixth seventh eighth ninth tenth".split(), range(3, 11), strict=True))  # noqa: SIM905
_PARTS |= {"twelfth": 12, "hundredth": 100, "thousandth": 1000, "millionth": 10**6}
# `3 million` is 3 * 10^6, `2 thirds` is 2/3.
SCALES: dict[str, int | Fraction] = {
    **_POWERS_OF_TEN, **{f"{name}s": value for name, value in _POWERS_OF_TEN.items()}, "dozen": 12, "dozens": 12,
    **{f"{name}s": Fraction(1, value) for name, value in _PARTS.items()}, "halves": Fraction(1, 2),
    "十": 10, "百": 100, "千": 1000, "万": 10**4, "十万": 10**5, "百万": 10**6, "千万": 10**7, "亿": 10**8,
}  # fmt: skip
PERCENT_WORDS = frozenset(("percent", "percents", "pct", "percentage"))
# A phrase with one of these is a statement or a hedge, not a unit.
_NO_UNIT = frozenset(
    (  # noqa: SIM905
        "or and not no if when than more less fewer least most over under about approximately approx mod modulo "
        "is are was for all any some where with without plus minus times divided to from between only also but "
        "either both neither maybe perhaps possibly possible i think guess unless infinity undefined none off "
        "remainder then thus so because however wait wrong incorrect false true right correct fails error "
        "impossible factorial factorials half third doubled tripled halved inverse inverted reciprocal negative "
        "negated opposite imaginary choose raised exponent radical base binary octal hexadecimal "
        "hex lakh crore fold transposed transpose permille ppm basis repeating recurring except excluding "
        "excluded twice thrice unsure uncertain one two three four five six seven eight nine ten eleven twelve twenty "
        "thirty forty fifty sixty seventy eighty ninety zero"
    ).split()
)
# The same inside a Chinese word.
_NO_UNIT_CHINESE = re.compile(
    r"[或不没非错的之余多除减加乘幂根负‰]|以[上下外内]|至少|[超大小少]于|次方|倒数|左右|可能|也许"
)
# Of a length ("square feet", "feet squared") or a time ("per second squared"); beside anything else it is an operation.
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3, "平方": 2, "立方": 3}
_RAISED = frozenset(name for name, row in _TABLE.items() if row[0] in ("length", "inch", "time", ""))
_RENAMED = {"mi/h": "mph", "° c": "°C", "° °C": "°C", "° f": "°F", "° °F": "°F"}
MAX_PARTS, MAX_WORD = 6, 24
# Set without \text, a single letter is a unit only beside a plain number whose gold has no variables.
BARE_LETTERS = frozenset("mgshLNJ")


def is_unit(name: str) -> bool:
    return name in _CANONICAL


def split_unit(tokens: list[Token], start: int, end: int) -> tuple[int, str | None]:
    """(end of the number, canonical unit or None) of tokens[start:end]."""
    first = start + 1
    while first < end and not (_begins_unit(tokens, first, end) and _ends_operand(tokens[first - 1])):
        first += 1
    if first >= end:
        return end, None
    unit = _canonical_phrase(tokens[first:end])
    if unit is not None and not any(kind in "nk" for kind, _ in tokens[start:first]) and not _known(tokens[first:end]):
        return end, None  # "a square": no number, so no unit
    return (end, None) if unit is None else (first, unit)


def _known(tokens: list[Token]) -> bool:
    return all(kind not in ("w", "q") or value in _CANONICAL or value in _POWERS for kind, value in tokens)


def _begins_unit(tokens: list[Token], index: int, end: int) -> bool:
    kind, value = tokens[index]
    if kind == "q" or value == "\x04":
        return True
    if kind == "w":
        return value in _CANONICAL or value in _POWERS or len(value) > 3 or not value.isascii()
    if value == "°":
        following = tokens[index + 1] if index + 1 < end else ("", "")
        return following[1] in ("C", "F")
    return False


def _ends_operand(token: Token) -> bool:
    return token[0] in ("n", "v", "k") or token[1] in (")", "}", "]", "!", "|") or token[1] in SCALES


def _canonical_phrase(tokens: list[Token]) -> str | None:
    """`square feet`, `ft^2`, `cm^{2}`, `miles per hour`, `m/s^2`, `red marbles` in one spelling; None if no unit."""
    parts: list[str] = []
    power = 1
    for kind, value in tokens:
        if kind in ("w", "q", "v") or value == "\x04":
            lowered = value.lower()
            if lowered in _NO_UNIT or "'" in lowered or _operation(value):
                return None
            if lowered in ("per", "an", "a", "of", "the") and parts:
                parts.append("/" if lowered in ("per", "a", "an") and parts[-1] != "/" else "")
            elif value in _POWERS:
                exponent = _POWERS[value]
                if not value.endswith("ed"):
                    power = exponent
                elif parts and parts[-1] in _RAISED:
                    parts[-1] += f"^{exponent}"
                else:
                    return None
            else:
                name = canonical_unit(value)
                if power > 1 and name not in _RAISED:
                    return None
                parts.append(name + (f"^{power}" if power > 1 else ""))
                power = 1
        elif kind == "n" and parts and parts[-1] in ("^", "^-"):
            parts[-1] += value
        elif value == "-" and parts and parts[-1] == "^":
            parts[-1] = "^-"
        elif value in ("^", "/", "-", "°"):
            parts.append(value)
        elif value not in ("{", "}", "*", "(", ")", "."):
            return None
    if power > 1 or len(parts) > MAX_PARTS or any(len(p) > MAX_WORD for p in parts):
        return None  # prose, no unit
    text = "".join(parts) if any(p in "^/-" or p.startswith("^") for p in parts) else " ".join(p for p in parts if p)
    return _RENAMED.get(text, text)


def _operation(word: str) -> bool:
    """True for a Chinese word that says more than a unit: 42分之一 is no 42."""
    return not word.isascii() and word not in _CANONICAL and _NO_UNIT_CHINESE.search(word) is not None


def canonical_unit(word: str) -> str:
    if word in _CANONICAL:
        return _CANONICAL[word]
    if not word.isascii():
        for prefix, power in (("平方", 2), ("立方", 3)):
            if word.startswith(prefix):
                return f"{canonical_unit(word[2:])}^{power}"
        return word
    lowered = word.lower()
    if lowered in _CANONICAL:
        return _CANONICAL[lowered]
    if lowered.endswith("ies"):
        return lowered[:-3] + "y"
    if lowered.endswith(("ches", "shes", "xes", "sses")):
        return lowered[:-2]
    return lowered[:-1] if lowered.endswith("s") and not lowered.endswith("ss") else lowered


def conversion(gold: str, prediction: str) -> Fraction | None:
    """The factor that turns a number of `prediction` units into one of `gold` units; None where they do not agree."""
    if gold == prediction:
        return Fraction(1)
    left, right = _split_power(gold), _split_power(prediction)
    if left is None or right is None or left[1] != right[1]:
        return None
    (dimension, factor), (other, other_factor) = _TABLE[left[0]][:2], _TABLE[right[0]][:2]
    return (other_factor / factor) ** left[1] if dimension == other else None


def _split_power(unit: str) -> tuple[str, int] | None:
    name, _, power = unit.partition("^")
    if name not in _TABLE or not name or (power and not power.isdigit()) or len(power) > 1:
        return None
    return name, int(power or 1)


def total(parts: Sequence[tuple[Rational, str | None]]) -> Rational | None:
    """2 hours 30 minutes in hours: amounts in ever smaller units of one dimension; None for anything else."""
    rows = [_TABLE.get(unit or "") for _, unit in parts]
    known = [row for row in rows if row is not None and row[0]]
    if len(known) < len(parts) or len({row[0] for row in known}) != 1:
        return None
    factors = [row[1] for row in known]
    if any(a <= b for a, b in pairwise(factors)):
        return None
    return sum(amount * factor for (amount, _), factor in zip(parts, factors, strict=True)) / factors[0]

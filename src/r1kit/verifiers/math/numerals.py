"""Numbers in words, English and Chinese, as digits: forty-two, two thirds, 四十二, 二分之一, 百分之五十, 三点一四.

Only a text that is such a number as a whole (a Chinese one with a unit or counter behind it) is rewritten: 三角形 is a
triangle and 一次函数 a linear function.
"""

from __future__ import annotations

import re

from r1kit.verifiers.math.units import is_unit

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_GROUPS = {"万": 10**4, "亿": 10**8}
_COUNTERS = frozenset("个只本人名位件条张块辆棵颗支枝朵头匹间层盒袋瓶杯碗页次种组对双套岁倍步")
_NUMERAL = "零〇一二两三四五六七八九十百千万亿"
_CHINESE = re.compile(
    rf"(负)?(?:(百分之)|([{_NUMERAL}]+)分之|([{_NUMERAL}]+)又([{_NUMERAL}]+)分之)?([{_NUMERAL}]+)"
    rf"(?:点([零〇一二三四五六七八九]+))?([^{_NUMERAL}]{{0,4}})"
)
_SMALL = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_ENGLISH = {name: value for value, name in enumerate(_SMALL)} | {n: 10 * (k + 2) for k, n in enumerate(_TENS)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth".split()  # noqa: SIM905
_PARTS = {name: value for value, name in enumerate(_ORDINALS, 3)} | {"half": 2, "quarter": 4, "hundredth": 100}
_PARTS |= {f"{name}s": value for name, value in _PARTS.items()} | {"halves": 2}
MAX_WORDS = 16


def in_digits(text: str) -> str | None:
    """The number that a text spells out, as LaTeX; None where it is anything else."""
    if len(text) > 120:
        return None
    return _english(text.lower()) if text.isascii() else _chinese(text)


def _chinese(text: str) -> str | None:
    match = _CHINESE.fullmatch(text.strip(" 。."))
    if match is None:
        return None
    minus, percent, below, whole, below_mixed, last, decimals, unit = match.groups()
    if unit and unit not in _COUNTERS and not is_unit(unit.removeprefix("平方").removeprefix("立方")):
        return None
    numbers = [None if part is None else _cardinal(part) for part in (below, whole, below_mixed, last)]
    if any(n is None for n, part in zip(numbers, (below, whole, below_mixed, last), strict=True) if part is not None):
        return None
    under, before, under_mixed, top = numbers
    value = str(top)
    if decimals:
        value += "." + "".join(str(_DIGITS[c]) for c in decimals)
    if under is not None:
        value = rf"\frac{{{value}}}{{{under}}}"
    elif before is not None:
        value = rf"({before}+\frac{{{value}}}{{{under_mixed}}})"
    return f"{'-' if minus else ''}{value}{'%' if percent else ''}{unit}"


def _cardinal(text: str) -> int | None:
    """四十二 is 42, 一百零五 is 105, 二〇二四 is 2024; None where the order of the places is wrong."""
    if all(c in _DIGITS for c in text):
        return int("".join(str(_DIGITS[c]) for c in text)) if len(text) < 2 or "两" not in text else None
    total = section = 0
    digit: int | None = None
    last_group, last_place = 10**9, 10**4
    for char in text:
        if char in _DIGITS:
            if digit not in (None, 0):
                return None
            digit = _DIGITS[char]
        elif char in _PLACES:
            place = _PLACES[char]
            if place >= last_place or digit == 0:
                return None
            section += place * (1 if digit is None else digit)
            digit, last_place = None, place
        else:
            section += digit or 0
            if _GROUPS[char] >= last_group or not section:
                return None
            total += section * _GROUPS[char]
            section, digit, last_group, last_place = 0, None, _GROUPS[char], 10**4
    if digit and len(text) > 2 and text[-2] in "百千万亿":
        return None  # 一百一 is 110 in speech
    return total + section + (digit or 0)


def _english(text: str) -> str | None:
    words = re.findall(r"[a-z]+", text)
    if not words or len(words) > MAX_WORDS or re.search(r"[^a-z\s-]", text):
        return None
    minus = words[0] in ("minus", "negative")
    words = words[minus:]
    if words and words[-1] == "percent":
        value = _words(words[:-1])
        return None if value is None else f"{'-' if minus else ''}{value}%"
    if len(words) > 1 and words[-1] in _PARTS:
        top = 1 if words[:-1] in (["a"], ["one"]) else _words(words[:-1])
        if top is None or (top == 1) == words[-1].endswith("s"):
            return None
        return rf"{'-' if minus else ''}\frac{{{top}}}{{{_PARTS[words[-1]]}}}"
    value = _words(words)
    return None if value is None else f"{'-' if minus else ''}{value}"


def _words(words: list[str]) -> int | None:
    """one hundred and twenty-three; None where the words do not stand in such an order."""
    total, section, room, group = 0, 0, 1000, 10**12
    for index, word in enumerate(words):
        if word == "and":
            if index in (0, len(words) - 1) or words[index - 1] not in ("hundred", *_SCALES):
                return None
        elif word in _ENGLISH:
            value = _ENGLISH[word]
            if value >= room or (value == 0 and len(words) > 1):
                return None
            section += value
            room = 10 if value >= 20 else 1
        elif word == "hundred":
            if not 0 < section < 10:
                return None
            section, room = section * 100, 100
        elif word in _SCALES:
            if not section or _SCALES[word] >= group:
                return None
            group = _SCALES[word]
            total, section, room = total + section * group, 0, 1000
        else:
            return None
    return total + section if words else None

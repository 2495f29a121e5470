"""Why this matters: a number in words is an answer, and a word with a numeral in it (三角形, 一次函数) is none: read as
a number it would be right by chance. Exercised: spelled numbers of both languages against an oracle that spells them,
fractions and percent, and what has to stay words.

Not exercised: traditional and financial characters, ordinals, languages other than English and Chinese.
"""

from __future__ import annotations

import random

import pytest

from r1kit.verifiers.math.numerals import in_digits

_SMALL = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def english(n: int) -> str:
    if n < 20:
        return _SMALL[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_SMALL[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{_SMALL[n // 100]} hundred" + (f" and {english(n % 100)}" if n % 100 else "")
    scale, name = (10**6, "million") if n >= 10**6 else (10**3, "thousand")
    return f"{english(n // scale)} {name}" + (f" {english(n % scale)}" if n % scale else "")


def chinese(n: int) -> str:
    """With 零 wherever places are skipped."""
    if n >= 10**4:
        rest = n % 10**4
        return chinese(n // 10**4) + "万" + (("零" if rest < 1000 else "") + chinese(rest) if rest else "")
    text, skipped = "", False
    for place, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // place % 10
        if digit:
            text += ("零" if skipped and text else "") + "零一二三四五六七八九"[digit] + name
        skipped = not digit
    return text or "零"


def test_spelled_numbers_are_read_back() -> None:
    rng = random.Random(5)
    for _ in range(2_000):
        n = int(10 ** rng.uniform(0, 7))
        assert in_digits(english(n)) == str(n), english(n)
        assert in_digits(chinese(n)) == str(n), chinese(n)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minus one", "-1"),
        ("two thirds", r"\frac{2}{3}"),
        ("a half", r"\frac{1}{2}"),
        ("fifty percent", "50%"),
        ("二分之一", r"\frac{1}{2}"),
        ("三又二分之一", r"(3+\frac{1}{2})"),
        ("百分之五十", "50%"),
        ("三点一四", "3.14"),
        ("负五", "-5"),
        ("二〇二四", "2024"),
        ("五厘米", "5厘米"),
        ("三十二平方米", "32平方米"),
        ("十二", "12"),
    ],
)
def test_parts_and_signs(text: str, expected: str) -> None:
    assert in_digits(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "三角形",
        "一次函数",
        "第三",
        "一百一",
        "百百",
        "十百",
        "万",
        "二或三",
        "两两",
        "a",
        "hundred",
        "one one",
        "twenty twelve",
        "six ten",
        "one thirds",
        "and one",
        "forty-two marbles",
        "someone",
    ],
)
def test_words_stay_words(text: str) -> None:
    assert in_digits(text) is None

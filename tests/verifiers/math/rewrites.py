"""Rewrites that keep the value of a gold, and digit changes that do not: the metamorphic tests' material."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from fractions import Fraction


def spaced(gold: str, rng: random.Random) -> str:
    """White space where LaTeX ignores it: around operators and brackets."""
    if "{,}" in gold:
        return gold
    return re.sub(r"(?<!\\)([=+*/<>{}()^-])", lambda m: m[1] + " " * rng.randrange(3), gold)


def displayed(gold: str, rng: random.Random) -> str:
    return rng.choice(("${}$", r"\({}\)", r"\[{}\]", "$${}$$", r"\displaystyle {}")).format(gold)


def boxed(gold: str, rng: random.Random) -> str:
    return rng.choice((r"\boxed{%s}", r"\fbox{%s}", r"\boxed{ %s }", "The answer is $\\boxed{%s}$.")) % gold


def fractions(gold: str, rng: random.Random) -> str:
    return re.sub(r"\\[dt]?frac(?![A-Za-z])", lambda m: rng.choice((r"\dfrac", r"\tfrac", r"\frac")), gold)


def sized(gold: str, rng: random.Random) -> str:
    """\\left( ... \\right) where plain brackets match."""
    if "\\left" in gold or gold.count("(") != gold.count(")") or "\\{" in gold or re.search(r"\\[A-Za-z]+\(", gold):
        return gold
    return gold.replace("(", r"\left(").replace(")", r"\right)")


def shuffled(gold: str, rng: random.Random) -> str:
    """The items of a list without brackets, or of a set, in another order."""
    if re.search(r"\d,\\?!?\d{3}|\\[,!]|text", gold):
        return gold
    match = re.fullmatch(r"(\\\{)?([^()\[\]{}=<>]+,[^()\[\]{}=<>]+?)(\\\})?", gold)
    if match is None or bool(match[1]) != bool(match[3]):
        return gold
    items = match[2].split(",")
    rng.shuffle(items)
    return f"{match[1] or ''}{','.join(items)}{match[3] or ''}"


def scaled(gold: str, rng: random.Random) -> str:
    """An equation in x and y with both sides multiplied."""
    match = re.fullmatch(r"([^=<>,]*[xy][^=<>,]*)=([^=<>,]*[xy\d][^=<>,]*)", gold)
    if match is None or "text" in gold or not re.search(r"[xy].*=.*[xy]|=\s*0$", gold):
        return gold
    k = rng.choice((2, 3, -1, 7))
    return f"{k}({match[1]}) = {k}({match[2]})"


def as_sum(gold: str, rng: random.Random) -> str:
    """An integer as a sum, a fraction with a common factor."""
    if re.fullmatch(r"-?\d{1,15}", gold):
        part = rng.randrange(1, 1000)
        return f"{int(gold) - part}+{part}"
    match = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", gold)
    if match:
        k = rng.randrange(2, 12)
        return rf"{match[1]}\frac{{{int(match[2]) * k}}}{{{int(match[3]) * k}}}"
    return gold


REWRITES: tuple[Callable[[str, random.Random], str], ...] = (
    spaced, displayed, boxed, fractions, sized, shuffled, scaled, as_sum,
)  # fmt: skip


def perturbed(gold: str, rng: random.Random) -> str | None:
    """`gold` with one digit changed; None where it has none to change.

    Left out are changes that keep the value or the meaning by rights: 0 in -0, digits of a decimal that stays the same.
    """
    places = [m.start() for m in re.finditer(r"\d", gold)]
    if not places:
        return None
    place = rng.choice(places)
    digit = rng.choice([d for d in "0123456789" if d != gold[place]])
    changed = gold[:place] + digit + gold[place + 1 :]
    return changed if _number(changed) is None or _number(changed) != _number(gold) else None


def _number(text: str) -> Fraction | None:
    return Fraction(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None

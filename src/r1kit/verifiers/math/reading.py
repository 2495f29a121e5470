"""A text to an `Answer`: items split at commas and "or", relations, brackets, units, words.

Reading does not depend on what it will be compared with, so golds and repeated predictions are read once (cache).
Raises `MathError` where the text is nothing that is known here.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

from r1kit.verifiers.math import regions
from r1kit.verifiers.math.answers import Answer, Based, Listing, Ratio, Region, Table, Value, Words
from r1kit.verifiers.math.cases import ENVIRONMENTS, read_cases
from r1kit.verifiers.math.limits import MAX_CHARS, MAX_ITEMS, NotMathError, OverLimitError, UnsupportedError
from r1kit.verifiers.math.notation import tidy
from r1kit.verifiers.math.numerals import in_digits
from r1kit.verifiers.math.parser import Node, Parser
from r1kit.verifiers.math.policy import Reading
from r1kit.verifiers.math.relations import read_relation, relation_positions
from r1kit.verifiers.math.signs import expand_signs
from r1kit.verifiers.math.tokens import Token, match_brackets, tokenize
from r1kit.verifiers.math.units import PERCENT_WORDS, SCALES, split_unit, total

_FRENCH = re.compile(r"([\[\]])([^\[\]()]*,[^\[\]()]*)([\[\]])")
_BASED = re.compile(r"(-?\s*[0-9A-Z ]*[0-9A-Z](?:\.[0-9A-Z]+)?)\s*_\s*\{?\s*\(?\s*(\d{1,2}|[a-z]+)\s*\)?\s*\}?")
_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_CLOCK = re.compile(r"(\d{1,2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?\s*(?:([ap])\s*\.?\s*m\s*\.?)?", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?\d{1,200}")
_LEADING_WORDS = frozenset(("approximately", "about", "roughly", "exactly", "only", "just", "约", "大约", "共", "大概"))
_NO_WORDS = re.compile(r"[=<>^_*|~]|\d\s*[+/]|[+/]\s*\d")
# 2 hours 30 minutes
_COMPOUND = re.compile(r"(?<![\w.])(\d[\d.]*\s*\x02?[A-Za-z]{1,12}\x02?)\s+(?=\d[\d.]*\s*\x02?[A-Za-z])")
_POSITIVE = frozenset(("^+", "_+", "^{+}", "_{+}", "_{>0}"))
_ALL_REALS = frozenset(("all real numbers", "all reals", "the real numbers", "all real values"))
_SEPARATORS = (",", ";", "or", "and", "、")


@lru_cache(maxsize=1 << 16)
def read(text: str, reading: Reading) -> Answer:
    """The answer that `text` states."""
    if _INTEGER.fullmatch(text):
        return Value(("n", int(text)), integer=True)
    if len(text) > MAX_CHARS:
        raise OverLimitError(f"{len(text)} characters, at most {MAX_CHARS} are read")
    tidied = tidy(text, reading)
    if not tidied:
        raise NotMathError("nothing to read")
    special = _special(tidied)
    if special is not None:
        return special
    if "[" in tidied or "]" in tidied:
        tidied = _FRENCH.sub(_straighten, tidied)
    try:
        tokens = tokenize(tidied)
        return Reader(tokens, reading).items(0, len(tokens))
    except UnsupportedError:
        raise
    except NotMathError:
        if "\\" in tidied:
            raise UnsupportedError("words and commands together") from None
        if _NO_WORDS.search(tidied):
            raise
        if (spread := _COMPOUND.sub(r"\1 and ", tidied)) != tidied:
            return read(spread, reading)
        return read_words(tidied)


def _special(text: str) -> Answer | None:
    """Forms that are easier to see in the text: numbers in a base, times of day."""
    if "_" in text and (match := _BASED.fullmatch(text.replace("\x02", ""))):
        digits = match[1].replace(" ", "")
        base = int(match[2]) if match[2].isdigit() else _BASE_WORDS.get(match[2], 0)
        sign, digits = digits[: digits.startswith("-")], digits.lstrip("-")
        if 2 <= base <= 36 and (digits[0].isdigit() or (base > 10 and len(digits) > 1)):
            if base == 10 and "." not in digits and digits.isdigit():
                return Value(("n", int(sign + digits)), integer=True)
            return Based(sign + (digits if "." in digits else digits.lstrip("0") or "0"), base)
    if ":" in text and (match := _CLOCK.fullmatch(text.replace("\x02", ""))):
        parts: list[Node] = [("n", int(p)) for p in match.groups()[:3] if p is not None]
        half = (match[4] or "").lower()
        if half or int(match[2]) < 60:
            return Ratio(parts, clock=True, half=half)
    return None


def _straighten(match: re.Match[str]) -> str:
    """]1,2[ as (1,2): the bracket that turns its back is open."""
    opening, inner, closing = match.groups()
    if opening == "[" and closing == "]":
        return match[0]
    return f"{'(' if opening == ']' else '['}{inner}{')' if closing == '[' else ']'}"


def read_words(text: str) -> Answer:
    """Text that is no mathematics but has letters: words, perhaps a number's. Brackets and punctuation do not count."""
    plain = re.sub(r"\\(?:[A-Za-z]+|.)|[\x02\x04{}]", " ", text)
    kept = " ".join(re.sub(r"[^\w+\-/]+", " ", plain).split())
    if not any(c.isalpha() for c in kept):
        raise NotMathError("neither mathematics nor words")
    if kept.lower() in _ALL_REALS:
        return regions.WHOLE
    if (number := in_digits(kept)) is not None:
        return read(number, Reading())
    return Words(kept.lower(), kept)


class Reader:
    """Reads slices of one token list."""

    def __init__(self, tokens: list[Token], reading: Reading) -> None:
        self.tokens, self.reading = tokens, reading
        self.partner = match_brackets(tokens)
        self.spoken = next((value for kind, value in tokens if value in ("to", "out")), None)

    def node(self, start: int, end: int) -> Node:
        return Parser(self.tokens, self.partner, start, end, self.reading.mixed_numbers).expression()

    def top(self, start: int, end: int, wanted: tuple[str, ...]) -> list[int]:
        """Positions of the operators `wanted` outside all brackets and | |."""
        found, index, inside = [], start, False
        while index < end:
            kind, value = self.tokens[index]
            if kind == "o":
                if value == "|" and "|" not in wanted:
                    inside = not inside
                elif value in wanted and not inside:
                    found.append(index)
                index = self.partner.get(index, index)
            elif kind == "c" and value == "begin":
                index = self.end_of_environment(index, end)
            index += 1
        return found

    def end_of_environment(self, index: int, end: int) -> int:
        depth = 0
        while index < end:
            depth += {("c", "begin"): 1, ("c", "end"): -1}.get(self.tokens[index], 0)
            if depth == 0:
                return self.partner.get(index + 1, index)
            index += 1
        raise NotMathError("an environment is not closed")

    def items(self, start: int, end: int) -> Answer:
        """The answer of tokens[start:end], which may be several items."""
        cuts = self.top(start, end, _SEPARATORS)
        if not cuts:
            return self.item(start, end)
        bounds = [start, *(c + 1 for c in cuts)]
        stops = [*cuts, end]
        slices = [(a, b) for a, b in zip(bounds, stops, strict=True) if a < b]
        if not slices:
            raise NotMathError("only separators")
        if len(slices) > MAX_ITEMS:
            raise OverLimitError(f"more than {MAX_ITEMS} items")
        words = [self.tokens[c][1] for c in cuts]
        return combine([self.item(a, b) for a, b in slices], words)

    def together(self, answers: list[Answer]) -> Answer:
        """Several answers that hold at once, such as a system of equations."""
        return combine(answers, ["and"] * (len(answers) - 1))

    def item(self, start: int, end: int) -> Answer:
        while start < end and self.tokens[start][1].lower() in _LEADING_WORDS:
            start += 1
        if start >= end:
            raise NotMathError("an empty item")
        if relation_positions(self, start, end):
            return read_relation(self, start, end)
        return self.simple(start, end)

    def simple(self, start: int, end: int) -> Answer:
        """An item without a relation at its top."""
        if start >= end:
            raise NotMathError("a side is missing")
        kind, value = self.tokens[start]
        if kind == "o" and value in ("(", "[", "{", "{{", "⟨") and self.partner[start] == end - 1:
            return self.bracketed(start, end)
        joins = self.top(start, end, ("∪", "∩", "∖"))
        if not joins and end - start > 2:
            joins = [
                i for i in range(start + 1, end - 1)
                if self.tokens[i] == ("v", "U") and self.tokens[i - 1][1] in ")]" and self.tokens[i + 1][1] in "(["
            ]  # fmt: skip
        if joins:
            return self.joined(start, end, joins)
        if self.tokens[start] == ("k", "setR") and "".join(v for _, v in self.tokens[start + 1 : end]) in _POSITIVE:
            return regions.POSITIVE
        if kind == "k" and end - start == 1:
            if value == "empty":
                return Listing([], "{", "}")
            if value.startswith("set"):
                return regions.WHOLE if value == "setR" else Words(value.lower(), value)
        if ("c", "begin") in self.tokens[start:end]:
            return self.table(start, end)
        colons = self.top(start, end, (":",))
        if colons:
            bounds = [start, *(c + 1 for c in colons)]
            return Ratio([self.node(a, b) for a, b in zip(bounds, [*colons, end], strict=True)])
        return self.value(start, end) if self.spoken is None else self.spoken_ratio(start, end)

    def spoken_ratio(self, start: int, end: int) -> Answer:
        """`2 to 3` as 2 : 3, `3 out of 8` as 3/8."""
        words = [value if kind in ("w", "q") else "" for kind, value in self.tokens[start:end]]
        if words.count("to") == 1 and 0 < (at := start + words.index("to")) - start < end - start - 1:
            return Ratio([self.node(start, at), self.node(at + 1, end)])
        if words.count("out") == 1 and words[(at := words.index("out")) + 1 : at + 2] == ["of"]:
            return Value(("/", self.node(start, start + at), self.node(start + at + 2, end)))
        return self.value(start, end)

    def bracketed(self, start: int, end: int) -> Answer:
        opening, closing = self.tokens[start][1], self.tokens[end - 1][1]
        commas = self.top(start + 1, end - 1, (",", ";"))
        braces = opening == "{{" or (opening == "{" and commas)
        if braces:
            bar = self.top(start + 1, end - 1, ("|", ":"))
            if bar:
                return regions.from_builder(self, start + 1, bar[0], end - 1)
        if start + 1 == end - 1:
            if braces:
                return Listing([], "{", "}")
            raise NotMathError("empty brackets")
        inner = self.items(start + 1, end - 1)
        if braces:
            if isinstance(inner, Region) and inner.inequality:
                return inner
            return Listing(inner.items if isinstance(inner, Listing) and inner.bare else [inner], "{", "}")
        if commas and isinstance(inner, Listing) and inner.bare:
            return Listing(inner.items, opening, closing)
        if commas:
            raise NotMathError("a bracket around several items")
        return inner

    def joined(self, start: int, end: int, joins: list[int]) -> Answer:
        parts = [self.item(a, b) for a, b in zip([start, *(j + 1 for j in joins)], [*joins, end], strict=True)]
        result = regions.as_region(parts[0])
        if result is None and all(isinstance(p, Listing) and p.opening == "{" for p in parts):
            return Listing([i for p in parts if isinstance(p, Listing) for i in p.items], "{", "}")
        for position, part in zip(joins, parts[1:], strict=True):
            region = regions.as_region(part)
            if result is None or region is None:
                raise UnsupportedError("a union of what are no intervals")
            result = regions.join(self.tokens[position][1], result, region)
        if result is None:
            raise UnsupportedError("a union of what are no intervals")
        return result

    def table(self, start: int, end: int) -> Answer:
        """One matrix, with a factor before it perhaps, or one function by cases."""
        begin = next(i for i in range(start, end) if self.tokens[i] == ("c", "begin"))
        name = self.partner.get(begin + 1, begin)
        if begin == start and "".join(value for _, value in self.tokens[begin + 2 : name]) in ENVIRONMENTS:
            stop = self.end_of_environment(begin, end)
            if stop + 1 < end:
                raise UnsupportedError("an expression of functions by cases")
            last = max(i for i in range(begin, stop) if self.tokens[i] == ("c", "end"))
            return read_cases(self, name + 1, last)
        rows, stop = regions.read_matrix(self, begin, end)
        factor = self.node(start, begin) if begin > start else None
        if stop < end:
            raise UnsupportedError("an expression of matrices")
        return Table([[("*", [factor, cell]) for cell in row] for row in rows] if factor else rows)

    def value(self, start: int, end: int) -> Answer:
        """A number with its unit, an expression, or words."""
        if all(kind in ("w", "q") for kind, _ in self.tokens[start:end]) and not self.is_product(start, end):
            return read_words(" ".join(v for _, v in self.tokens[start:end]))
        unit = percent = degree = None
        while self.tokens[start][1] in ("\x04", "€", "£", "¥") or self.tokens[start] == ("w", "US"):
            unit = {"€": "euro", "£": "sterling", "¥": "yuan"}.get(self.tokens[start][1], "dollar")
            start += 1
            if start >= end:
                raise NotMathError("a currency without a number")
        minus_currency = self.tokens[start] == ("o", "-") and start + 1 < end and self.tokens[start + 1][1] == "\x04"
        if minus_currency:  # -\$5: the sign moves behind
            self.tokens[start], self.tokens[start + 1], unit = self.tokens[start + 1], self.tokens[start], "dollar"
            start += 1
        stop: int = end
        scale: int | Fraction = 1
        if self.tokens[end - 1][1].lower() in PERCENT_WORDS:
            percent, stop = True, end - 1
        else:
            stop, scale = self.scaled(start, end)
            stop, found = split_unit(self.tokens, start, stop) if scale == 1 else (stop, None)
            unit = found if found is not None else unit
            if stop < end and scale == 1:
                stop, scale = self.scaled(start, stop)
        node = self.node(start, stop)
        while node[0] in ("%", "deg") and not percent and not degree:
            percent, degree = node[0] == "%", node[0] == "deg"
            node = node[1]
        if node[0] == "neg" and node[1][0] in ("%", "deg"):
            percent, degree = node[1][0] == "%", node[1][0] == "deg"
            node = ("neg", node[1][1])
        if unit == "°":
            unit, degree = None, True
        if scale != 1:
            node = ("*", [("n", scale), node])
        return self.finished(node, start, stop, unit, bool(percent), bool(degree))

    def is_product(self, start: int, end: int) -> bool:
        """`xy` alone is a product of variables, as far as the parser takes it for one."""
        if end - start != 1 or self.tokens[start][0] == "q":
            return False
        try:
            self.node(start, end)
        except NotMathError:
            return False
        return True

    def scaled(self, start: int, end: int) -> tuple[int, int | Fraction]:
        """`3 million` is 3 and 10^6, `2 thirds` 2 and 1/3."""
        if end - start > 1 and self.tokens[end - 1][1].lower() in SCALES:
            return end - 1, SCALES[self.tokens[end - 1][1].lower()]
        return end, 1

    def finished(self, node: Node, start: int, stop: int, unit: str | None, percent: bool, degree: bool) -> Answer:
        signed = any(value in ("±", "∓") for _, value in self.tokens[start:stop])
        nodes = expand_signs(node) if signed else [node]
        value = Value(nodes[0], unit, percent, degree, reduced=is_reduced(node))
        plain = [value_ for _, value_ in self.tokens[start:stop]]
        text = "".join(plain).removeprefix("-").removeprefix("+")
        if percent or degree:
            text = text.rstrip("%°^{}")
        if text.isdigit():
            value.integer = True
        elif match := re.fullmatch(r"(\d*)\.(\d+)(?:\*10\^\{?-?\d+\}?|[eE][+-]?\d+)?", text):
            value.places = len(match[2])
            value.digits = len((match[1] + match[2]).lstrip("0"))
        if len(nodes) == 1:
            return value
        return Listing([Value(n, unit, percent, degree) for n in nodes])


def is_reduced(node: Node) -> bool:
    """False for a written fraction of integers that has a common factor."""
    while node[0] == "neg":
        node = node[1]
    if node[0] == "/" and all(n[0] == "n" and isinstance(n[1], int) for n in node[1:]):
        return math.gcd(node[1][1], node[2][1]) == 1 and node[2][1] != 1
    return True


def _summed(items: list[Answer], words: list[str]) -> Value | None:
    """2 hours and 30 minutes."""
    parts = [(i.node[1], i.unit) for i in items if isinstance(i, Value) and i.node[0] == "n" and i.unit and not i.name]
    if set(words) != {"and"} or len(parts) < len(items) or (sum_ := total(parts)) is None:
        return None
    return Value(("n", sum_), parts[0][1])


def combine(items: list[Answer], words: list[str]) -> Answer:
    """Several items as one answer: inequalities become a region, the rest a listing without brackets."""
    if len(items) == 1:
        return items[0]
    merged = regions.combine_inequalities(items, words) or _summed(items, words)
    if merged is not None:
        return merged
    flat: list[Answer] = []
    for item in items:
        if isinstance(item, Listing) and item.bare:
            flat.extend(item.items)
        else:
            flat.append(item)
    names = [i.name for i in flat]
    if names[0] is not None and all(n is None for n in names[1:]):  # n = 2, 3, 4
        flat = [flat[0], *(regions.copy(item) for item in flat[1:])]  # `regions.WHOLE` is shared
        for item in flat[1:]:
            item.name = names[0]
    return Listing(flat)

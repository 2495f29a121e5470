"""What a text is made of: prose, code and formulas, told apart in one linear pass.

Language shares, reflection rates and repetition are about prose; a Chinese thought may quote a Python function and
write `\\frac{1}{2}` without being any less Chinese. The pass never backtracks: for every closing mark the next
position is kept, so fifty thousand openers without a closer cost what fifty thousand other characters cost.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["prose", "code", "formula"]
MAX_FORMULA = 4000  # characters; a "$" whose partner is further away is money, not mathematics
MAX_BOX = 400

_OPENER = re.compile(r"```|~~~|`|\$\$|\$|\\\(|\\\[|\\boxed\{|\\begin\{")
_CLOSER = {"```": "```", "~~~": "~~~", "`": "`", "$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_CODE = ("```", "~~~", "`")
_NOT_PROSE = re.compile(
    r"https?://\S+|www\.\S+"  # addresses
    r"|[^\s@<>]{1,64}@[A-Za-z0-9.-]{1,64}\.[A-Za-z]{2,}"
    r"|</?[A-Za-z][^<>\n]{0,200}>"  # tags
    r"|\\[A-Za-z]+"  # commands of LaTeX
    r"|(?<![A-Za-z0-9_])[A-Za-z0-9]{0,40}_[A-Za-z0-9_]+"  # snake_case
    r"|\b[A-Za-z_][A-Za-z0-9_]{0,40}(?:\.[A-Za-z_][A-Za-z0-9_]{0,40}){0,4}\("  # calls
)


class Part(NamedTuple):
    """A stretch of one kind, marks included; the parts of a text joined are the text."""

    kind: Kind
    text: str


class _Finder:
    """`find` for rising positions: what was found, or that there is nothing left to find, is kept."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.known: dict[str, int] = {}

    def __call__(self, mark: str, start: int) -> int:
        known = self.known.get(mark, -2)
        if known == -1 or known >= start:
            return known
        self.known[mark] = self.text.find(mark, start)
        return self.known[mark]


def split_parts(text: str) -> list[Part]:
    """The parts of `text` in order. An unclosed fence runs to the end; any other unclosed mark is prose."""
    parts: list[Part] = []
    find, done, position = _Finder(text), 0, 0
    while opener := _OPENER.search(text, position):
        end = _end(text, opener, find)
        if end < 0:
            position = opener.end()
            continue
        if opener.start() > done:
            parts.append(Part("prose", text[done : opener.start()]))
        parts.append(Part("code" if opener[0] in _CODE else "formula", text[opener.start() : end]))
        done = position = end
    if done < len(text):
        parts.append(Part("prose", text[done:]))
    return parts


def _end(text: str, opener: re.Match[str], find: _Finder) -> int:
    """Where the part that `opener` starts ends; -1 where it starts none."""
    mark, start = opener[0], opener.end()
    if mark in ("```", "~~~"):
        end = find(mark, start)
        return len(text) if end < 0 else end + len(mark)
    if mark == "\\boxed{":
        return _brace(text, start)
    if mark == "\\begin{":
        close = text.find("}", start, start + 32)
        if close < 0:
            return -1
        ending = f"\\end{{{text[start:close]}}}"
        end = find(ending, close)
        return -1 if end < 0 or end - start > MAX_FORMULA else end + len(ending)
    end = find(_CLOSER[mark], start)
    if end < 0 or end - start > MAX_FORMULA:
        return -1
    if mark == "`":
        return -1 if end == start or "\n" in text[start:end] else end + 1
    if mark == "$":
        # The rule of pandoc: "$2 an egg, $3 a dozen" holds no formula.
        inside, after = text[start:end], text[end + 1 : end + 2]
        if not inside or inside[0].isspace() or inside[-1].isspace() or after.isdigit() or "\n\n" in inside:
            return -1
    return end + len(_CLOSER[mark])


def _brace(text: str, start: int) -> int:
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start, min(len(text), start + MAX_BOX)):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return -1


def prose(text: str) -> str:
    """`text` without code, formulas, addresses, tags and names of programs; each leaves a space behind."""
    kept = " ".join(part.text for part in split_parts(text) if part.kind == "prose")
    return _NOT_PROSE.sub(" ", kept)

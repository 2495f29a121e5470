"""Cut a response into marked pieces: where it thinks, where it answers, and what it says of each attempt.

Presentation only: nothing here judges a response (the verifiers do), and the pieces always join to the text
unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from r1kit.verifiers import ExpressionError, parse_expression

TAGS = {"<think>": "think", "</think>": "", "<answer>": "answer", "</answer>": ""}
_TAG = re.compile("|".join(map(re.escape, TAGS)))
# A side is bounded, and a chain starts where no expression precedes it: hostile text costs but its length.
_SIDE = r"[-+*/() 0-9]{0,60}[0-9)]"
# `9-5=4?13 no`: a chain of equal sides, then the target written again and a verdict, where there are any.
_CHAIN = re.compile(
    rf"(?<![-+*/().\w])(?P<work>(?=[-(0-9]){_SIDE}(?: ?= ?{_SIDE})+)(?!\.[0-9]|\w)"
    r"(?P<goal> ?\? ?(?P<target>[0-9]+))?(?:(?P<verdict> (?:yes|no))\b)?"
    r"|(?P<word>\b(?:wait|check|however|let me verify|double-check)\b)",
    re.IGNORECASE,
)
Piece = tuple[str, str, str]


@dataclass(frozen=True)
class Region:
    """A stretch of one response. `kind`: "think", "answer" or "" (outside both).

    `pieces` are (mark, text, remark). Marks: "tag"; "work"; "slip" (an equation of the chain fails, the
    remark says which); "yes", "no" (true verdicts); "false-yes", "false-no"; "word" (wait, check); "".
    """

    kind: str
    pieces: tuple[Piece, ...]


def mark_response(text: str, *, target: int | None = None, opened: bool = False) -> list[Region]:
    """`text` as regions.

    `target`: the value a verdict is about; None takes the one written beside it. `opened`: the prompt already
    opened the think block.
    """
    regions: list[Region] = []
    kind, start = ("think" if opened else ""), 0
    for tag in _TAG.finditer(text):
        _add(regions, kind, tuple(_pieces(text[start : tag.start()], kind, target)))
        closing = tag[0].startswith("</")
        _add(regions, kind if closing else TAGS[tag[0]], (("tag", tag[0], ""),))
        kind, start = TAGS[tag[0]], tag.end()
    _add(regions, kind, tuple(_pieces(text[start:], kind, target)))
    return regions


def _add(regions: list[Region], kind: str, pieces: tuple[Piece, ...]) -> None:
    if not pieces:
        return
    if regions and regions[-1].kind == kind:
        regions[-1] = Region(kind, regions[-1].pieces + pieces)
    else:
        regions.append(Region(kind, pieces))


def _pieces(text: str, kind: str, target: int | None) -> Iterator[Piece]:
    if kind == "answer":
        if text:
            yield ("", text, "")
        return
    start = 0
    for match in _CHAIN.finditer(text):
        if match.start() > start:
            yield ("", text[start : match.start()], "")
        yield from _marked(match, target)
        start = match.end()
    if start < len(text):
        yield ("", text[start:], "")


def _marked(match: re.Match[str], target: int | None) -> Iterator[Piece]:
    if match["word"]:
        yield ("word", match["word"], "")
        return
    sides = match["work"].split("=")
    values = [_value(side) for side in sides]
    slip = next((i for i in range(1, len(values)) if values[i] != values[0]), None)
    remark = (
        "" if slip is None else f"{sides[slip - 1].strip()} is {_shown(values[slip - 1])}, not {sides[slip].strip()}"
    )
    yield ("work" if slip is None else "slip", match["work"] + (match["goal"] or ""), remark)
    if match["verdict"]:
        said = match["verdict"].strip().lower()
        goal = target if target is not None else int(match["target"]) if match["target"] else None
        hit = values[-1] is not None and values[-1] == goal
        if goal is None or hit == (said == "yes"):
            yield (said, match["verdict"], "")
        else:
            truth = "equals" if hit else "does not equal"
            yield (f"false-{said}", match["verdict"], f"a false verdict: {sides[-1].strip()} {truth} {goal}")


def _value(text: str) -> Fraction | None:
    try:
        return parse_expression(text).value
    except ExpressionError:
        return None


def _shown(value: Fraction | None) -> str:
    return "not an expression" if value is None else str(value)

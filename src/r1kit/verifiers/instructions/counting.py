"""Counting words, sentences, paragraphs and marks as the instructions of IFEval mean them, without downloads."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
_CAPITAL = re.compile(r"\w+(?:[.'’-]\w+)*")
# A stop, what closes after it, then white space or the end; the stops of CJK and of Indic scripts need no space.
_STOP = re.compile(r"(?:[.!?…]+[\"'”’)\]*_]*(?=\s|\Z)|[。！？؟।॥]+[」』”’）]*)")
# Abbreviations that something always follows, and those that may end a sentence.
_LEADING = re.compile(r"(?:mrs?|ms|dr|prof|st|mt|rev|gen|col|capt|lt|sgt|hon|vs|e\.g|i\.e|cf)\.", re.IGNORECASE)
_EITHER = re.compile(
    r"(?:no|fig|etc|al|[js]r|inc|ltd|corp?|ave|blvd|dept|est|approx|[ap]\.m|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov"
    r"|dec)\.",
    re.IGNORECASE,
)
_INITIALS = re.compile(r"(?:[A-Za-z]\.)+")
_LIST_MARK = re.compile(r"(?:\A|\n)[ \t*#>]*(?:[0-9]{1,3}|[A-Za-z])\.\Z")
_HIGHLIGHT = re.compile(r"\*\*([^\n*]+)\*\*|\*([^\n*]+)\*")
_BULLET = re.compile(r"^[ \t]*(?!(?:[*-][ \t]*){3,}$)(?:\*[ \t]+|-(?!-)[ \t]*)\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores."""
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Sentences by their stops: abbreviations, initials and the numbers of lists end none; a line break alone
    ends none either, and what follows the last stop counts as one."""
    count, start = 0, 0
    for stop in _STOP.finditer(text):
        if stop[0][0] == "." and not _ends(text, stop):
            continue
        if _WORD.search(text, start, stop.start()):
            count += 1
        start = stop.end()
    return count + (_WORD.search(text, start) is not None)


def _ends(text: str, stop: re.Match[str]) -> bool:
    """True where this full stop ends a sentence."""
    before = text[max(0, stop.start() - 24) : stop.start() + 1]
    after = text[stop.end() : stop.end() + 8].lstrip(" \n\t\"'“‘(*_[")[:1]
    token = before.split()[-1].lstrip("\"'“‘(*_[")
    if _LIST_MARK.search(before):
        return False
    initial = _INITIALS.fullmatch(token) is not None and token != "I."
    if _LEADING.fullmatch(token) or (initial and len(token) == 2):
        return not after
    if _EITHER.fullmatch(token) or initial or stop[0].startswith(".."):
        return not after or after.isupper()
    return True


def capital_words(text: str) -> int:
    """Words without a small letter ("I" is one)."""
    return sum(word.isupper() for word in _CAPITAL.findall(text))


def count_bullets(text: str) -> int:
    """Lines that start with "* " or "-"; rules such as "---" and "***" are none."""
    return len(_BULLET.findall(text))


def count_highlights(text: str) -> int:
    """Stretches in `*...*` or `**...**` with something inside."""
    return sum(bool((bold or plain).strip()) for bold, plain in _HIGHLIGHT.findall(text))


def count_placeholders(text: str) -> int:
    """Square brackets with something inside."""
    return len(_PLACEHOLDER.findall(text))


def paragraphs(text: str) -> list[str]:
    """What blank lines separate, without empty ones."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]

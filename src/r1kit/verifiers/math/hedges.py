"""Several answers in one response: a list, alternatives ("41 or maybe 42"), or an answer and its correction.

Alternatives are compared as all of their values, so that none of them is right by chance; a correction ("no, wait")
leaves the later answer alone.
"""

from __future__ import annotations

import re

LIST, OR, NEAR = ", ", " or ", r" \approx "
MAX_BETWEEN = 240
_LISTED = re.compile(
    r"[\s,;$&]*(?:\\?text\s*\{)?\s*(?:and|or|和|或|、|，|；|,|;)?\s*\}?[\s,;$&]*(?:\\\(|\\\)|\\quad|\\ )*[\s$]*"
)
_NEAR = re.compile(r"[\s,;$(]*(?:\bor\b)?[\s,]*(?:\\approx|≈|approximately|about|roughly|约|大约|约等于)[\s$(]*")
_FILLER = (
    r"(?:(?:maybe|perhaps|possibly|even|just|it|could|might|may|be|is|as|well|equals?|the|answer|else|also|that|some|"
    r"other|value|either|if|so)\b|[xn]\s*=|也|可能|许|是|为|者|答案|[\s,，:：=$*_(\\\[{}])"
)
_MARK = (
    r"(?:(?:or|alternatively|otherwise|maybe|perhaps|possibly|if\s+not|failing\s+that)\b|"
    r"又?或者?|要么|抑或|还是|也?可能|也许|也有可能|否则)"
)
_CLOSING = r"[\s$.,;:!?*_)\]}。，；？！\\]*(?:(?:and|but|well)\b[\s,]*)?"
_NUMBER = r"[-+]?\d+(?:,\d+)*(?:\.\d+)?(?:\s*/\s*\d+)?%?"
_FORMULA = r"\$[^$\n]{1,200}\$|\\\([^\n]{1,200}?\\\)"
_CLAUSE_END = r"(?=\s*(?:[.,;:!?)\]}。，；、\n]|$|(?:if|when|for|but|though|depending|as|in)\b))"
_STARTS = re.compile(rf"{_CLOSING}{_MARK}", re.IGNORECASE)
_ENDS = re.compile(rf"(?:\bor\b|\\lor\b|\\vee\b|或者?|要么|抑或|还是)(?:{_FILLER}){{0,20}}$", re.IGNORECASE)
_UNSURE = re.compile(
    r"\b(?:could|might|may)\s+(?:(?:also|well|just|even|possibly)\s+)?(?:be|equal)\b|\b(?:maybe|perhaps|possibly|"
    r"alternatively)\b|\banother\s+(?:possib|answer|option|candidate)|或者|也可能|也许|或许|可能是|有可能|要么",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|wrong|incorrect|mistaken?|error|actually|correct(?:ed|ion|ing)?|rather|sorry|oops|recheck(?:ing)?|"
    r"re-check(?:ing)?|instead|scratch|in\s+fact|let\s+me)\b|不对|错|更正|其实|实际|重新|不是",
    re.IGNORECASE,
)
_AFTER = re.compile(
    rf"{_CLOSING}(?:{_MARK}|(?:actually|wait|no|sorry|correction)\b|不对|更正)(?:{_FILLER}){{0,20}}?"
    rf"({_FORMULA}|{_NUMBER}{_CLAUSE_END})",
    re.IGNORECASE,
)
_ALSO = re.compile(
    rf"{_CLOSING}(?:(?:however|though|although)\b[\s,]*)?({_FORMULA}|{_NUMBER})\s+(?:is|could\s+be|may\s+be|would\s+be)\s+"
    r"(?:also|equally)\b",
    re.IGNORECASE,
)
# Said of the answer itself: "$t$, or \\boxed{3}" only gives t its value.
_UNSURE_VERB = r"either|maybe|perhaps|possibly|(?:could|might|may)\s+be|(?:it|answer)(?:'s|\s+is)"
_UNCERTAIN = rf"\b(?:{_UNSURE_VERB})\s+|(?:可能是?|要么|也许是?)\s*"
_BEFORE = re.compile(
    rf"(?:^\s*|{_UNCERTAIN})({_FORMULA}|{_NUMBER})[\s,，]*(?:\bor\b|或者?|要么|还是)(?:{_FILLER}){{0,20}}$",
    re.IGNORECASE,
)


def joint(between: str, *, adjacent: bool = True) -> str | None:
    """How the text between two answers joins them; None where the later one stands alone.

    `adjacent`: nothing but space between them makes a list.
    """
    if len(between) > MAX_BETWEEN:
        return None
    if "\n\n" not in between and len(between) <= 40 and (adjacent or between.strip()):
        if _LISTED.fullmatch(between):
            return OR if re.search(r"\bor\b|或", between) else LIST
        if _NEAR.fullmatch(between):
            return NEAR
    if re.match(r"\W*or\s+rather\b", between):
        return None
    if _STARTS.match(between) or _ENDS.search(between):
        return OR
    return OR if _UNSURE.search(between) and not _TAKEN_BACK.search(between) else None


def alternative_after(text: str) -> str | None:
    """The value that an alternative or a correction right behind an answer names: `41` of ", or maybe 41."."""
    match = _AFTER.match(text[:MAX_BETWEEN]) or _ALSO.match(text[:MAX_BETWEEN])
    return match[1] if match else None


def alternative_before(text: str) -> str | None:
    """The value right before an answer to which it is the alternative: `41` of "41 or "."""
    match = _BEFORE.search(text if len(text) <= MAX_BETWEEN else "..." + text[-MAX_BETWEEN:])
    return match[1] if match and "=" not in match[1] else None

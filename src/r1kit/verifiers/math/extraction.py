"""From a response to the text of its final answer, or None.

Only what follows the thought counts: the text after the last `</think>`; where thinking was opened and never closed
there is no answer. Then the first of these that occurs: an `<answer>` block (one only), the last `\\boxed{}`, `#### n`,
the last `Answer:` line, the last answer phrase in English or Chinese, the last formula, the last number.

Nothing here looks at the gold. A hedge ("41 or 42") is taken whole, so that it is compared whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1kit.verifiers.math.policy import MathPolicy

MAX_RESPONSE = 4_000_000
MAX_BOXES = 64
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BARE_BOX = re.compile(r"-?\d[\d.,/]*|[A-Za-z](?![A-Za-z])")
_JOINED = re.compile(
    r"[\s,;$&]*(?:\\?text\s*\{)?\s*(?:and|or|和|或|、|，|；|,|;)?\s*\}?[\s,;$&]*(?:\\\(|\\\)|\\quad|\\ )*[\s$]*"
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_LINE = re.compile(r"^[\s>*_#-]*(?:final\s+)?answer[\s*_]*[:：][\s*_]*(.+?)[ \t*_]*$", re.IGNORECASE | re.MULTILINE)
_PHRASES = (
    re.compile(
        r"(?:final\s+answer|correct\s+answer|answer|solution|result)\s*(?:is|are|:|=|：)+\s*(?:that\s+)?[:：]?\s*",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:最终答案|正确答案|答案|结果|答)\s*(?:应该|应)?\s*(?:是|为|选|:|：|=)+\s*[:：]?\s*"
        r"|(?:故选|应选|因此选|所以选)\s*[:：]?\s*"
    ),
)
_SENTENCE_END = re.compile(r"(?<!\d)[.。！!？?](?=\s|$|[^\d\s])|\.(?=\s|$)|\n|。|；(?=\D)|，(?=[^\d\s(（\-$\\])")
_HOPE = re.compile(r"[.\s]*I hope it is correct\.?\s*$", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$]+?)(?<!\\)\$", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?<![\w.])\$?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?%?")
_ALTERNATIVES = re.compile(r"(?:\bor\b|或)\s*(?:maybe\s+|perhaps\s+)?$")
_TAIL = 20_000


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer's text and where it was found: tag, boxed, hashes, line, phrase, formula, number, whole."""

    text: str
    where: str


def after_thought(response: str, *, opened: bool = False) -> str | None:
    """What follows the thinking; None where it was never closed."""
    _, closed, tail = response.rpartition("</think>")
    if closed:
        return tail
    return None if opened or "<think>" in response else response


def extract(response: str, policy: MathPolicy, *, opened: bool = False) -> Extracted | None:
    """The final answer of a response."""
    if len(response) > MAX_RESPONSE:
        response = response[-MAX_RESPONSE:]
        opened = opened or "</think>" not in response
    text = after_thought(response, opened=opened)
    if text is None or not text.strip():
        return None
    wanted = policy.answer
    found = None
    if wanted in ("any", "tag") and "<answer>" in text:
        return _tag(text, policy)
    if wanted in ("any", "boxed"):
        found = _boxed(text, policy)
        if found is None and "\\boxed" in text:
            return None  # boxes, none of them complete: cut off, or empty
    if found is None and wanted in ("any", "hashes"):
        found = _last(_HASHES, text, "hashes", policy)
    if found is None and wanted in ("any", "line"):
        found = _last(_LINE, text, "line", policy)
    if found is None and wanted == "any" and not policy.strict:
        found = _phrase(text) or _formula(text) or _number(text)
    return found


def _tag(text: str, policy: MathPolicy) -> Extracted | None:
    """The one `<answer>` block; naming two is no way to be right twice. What it boxes is the answer in it."""
    _, _, block = text.partition("<answer>")
    inner, ended, rest = block.partition("</answer>")
    if not ended or "<answer>" in rest or (policy.strict and rest.strip()):
        return None
    boxed = _boxed(inner, policy, anywhere=True)
    if boxed is not None:
        return Extracted(boxed.text, "tag")
    return Extracted(inner.strip(), "tag") if inner.strip() else None


def _last(pattern: re.Pattern[str], text: str, where: str, policy: MathPolicy) -> Extracted | None:
    matches = list(pattern.finditer(text[-_TAIL:]))
    if not matches:
        return None
    match = matches[-1]
    if policy.strict and text[-_TAIL:][match.end() :].strip():
        return None
    return Extracted(_HOPE.sub("", match[1]).strip(), where)


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the boxes at the end of a text that can count: complete ones, outermost first found."""
    found: list[tuple[int, int, str]] = []
    for match in list(_BOX.finditer(text))[-MAX_BOXES:]:
        if found and match.start() < found[-1][1]:
            continue  # inside the one before
        content, end = _braced(text, match.end())
        if content is None:
            bare = _BARE_BOX.match(text, match.end())
            if bare is None:
                continue
            content, end = bare[0].rstrip(".,"), bare.end()
        found.append((match.start(), end, content))
    return found


def _braced(text: str, start: int) -> tuple[str | None, int]:
    """The content of the braces that open at `start`, and the index after them; None where they never close."""
    if start >= len(text) or text[start] != "{":
        return None, start
    depth, index = 0, start
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : index], index + 1
        index += 1
        if index - start > MAX_BRACED:
            break
    return None, start


MAX_BRACED = 200_000


def _boxed(text: str, policy: MathPolicy, anywhere: bool = False) -> Extracted | None:
    """The last box, with those right before it that a comma, "and" or "or" joins."""
    found = boxes(text)
    if not found or (policy.strict and not anywhere and text[found[-1][1] :].strip(" \n\t.$")):
        return None
    if policy.boxes == "single" and len({c.strip() for _, _, c in found}) > 1:
        return Extracted(", ".join(c for _, _, c in found), "boxed")
    parts = [found[-1][2]]
    joint = ", "
    if policy.boxes == "adjacent":
        for (_, end, content), (start, _, _) in zip(found[-2::-1], found[:0:-1], strict=False):
            between = text[end:start]
            if not _JOINED.fullmatch(between) or "\n\n" in between or len(between) > 40:
                break
            joint = " or " if re.search(r"\bor\b|或", between) else joint
            parts.insert(0, content)
    parts = [p.strip() for p in parts]
    inner = boxes(parts[-1]) if "boxed" in parts[-1] else []
    if inner:
        parts[-1] = inner[-1][2].strip()
    if len(set(parts)) == 1:
        parts = parts[:1]
    return Extracted(joint.join(parts), "boxed") if any(parts) else None


def _phrase(text: str) -> Extracted | None:
    """What follows the last "the answer is" or 答案是, to the end of its sentence."""
    tail = _HOPE.sub("", text[-_TAIL:])
    ends = [m.end() for pattern in _PHRASES for m in pattern.finditer(tail)]
    for end in sorted(ends, reverse=True):
        rest = tail[end:]
        formula = _FORMULA.match(rest)
        stop = _SENTENCE_END.search(rest, formula.end() if formula else 0)
        span = rest[: stop.start()] if stop else rest
        span = span.strip(" *_`\t").removeprefix("}").strip()  # \\text{The answer is } 4
        if span:
            return Extracted(span, "phrase")
    return None


def _formula(text: str) -> Extracted | None:
    """The last formula, with those that "or", "and" or a comma joins to it."""
    tail = text[-_TAIL:]
    found = [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _FORMULA.finditer(tail)]
    if not found or re.search(r"\d", tail[found[-1][1] :]):
        return None
    parts = [found[-1][2]]
    joint = ", "
    for (_, end, content), (start, _, _) in zip(found[-2::-1], found[:0:-1], strict=False):
        between = tail[end:start]
        if len(between) > 20 or not _JOINED.fullmatch(between) or not between.strip():
            break
        joint = " or " if re.search(r"\bor\b|或", between) else joint
        parts.insert(0, content)
    return Extracted(joint.join(p.strip() for p in parts), "formula")


def _number(text: str) -> Extracted | None:
    """The last number, with the alternatives that "or" joins to it."""
    tail = text[-_TAIL:]
    matches = list(_NUMBER.finditer(tail))
    if not matches:
        return None
    parts = [matches[-1][0]]
    for before, after in zip(matches[-2::-1], matches[:0:-1], strict=False):
        between = tail[before.end() : after.start()]
        if len(between) > 20 or not _ALTERNATIVES.search(between.rstrip()):
            break
        parts.insert(0, before[0])
    return Extracted(" or ".join(p.rstrip(",").strip() for p in parts), "number")

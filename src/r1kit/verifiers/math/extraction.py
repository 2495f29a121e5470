"""From a response to the text of its final answer, or None.

Only what follows the thought counts: the text after the last `</think>`; where thinking was opened and never closed
there is no answer. Then the first of these that occurs: an `<answer>` block (one only), the last `\\boxed{}`, `#### n`,
the last `Answer:` line, the last answer phrase in English or Chinese, the last formula, the last number.

Nothing here looks at the gold. A hedge ("41 or 42", two boxes and "or maybe" between them) is taken whole, so that it
is compared whole; a correction is not: the last box counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1kit.verifiers.math.hedges import LIST, OR, alternative_after, alternative_before, joint
from r1kit.verifiers.math.policy import MathPolicy

MAX_RESPONSE = 4_000_000
MAX_BOXES = 64
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BARE_BOX = re.compile(r"-?\d[\d.,/]*|[A-Za-z](?![A-Za-z])")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_LINE = re.compile(r"^[ \t>*_#-]*(?:final\s+)?answer[\s*_]*[:：][\s*_]*(.+?)[ \t*_]*$", re.IGNORECASE | re.MULTILINE)
_HEADING = re.compile(r"^[ \t>*_#-]*(?:final\s+answer|最终答案)[ \t*_]*$", re.IGNORECASE | re.MULTILINE)
_PHRASES = (
    re.compile(
        r"(?<!wrong )(?<!incorrect )(?:answers?|solution|result)\s*(?:is|are|:|=|：)+\s*(?:that\s+)?[:：]?\s*",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:答案|结果|答)\**\s*(?:应该|应|大约|约|可能|就)?\s*(?:是|为|等于|选|:|：|=)+\s*[:：]?\s*|答案不是[^，。]{1,40}，而是"
        r"|取值范围\s*(?:是|为|:|：)\s*|(?:故选|应选|因此选|所以选)\s*[:：]?\s*|(?:^|[，。\s])选\s*(?=[A-H](?![A-Za-z]))"
    ),
)
_SUBJECT = re.compile(
    r"(?:(?!不|没|未|至[少多]|超过|[大小]于|可能)[一-鿿，]){1,20}?(?:有|需要?|要|共|得|等于|剩下?)\s*(?=[-\d$\\])"
)
_SENTENCE_END = re.compile(r"(?<!\d)[.!?](?=\s|$|[^\d\s])|\.(?=\s|$)|[\n。！？]|；(?=\D)|，(?=[^\d\s(（\-$\\])")
# Where the answer of a sentence ends and its reason, or what it is not, begins.
_ASIDE = re.compile(
    r",?\s+(?:i\.e\.|that\s+is|namely|since|because|which|when|achieved|attained|or\s+so|for\s+(?:all|any|every))(?=\W|$)"
    r"|,\s*where(?=\W)|\s*[,(]\s*(?:not|rather\s+than)\s|[（(，]?因为",
    re.IGNORECASE,
)
# What makes the number beside it a bound, or takes it back: it stays with the number, so that nobody reads a value.
_BOUND = re.compile(
    r"(?:[<>≤≥≠]=?|!=|\\(?:leq?|geq?|lt|gt|neq?)|\b(?:not|no|at\s+(?:least|most)|(?:more|less|fewer|greater)\s+than|above|"
    r"below|under|over|(?:wrong|incorrect)\s+[a-z]+\s+(?:is|was))|不是|不等于|至少|至多|超过|大于|小于|多于|少于)[\s$]*$",
    re.IGNORECASE,
)
_UNBOUND = re.compile(
    r"[\s$]*(?:or\s+(?:more|less|fewer|above|below)\b|(?:is|was)\s+(?:wrong|incorrect|not)\b|以上|以下|不对)", re.I
)
_HOPE = re.compile(r"(?<![.\s])[.\s]*I hope it is correct\.?\s*$", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<!\\)\$([^$]{1,2000}?)(?<!\\)\$", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?(?<![A-Za-z0-9_.])\$?\d+(?:,\d+)*(?:\.\d+)?(?:\s*/\s*\d+)?%?")
_ANSWER = re.compile(rf"{_FORMULA.pattern}|{_NUMBER.pattern}")
_TAIL = 20_000


Mention = tuple[int, int, str]  # start, end, content


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
        found = _tag(text, policy)
        return found and _unphrased(found, policy)
    if wanted in ("any", "boxed"):
        found = _boxed(text, policy)
        if found is None and "\\boxed" in text:
            return None  # boxes, none of them complete: cut off, or empty
    if found is None and wanted in ("any", "hashes"):
        found = _last(_HASHES, text, "hashes", policy)
    if found is None and wanted in ("any", "line"):
        found = _last(_LINE, text, "line", policy)
    if found is not None:
        return _unphrased(found, policy)
    if wanted == "any" and not policy.strict:
        text = text[-_TAIL:]
        for heading in list(_HEADING.finditer(text))[-1:]:
            text = text[heading.end() :] if text[heading.end() :].strip() else text
        found = _phrase(text, policy) or _formula(text, policy) or _number(text)
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
    tail = text[-_TAIL:]
    matches = list(pattern.finditer(tail))
    if not matches:
        return None
    match = matches[-1]
    if policy.strict and tail[match.end() :].strip():
        return None
    return Extracted(_hedged(_HOPE.sub("", match[1]).strip(), tail[match.end() :], policy), where)


def _hedged(answer: str, after: str, policy: MathPolicy, before: str = "") -> str:
    """The answer, and the alternatives that the text behind it and right before it names."""
    if policy.hedges != "wrong" or not answer:
        return answer
    return OR.join(filter(None, (alternative_before(before), answer, alternative_after(after))))


def _joined(mentions: list[Mention], text: str, *, adjacent: bool = False) -> tuple[list[str], str]:
    """The contents of the last mention and of those that the text between joins to it, and what to put between."""
    parts, found = [mentions[-1][2].strip()], LIST
    for (_, end, content), (start, _, _) in zip(mentions[-2::-1], mentions[:0:-1], strict=False):
        how = joint(text[end:start], adjacent=adjacent)
        if how is None:
            break
        found = how if how != LIST else found
        parts.insert(0, content.strip())
    return parts, found


def boxes(text: str) -> list[Mention]:
    """(start, end, content) of the boxes at the end of a text that can count: complete ones, outermost first found."""
    found: list[Mention] = []
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
    parts, how = _joined(found if policy.boxes == "adjacent" else found[-1:], text, adjacent=True)
    inner = boxes(parts[-1]) if "boxed" in parts[-1] else []
    if inner:
        parts[-1] = inner[-1][2].strip()
    if len(set(parts)) == 1:
        parts = parts[:1]
    answer = how.join(parts)
    answer = _hedged(answer, text[found[-1][1] :], policy, text[: found[-len(parts)][0]])
    return Extracted(answer, "boxed") if any(parts) else None


def _phrase(text: str, policy: MathPolicy) -> Extracted | None:
    """What follows the last "the answer is" or 答案是, to the end of its sentence."""
    tail = _HOPE.sub("", text[-_TAIL:])
    found = sorted((m.end(), m.start()) for pattern in _PHRASES for m in pattern.finditer(tail))
    for index in range(len(found) - 1, -1, -1):
        end, start = found[index]
        rest = _ASIDE.split(tail[end:], maxsplit=1)[0]
        formula = _FORMULA.match(rest)
        stop = _SENTENCE_END.search(rest, formula.end() if formula else 0)
        span = rest[: stop.start()] if stop else rest
        span = span.strip(" *_`\t").removeprefix("}").strip()  # \\text{The answer is } 4
        if not span:
            continue
        span = _hedged(without_subject(span), rest[stop.start() :] if stop else "", policy)
        before = _ANSWER.match(tail, found[index - 1][0], start) if index and policy.hedges == "wrong" else None
        if before and joint(tail[before.end() : start], adjacent=False) == OR:
            span = f"{before[0]}{OR}{span}"
        return Extracted(span, "phrase")
    return None


def without_subject(text: str) -> str:
    """小明一共有42个苹果 is 42个苹果."""
    match = _SUBJECT.match(text)
    return text[match.end() :] if match else text


def _unphrased(found: Extracted, policy: MathPolicy) -> Extracted:
    """ "The answer is 42" within a box, a tag or a line: 42."""
    if not any(pattern.search(found.text) for pattern in _PHRASES):
        return found
    inner = _phrase(found.text, policy)
    return found if inner is None else Extracted(inner.text, found.where)


def _formula(text: str, policy: MathPolicy) -> Extracted | None:
    """The last formula, with those that "or", "and" or a comma joins to it."""
    tail = text[-_TAIL:]
    found = [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _FORMULA.finditer(tail)]
    if not found:
        return None
    parts, how = _joined(found, tail)
    answer, after = how.join(parts), tail[found[-1][1] :]
    hedged = _hedged(answer, after, policy, tail[: found[-len(parts)][0]])
    return Extracted(hedged, "formula") if hedged != answer or not re.search(r"\d", after) else None


def _number(text: str) -> Extracted | None:
    """The last number, with those that "or", "and" or a comma joins to it."""
    tail = text[-_TAIL:]
    found = [(m.start(), m.end(), m[0]) for m in _NUMBER.finditer(tail)]
    if not found:
        return None
    parts, how = _joined(found[-MAX_BOXES:], tail)
    before, after = _BOUND.search(tail[: found[-len(parts)][0]][-30:]), _UNBOUND.match(tail[found[-1][1] :])
    return Extracted(f"{before[0] if before else ''}{how.join(parts)}{after[0] if after else ''}", "number")

"""Answers that are compared as text: equal under a policy, or matching a pattern of the data.

A policy says what does not matter: case, white space, punctuation, articles, the form of Unicode. Everything else
does. Patterns are run in a worker process (`regex_worker`), so that neither a careless pattern nor a text written
against it can hold up the run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from r1kit.records import Verdict
from r1kit.verifiers.regex_worker import match_in_worker

MAX_CHARS = 20_000

Space = Literal["keep", "collapse", "remove"]
Punctuation = Literal["keep", "ends", "remove"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ExactPolicy:
    """What may differ between an answer and its gold.

    `case`: capitals count. `space`: kept, collapsed to single blanks and stripped, or removed. `punctuation`: kept,
    stripped from both ends, or removed (signs of numbers and units such as "-", "+", "%", "$" are symbols and stay, a
    point or comma between digits too). `articles`: a leading or inner "a", "an", "the" counts. `compatible`: full-width
    and other compatibility forms are the plain ones (Unicode NFKC, else NFC).
    """

    case: bool = False
    space: Space = "collapse"
    punctuation: Punctuation = "ends"
    articles: bool = True
    compatible: bool = True

    def normalise(self, text: str) -> str:
        text = unicodedata.normalize("NFKC" if self.compatible else "NFC", text)
        if not self.case:
            text = text.casefold()
        if not self.articles:
            text = _ARTICLES.sub("", text)
        if self.punctuation == "remove":
            text = "".join(" " if _is_punctuation(text, i) else c for i, c in enumerate(text))
        elif self.punctuation == "ends":
            text = _strip_ends(text)
        if self.space == "collapse":
            text = " ".join(text.split())
        elif self.space == "remove":
            text = "".join(text.split())
        return text


VERBATIM = ExactPolicy(case=True, space="keep", punctuation="keep", compatible=False)


def _is_punctuation(text: str, i: int) -> bool:
    if not unicodedata.category(text[i]).startswith("P") or text[i] in "-%":
        return False
    number = text[i] in ".," and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()
    return not number


def _strip_ends(text: str) -> str:
    start, end = 0, len(text)
    while start < end and (text[start].isspace() or (_is_punctuation(text, start) and text[start] not in ".([{")):
        start += 1
    while end > start and (text[end - 1].isspace() or (_is_punctuation(text, end - 1) and text[end - 1] not in ")]}")):
        end -= 1
    return text[start:end]


def judge_exact(answer: str, gold: str | Sequence[str], policy: ExactPolicy | None = None) -> Verdict:
    """Score 1 where `answer` equals `gold` (or one of several golds) under `policy`, else 0."""
    policy = policy or ExactPolicy()
    golds = {policy.normalise(g) for g in ([gold] if isinstance(gold, str) else gold)}
    if not golds or "" in golds:
        return Verdict("skip", None, "gold_invalid", normal_form=repr(gold)[:200], voter="exact")
    if len(answer) > MAX_CHARS:
        return Verdict.scored(0, "over_limit", extracted=answer[:200], voter="exact")
    form = policy.normalise(answer)
    reason = "no_answer" if not form else "correct" if form in golds else "wrong"
    return Verdict.scored(float(reason == "correct"), reason, extracted=answer, normal_form=form, voter="exact")


def judge_regex(
    answer: str, pattern: str, *, policy: ExactPolicy = VERBATIM, anywhere: bool = False, cpu_seconds: float = 0.5
) -> Verdict:
    """Score 1 where `pattern` (Python syntax, of the data) matches the whole of `answer`, or, asked so, a part of it.

    `policy` normalises the answer, not the pattern; without `case` the pattern ignores case. The answer is stripped.
    A pattern that does not compile within the limits is a skip; an answer on which it exceeds them scores 0: the
    candidate wrote it, and an error would be a way to have a wrong answer dropped.
    """
    if len(answer) > MAX_CHARS:
        return Verdict.scored(0, "over_limit", extracted=answer[:200], voter="regex")
    form = policy.normalise(answer).strip()
    result = match_in_worker(pattern, form, ignore_case=not policy.case, anywhere=anywhere, cpu_seconds=cpu_seconds)
    if result.status == "lost":
        return Verdict("error", None, "worker_lost", voter="regex", seconds=result.seconds)
    if result.status == "bad_pattern":
        detail = f"{pattern[:100]!r}: {result.detail}"
        return Verdict("skip", None, "gold_invalid", normal_form=detail, voter="regex", seconds=result.seconds)
    reason = "no_answer" if not form else {"match": "correct", "none": "wrong"}.get(result.status, "over_limit")
    score = float(reason == "correct")
    return Verdict.scored(score, reason, extracted=answer, normal_form=form, voter="regex", seconds=result.seconds)

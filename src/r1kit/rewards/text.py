"""Parts made of the text of a response. `opened=True` says that the prompt itself opened `<think>`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from r1kit.rewards.outcome import score_of
from r1kit.verifiers.language import judge_language
from r1kit.verifiers.repetition import ngram_repetition
from r1kit.verifiers.tags import find_answer, find_thought, judge_format, judge_tag_count

_STEP = re.compile(r"Step \d+:|^\d+\.|^[-*]|First,|Second,|Next,|Finally,", re.MULTILINE)


def tag_count(response: str, *, opened: bool = False, newlines: bool = False) -> float:
    """A quarter for each of the four tags that stands exactly once (Open-R1, tag_count). {0, 0.25, ... 1}.

    `newlines` asks for the line breaks around the tags as Open-R1 does.
    """
    return score_of(judge_tag_count(response, opened=opened, lines=newlines))


def reasoning_steps(response: str, *, steps: int = 3) -> float:
    """min(1, markers / steps) over "Step n:", "n.", "-", "*" at a line's start and "First," ... (Open-R1). In [0, 1].

    Open-R1's pattern finds "n." only at the start of the whole text; every line counts here.
    """
    return min(1.0, len(_STEP.findall(response)) / steps)


def language(response: str, target: str, *, opened: bool = False) -> float:
    """words in `target` / words, over the thought (DeepSeek-R1, arXiv 2501.12948, section 2.3.2). In [0, 1].

    A response that opens no thinking counts whole; one without a word earns 0.
    """
    thought = find_thought(response, opened=opened)
    return score_of(judge_language(response if thought is None else thought, target))


def repetition(units: Sequence[Hashable], *, ngram: int = 3) -> float:
    """distinct / all - 1 over the n-grams of `units` (arXiv 2502.03373, appendix C.2), in (-1, 0].

    0 where there are fewer units than `ngram`. Units are words (Open-R1) or tokens.
    """
    return 0.0 - ngram_repetition(units, ngram)


def code_format(response: str, *, opened: bool = False, language: str = "python") -> float:
    """1 where the response has the R1 shape and its answer holds a fenced block of `language` (Open-R1). {0, 1}."""
    if not judge_format(response, opened=opened).correct:
        return 0.0
    answer = find_answer(response, opened=opened) or ""
    return float(re.search(rf"```{re.escape(language)}[ \t]*\n.*?```", answer, re.DOTALL) is not None)

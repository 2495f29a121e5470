"""The R1 response shape: `<think> reasoning </think> <answer> answer </answer>`.

Two readings of one response: `judge_format` asks for the whole shape and nothing beside it; `find_answer`
finds the answer to be judged. A prompt may have opened the thinking already (`... <think>` prefilled): then
the response begins inside it, and `opened=True` says so.
"""

from __future__ import annotations

import re

from r1kit.records import Verdict

_SHAPE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def judge_format(response: str, *, opened: bool = False) -> Verdict:
    """Score 1 where the response is one thinking block and one answer block, both with content, and nothing
    else.

    Each tag stands exactly once (counting a prefilled `<think>`), only white space lies around and between
    the blocks. An empty thinking block is refused: it is the cheapest way to collect a format reward
    without reasoning.
    """
    text = f"<think>{response}" if opened else response
    match = _SHAPE.fullmatch(text) if all(text.count(tag) == 1 for tag in _TAGS) else None
    good = match is not None and bool(match[1].strip()) and bool(match[2].strip())
    if good:
        return Verdict.scored(1, "correct", voter="tags")
    return Verdict.scored(0, "no_answer" if "</answer>" not in text else "wrong", voter="tags")


def find_answer(response: str, *, opened: bool = False, anywhere: bool = False) -> str | None:
    """The text inside the one `<answer>` block that follows the thinking; None where there is no such block.

    The block is looked for after the last `</think>`. Where thinking was opened and never closed, an answer
    inside it is still thinking: None, unless `anywhere` (TinyZero's published rule, which does not look at
    `</think>`). More than one block is no answer: naming two must not be a way to be right twice.
    """
    text = f"<think>{response}" if opened else response
    _, closed, tail = text.rpartition("</think>")  # without `</think>`, tail is the whole text
    if not closed and "<think>" in text and not anywhere:
        return None
    _, _, block = tail.partition("<answer>")
    answer, ended, rest = block.partition("</answer>")
    return answer.strip() if ended and "<answer>" not in rest else None

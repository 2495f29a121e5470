"""The R1 response shape: `<think> reasoning </think> <answer> answer </answer>`.

Readings of one response: `judge_format` asks for the whole shape and nothing beside it, `judge_tag_count` counts
tags, `find_answer` finds the answer to be judged and `find_thought` the thought. A prompt may have opened the
thinking already (`... <think>` prefilled): then the response begins inside it, and `opened=True` says so.
"""

from __future__ import annotations

import re

from r1kit.records import Verdict

_SHAPE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
# Open-R1's form: every tag on a line of its own.
_LINES = re.compile(r"\s*<think>\n(.*)\n</think>\n<answer>\n(.*)\n</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def _whole(response: str, opened: bool, lines: bool) -> str:
    """The response with the tag that the prompt opened; its line break may be the prompt's or the response's."""
    if not opened:
        return response
    return f"<think>\n{response.removeprefix(chr(10))}" if lines else f"<think>{response}"


def judge_format(response: str, *, opened: bool = False, lines: bool = False) -> Verdict:
    """Score 1 where the response is one thinking block and one answer block, both with content, and nothing
    else.

    Each tag stands exactly once (counting a prefilled `<think>`), only white space lies around and between
    the blocks. An empty thinking block is refused: it is the cheapest way to collect a format reward
    without reasoning. With `lines`, every tag has its line (Open-R1's format reward; its own pattern lets text
    after the answer pass, this one does not).
    """
    text = _whole(response, opened, lines)
    shape = _LINES if lines else _SHAPE
    match = shape.fullmatch(text) if all(text.count(tag) == 1 for tag in _TAGS) else None
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


def judge_tag_count(response: str, *, opened: bool = False, lines: bool = True) -> Verdict:
    """Score 0.25 for each of the four tags that stands exactly once: the soft form of the format (Open-R1).

    With `lines` (Open-R1's count) a tag counts with the line breaks it is written with there: `<think>\\n`,
    `\\n</think>\\n`, `\\n<answer>\\n`, `\\n</answer>`. It says nothing of order or of what lies between.
    """
    text = _whole(response, opened, lines)
    tags = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>") if lines else _TAGS
    found = sum(text.count(tag) == 1 for tag in tags)
    return Verdict.scored(found / 4, "correct" if found == 4 else "wrong" if found else "no_answer", voter="tag_count")


def find_thought(response: str, *, opened: bool = False) -> str | None:
    """The text of the thinking, closed or not; None where the response opens none.

    From the first `<think>` (or the start, where the prompt opened it) to the last `</think>`, so an answer written
    inside counts as thinking; without `</think>` to the first `<answer>` or the end.
    """
    _, start, thought = ("", "<think>", response) if opened else response.partition("<think>")
    if not start:
        return None
    inside, closed, _ = thought.rpartition("</think>")
    return (inside if closed else thought.partition("<answer>")[0]).strip()

"""What a row of a published code set asks, in words: with the signature or the tests that an answer has to meet.

A bare description is not enough: MBPP's texts do not name the function, HumanEval's are the head of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def code_question(form: str, row: Mapping[str, Any], text: str) -> str:
    """The question of a row of `form`; `text` is what its problem columns say."""
    if form == "humaneval":
        return f"Complete this Python function. Answer with the whole function.\n{_fenced(row['prompt'])}"
    if form == "mbpp":
        tests = "\n".join(map(str, row["test_list"]))
        return f"{text}\nYour code has to pass these tests:\n{_fenced(tests)}"
    if form == "leetcode":
        return str(row["query"]).strip() if row.get("query") else text
    starter = str(row.get("starter_code") or "")
    return f"{text}\n\nBegin with this code:\n{_fenced(starter)}" if starter.strip() else text


def _fenced(code: str) -> str:
    lines = code.strip("\r\n").rstrip()
    return f"```python\n{lines}\n```"

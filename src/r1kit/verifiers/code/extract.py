"""The code a response answers with: the last fenced block behind the thought."""

from __future__ import annotations

import re

from r1kit.verifiers.code.languages import LANGUAGES, language_named

_OPENING = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")
_BARE = {
    "python": re.compile(r"^(?:def |class |import |from \w|print\(|[A-Za-z_]\w* *=)", re.MULTILINE),
    "cpp": re.compile(r"^[ \t]*(?:#include\b|int main\b|using namespace\b)", re.MULTILINE),
    "c": re.compile(r"^[ \t]*(?:#include\b|int main\b)", re.MULTILINE),
}


def extract_code(response: str, language: str = "python", *, opened: bool = False) -> str | None:
    """The last block fenced as `language` behind the last `</think>`; else the last block that names no other
    language of ours; else, where nothing is fenced, a text that looks like code as a whole. None where there is none.

    A thought that was opened and never closed holds no answer; a block that is never closed (a response cut off) is
    no block.
    """
    fences = language_named(language).fences
    text = f"<think>{response}" if opened else response
    _, closed, tail = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return None
    blocks, fenced = _blocks(tail)
    own = [body for info, body in blocks if info in fences]
    others = {fence for row in LANGUAGES.values() for fence in row.fences} - set(fences)
    usable = own or [body for info, body in blocks if info not in others]
    if usable:
        return usable[-1] if usable[-1].strip() else None
    bare = _BARE.get(language)
    if fenced or bare is None or not bare.search(tail):
        return None
    return tail.strip("\n")


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """(info string, body) of every closed fenced block, and whether any fence opens at all."""
    blocks: list[tuple[str, str]] = []
    body: list[str] = []
    fence, info, seen = "", "", False
    for line in text.split("\n"):
        if fence:
            bare = line.strip()
            if len(bare) >= len(fence) and set(bare) == {fence[0]}:
                blocks.append((info, "\n".join(body) + "\n"))
                fence = ""
            else:
                body.append(line)
        elif match := _OPENING.match(line):
            fence, info, body, seen = match[1], match[2].lower(), [], True
    return blocks, seen

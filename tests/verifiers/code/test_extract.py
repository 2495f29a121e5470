"""Why this matters: what is taken for the answer decides everything behind it. A block inside the thought, or in
another language, is no answer; a good answer beside an example of its output must not be lost.

Not exercised: whether the code is right.
"""

from __future__ import annotations

import pytest

from r1kit.verifiers.code import extract_code

PY = "def f(x):\n    return x\n"


def fenced(code: str, info: str = "python", mark: str = "```") -> str:
    return f"{mark}{info}\n{code}{mark}\n"


@pytest.mark.parametrize(
    "response",
    [
        fenced(PY),
        f"<think>so</think>{fenced(PY)}".replace("</think>", "</think>\n"),
        f"<think>\n{fenced('draft = 1')}</think>\nThe answer:\n{fenced(PY)}It runs in O(1).",
        fenced("draft = 1\n") + fenced(PY, "py"),
        fenced(PY) + "It prints:\n" + fenced("42\n", "text"),
        fenced(PY) + "It prints:\n" + fenced("42\n", ""),
        fenced(PY) + "In C++:\n" + fenced("int main() {}\n", "cpp"),
        fenced(PY, "", "~~~~"),
        fenced(PY, "Python3"),
        fenced(PY, 'python title="a.py"'),
        f"   ```python\n{PY}   ```",
    ],
)
def test_the_answer_is_found(response: str) -> None:
    assert extract_code(response) == PY


def test_a_fence_inside_a_longer_fence_is_text() -> None:
    inner = 'x = """\n```\n"""\n'
    assert extract_code(f"````python\n{inner}````") == inner


@pytest.mark.parametrize(
    ("response", "opened"),
    [
        ("", False),
        ("I do not know.", False),
        (f"<think>{fenced(PY)}", False),
        (fenced(PY), True),
        (f"{fenced(PY)}</think>nothing", True),
        ("```python\ndef f(x):\n    return", False),
        (fenced("int main() {}\n", "cpp"), False),
        (fenced(" \n"), False),
    ],
)
def test_no_answer(response: str, opened: bool) -> None:
    assert extract_code(response, opened=opened) is None


def test_bare_code_is_taken_whole() -> None:
    assert extract_code(f"<think>x</think>\n{PY}") == PY.rstrip("\n")
    assert extract_code("#include <cstdio>\nint main() { }", "cpp") == "#include <cstdio>\nint main() { }"


def test_the_language_is_preferred() -> None:
    both = fenced(PY) + fenced("int main() { }\n", "c++")
    assert extract_code(both, "cpp") == "int main() { }\n"
    assert extract_code(both, "python") == PY


def test_long_and_odd_text_ends_soon() -> None:
    for text in ("`" * 400_000, "```\n" * 100_000, "</think>" * 100_000, "def " * 100_000):
        extract_code(text)

"""Why this matters: the format reward is the easiest one to hack, and extraction decides what the accuracy
verifier ever sees. Exercised: the shape, every broken form the corpus writes, prefilled thinking, several
answers.

Not exercised: whether the answer is right (see test_expression).
"""

from __future__ import annotations

import pytest

from r1kit.verifiers import find_answer, judge_format
from r1kit.verifiers.tags import find_thought, judge_tag_count

GOOD = "<think>(3+6)-5=4?13 no\n</think><answer>(4*4)-3</answer>"

BROKEN = [
    "",
    "(4*4)-3",
    "<answer>(4*4)-3</answer>",
    "<think>x</think>",
    "<think>x<answer>1</answer>",
    "<think>x</think>1</answer>",
    "<think>x</think><answer>1",
    "x</think><answer>1</answer>",
    "<think></think><answer>1</answer>",
    "<think> \n</think><answer>1</answer>",
    "<think>x</think><answer> </answer>",
    "<think>x</think><answer>1</answer> and more",
    "so: <think>x</think><answer>1</answer>",
    "<think>x</think> hence <answer>1</answer>",
    "<think>x</think><answer>1</answer><answer>2</answer>",
    "<think>x<think>y</think><answer>1</answer>",
    "<answer>1</answer><think>x</think>",
    "<THINK>x</THINK><ANSWER>1</ANSWER>",
]


@pytest.mark.parametrize("text", [GOOD, f"\n{GOOD}\n", GOOD.replace("</think>", " </think>\n\n")])
def test_well_formed(text: str) -> None:
    assert judge_format(text).correct


@pytest.mark.parametrize("text", BROKEN)
def test_broken(text: str) -> None:
    verdict = judge_format(text)
    assert (verdict.outcome, verdict.score) == ("score", 0.0)


def test_prefilled_thinking() -> None:
    assert judge_format("x</think><answer>1</answer>", opened=True).correct
    assert not judge_format("<think>x</think><answer>1</answer>", opened=True).correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GOOD, "(4*4)-3"),
        ("<think>x</think><answer> 1 </answer>", "1"),
        ("<answer>1</answer>", "1"),
        ("<think>maybe <answer>2</answer></think><answer>1</answer>", "1"),
        ("<think>x</think><answer>1</answer> or so", "1"),
        ("<think>x<answer>1</answer>", None),
        ("<think>x</think>1</answer>", None),
        ("<think>x</think><answer>1", None),
        ("<think>x</think><answer>1</answer><answer>2</answer>", None),
        ("<think>x</think><answer>1</answer></think>", None),
        ("", None),
    ],
)
def test_answers(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


def test_an_answer_inside_open_thinking_counts_only_by_the_published_rule() -> None:
    text = "x <answer>1</answer>"
    assert find_answer(text, opened=True) is None
    assert find_answer(text, opened=True, anywhere=True) == "1"
    assert find_answer("x</think><answer>1</answer>", opened=True) == "1"


def test_long_garbage_is_cheap() -> None:
    # Quadratic matching would take minutes here.
    for text in ("<answer>" * 50_000, "<think>" * 50_000, "<think>x</think>" + " " * 100_000 + "<answer>"):
        assert find_answer(text, anywhere=True) is None
        assert judge_format(text).score == 0


LINES = "<think>\nx\n</think>\n<answer>\n1\n</answer>"


def test_every_tag_on_its_line() -> None:
    assert judge_format(LINES, lines=True).correct
    assert judge_format(LINES).correct
    assert not judge_format(GOOD, lines=True).correct
    # Open-R1's own pattern is anchored at the end of a line, not of the text, and lets this pass.
    assert not judge_format(f"{LINES}\nand more", lines=True).correct
    for start in ("", "\n"):
        response = start + LINES.removeprefix("<think>\n")
        assert judge_format(response, opened=True, lines=True).correct
        assert judge_tag_count(response, opened=True).correct


@pytest.mark.parametrize(
    ("text", "lines", "score"),
    [
        (LINES, True, 1.0),
        (LINES, False, 1.0),
        (GOOD, True, 0.0),  # no tag has its line breaks
        (GOOD, False, 1.0),
        (LINES + LINES, True, 0.0),
        (LINES.replace("\n</answer>", ""), True, 0.75),
        (LINES.replace("<think>\n", ""), True, 0.75),
        ("</answer><answer></think><think>", False, 1.0),  # the soft form says nothing of order
        ("1", True, 0.0),
        ("", True, 0.0),
    ],
)
def test_tag_count(text: str, lines: bool, score: float) -> None:
    assert judge_tag_count(text, lines=lines).score == score


@pytest.mark.parametrize(
    ("text", "opened", "thought"),
    [
        (GOOD, False, "(3+6)-5=4?13 no"),
        ("x</think><answer>1</answer>", True, "x"),
        ("<think>x <answer>2</answer> y</think><answer>1</answer>", False, "x <answer>2</answer> y"),
        ("<think>x <answer>2</answer>", False, "x"),
        ("<think>x", False, "x"),
        ("x", True, "x"),
        ("x", False, None),
        ("<think></think>", False, ""),
    ],
)
def test_thoughts(text: str, opened: bool, thought: str | None) -> None:
    assert find_thought(text, opened=opened) == thought

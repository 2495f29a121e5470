"""Why this matters: the verdict "format" is paid. A shape that a right response cannot have starves a run; one that
junk has too is farmed.

Not exercised: right and wrong, which are the verifiers'.
"""

from __future__ import annotations

from typing import get_args

import pytest

from r1kit.config.tasks.questions import Shape
from r1kit.records import Message, Problem
from r1kit.tasks.shapes import judge_shape, read_s1, shaped, witness_response

SHAPES = [shape for shape in get_args(Shape) if shape != "auto"]


def score(response: str, shape: str, *, opened: bool = False) -> float | None:
    return judge_shape(response, shape, opened=opened).score


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_response_written_in_a_shape_has_it(shape: str, opened: bool) -> None:
    answer = "```python\nprint(1)\n```" if shape == "fence" else "42"
    response = shaped(answer, shape, opened=opened)
    assert score(response, shape, opened=opened) == 1
    assert response.startswith("<think>") == (shape in ("think", "tags", "tag_lines") and not opened)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["", " \n", "<think>", "<think>so</think>", "<think>42 \\boxed{42}"])
def test_nothing_behind_the_thought_is_no_answer(shape: str, text: str) -> None:
    verdict = judge_shape(text, shape, opened=False)
    assert (verdict.score, verdict.reason) == (0, "no_answer")
    assert score("so it is 42", shape, opened=True) == 0


@pytest.mark.parametrize("shape", ["any", "think", "boxed"])
@pytest.mark.parametrize(
    "text",
    [
        "<think></think>\\boxed{1}",
        "<think>a</think><think>b</think>\\boxed{1}",
        "first <think>a</think>\\boxed{1}",
        "a</think>\\boxed{1}",
        "<think>a</think>b</think>\\boxed{1}",
    ],
)
def test_a_broken_or_empty_thought_is_refused(shape: str, text: str) -> None:
    assert score(text, shape) == 0


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("boxed", "it is 42"),
        ("boxed", "\\boxed{}"),
        ("boxed", "\\boxed{42"),
        ("boxed", "<think>\\boxed{42}</think>it is 42"),
        ("answer_line", "Answer: 42\nbut wait"),
        ("answer_line", "Answer:"),
        ("answer_line", "the answer is 42"),
        ("fence", "```python\n```"),
        ("fence", "```python\nprint(1)"),
        ("fence", "print(1)"),
        ("think", "42"),
        ("tags", "<answer>42</answer>"),
    ],
)
def test_what_lacks_the_shape_scores_0(shape: str, text: str) -> None:
    assert score(text, shape) == 0


def test_marks_around_an_answer_line_do_not_matter() -> None:
    assert score("thus\n**Answer:** 42\n", "answer_line") == 1


def test_pathological_text_costs_linear_time() -> None:
    for text in ("```\n" * 50_000, "<think>" * 50_000, "</think>" * 50_000, "\\boxed{" * 20_000, "Answer: " * 50_000):
        for shape in SHAPES:
            assert score(text, shape) in (0, 1)


def problem(witness: str | None, prefill: str = "", **metadata: str) -> Problem:
    known = {} if witness is None else {"witness": witness}
    payload = {"kind": metadata.pop("kind", "exact")}
    return Problem("p", (Message("user", "?"),), "t", payload, prefill=prefill, metadata={**metadata, **known})


def test_witnesses() -> None:
    assert witness_response(problem(None)) is None
    assert witness_response(problem("7", format="any", kind="math")) == "\\boxed{7}"
    assert witness_response(problem("7", format="any")) == "7"
    assert witness_response(problem("7", "<think>\n", format="boxed")) == "7</think>\n\\boxed{7}"
    written = witness_response(problem("7", "<|im_start|>think\n", format="think", template="s1"))
    assert written == "7<|im_start|>answer\n7"
    assert read_s1(written) == "7</think>\n7"

"""Why this matters: these parts look at words, so a policy can write for them. What each counts, and what it does not,
is fixed here case by case.

Not exercised: how words and languages are told apart (tests/verifiers), whether such rewards help learning.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.rewards import text

GOOD = "<think>\nabc\n</think>\n<answer>\n7\n</answer>"
CODE = "<think>\nabc\n</think>\n<answer>\n```python\nprint(1)\n```\n</answer>"


@pytest.mark.parametrize(
    ("response", "plain", "in_lines"),
    [
        (GOOD, 1.0, 1.0),
        ("<think>abc</think><answer>7</answer>", 1.0, 0.0),
        ("<think>\nabc\n</think>\n", 0.5, 0.5),
        (GOOD + "\n</answer>", 0.75, 0.75),
        ("nothing", 0.0, 0.0),
    ],
)
def test_tag_count_by_hand(response: str, plain: float, in_lines: float) -> None:
    assert text.tag_count(response) == plain
    assert text.tag_count(response, newlines=True) == in_lines


def test_a_prompt_that_opened_the_thinking_costs_no_tag() -> None:
    rest = GOOD.removeprefix("<think>\n")
    assert text.tag_count(rest, opened=True) == text.tag_count(rest, opened=True, newlines=True) == 1.0
    assert text.tag_count(GOOD, opened=True) == 0.75


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", "\n"])))
def test_tag_count_is_full_only_where_each_tag_stands_once(pieces: list[str]) -> None:
    value = text.tag_count("".join(pieces))
    tags = [p for p in pieces if p not in ("x", "\n")]
    assert (value == 1.0) == (len(tags) == 4 and len(set(tags)) == 4)


@pytest.mark.parametrize(
    ("response", "markers"),
    [
        ("Step 1: a\nStep 2: b", 2),
        ("1. a\n2. b\n3. c", 3),
        ("- a\n* b", 2),
        ("First, a. Next, b. Finally, c.", 3),
        ("a - b * c at 3.5", 0),
        ("", 0),
    ],
)
def test_reasoning_steps_by_hand(response: str, markers: int) -> None:
    assert text.reasoning_steps(response) == min(1.0, markers / 3)


@given(st.text(max_size=60), st.integers(1, 9))
def test_reasoning_steps_grow_with_markers_up_to_one(response: str, steps: int) -> None:
    more = text.reasoning_steps(response + "\nStep 1:", steps=steps)
    assert 0.0 <= text.reasoning_steps(response, steps=steps) <= more <= 1.0


def test_repetition_by_hand() -> None:
    # a b a b a: the 3-grams are aba, bab, aba: two of three are distinct.
    assert text.repetition(["a", "b", "a", "b", "a"]) == pytest.approx(2 / 3 - 1)
    assert text.repetition(["a", "b", "c", "d", "e"]) == 0.0
    assert text.repetition(["a", "a"]) == 0.0
    assert text.repetition([5] * 1002) == pytest.approx(-0.999)


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 5))
def test_repetition_keeps_its_range_and_ignores_names(units: list[int], ngram: int) -> None:
    value = text.repetition(units, ngram=ngram)
    assert -1.0 < value <= 0.0
    assert text.repetition([f"w{u}" for u in units], ngram=ngram) == value
    assert text.repetition(list(range(len(units))), ngram=ngram) == 0.0


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (CODE, 1.0),
        (CODE.replace("python", "cpp"), 0.0),
        (GOOD, 0.0),
        (CODE + "\nand more", 0.0),
        (CODE.replace("```\n</answer>", "</answer>"), 0.0),
        ("<think>\n```python\nx\n```\n</think><answer>7</answer>", 0.0),
    ],
)
def test_code_format_by_hand(response: str, value: float) -> None:
    assert text.code_format(response) == value


def test_code_format_of_another_language_and_of_an_opened_thought() -> None:
    assert text.code_format(CODE.replace("python", "c++"), language="c++") == 1.0
    assert text.code_format(CODE.removeprefix("<think>"), opened=True) == 1.0


@given(st.text(), st.text())
def test_code_format_never_pays_what_the_format_refuses(before: str, after: str) -> None:
    value = text.code_format(before + CODE + after)
    assert value == float(not (before + after).strip())


def test_language_by_hand() -> None:
    english = "<think>we add the two numbers</think><answer>因此答案是七</answer>"
    assert text.language(english, "en") == 1.0
    assert text.language(english, "zh") == 0.0
    assert text.language(english.removeprefix("<think>"), "en", opened=True) == 1.0
    assert 0.0 < text.language("<think>we add the two numbers。因此答案是七。</think>", "zh") < 1.0
    assert text.language("we add the two numbers", "en") == 1.0
    assert text.language("", "en") == 0.0


@given(st.text(max_size=80), st.sampled_from(["en", "zh", "de"]))
def test_language_is_a_share(response: str, target: str) -> None:
    assert 0.0 <= text.language(response, target) <= 1.0

"""Thoughts between delimiters: every published style is read and written, and nothing is guessed.

Why this matters: a delimiter that is missed trains the thought as an answer; one that is seen where none is cuts an
answer in two. Both go unnoticed, because the loss looks the same.

Not exercised here: what a tokenizer makes of the delimiters (tests/models/test_chat.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.tasks.thinking import AUTOMATIC, STYLES, join, split

WORDS = st.text(alphabet="ab \n.é", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(WORDS, WORDS, st.sampled_from(sorted(STYLES)))
def test_what_is_joined_is_split_again(thought: str, answer: str, style: str) -> None:
    text = join(thought, answer, style)
    assert split(text, style) == (thought, answer)
    assert join(*split(text, style), style) == text


@pytest.mark.parametrize("style", AUTOMATIC)
def test_auto_knows_every_style(style: str) -> None:
    assert split(join("why", "42", style), "auto") == ("why", "42")


def test_the_published_texts() -> None:
    assert split("<think>\nOkay.\n</think>\n\nIt is 4.", "auto") == ("Okay.", "It is 4.")
    assert split("Okay, opened by the prompt.\n</think>\nIt is 4.", "auto") == (
        "Okay, opened by the prompt.",
        "It is 4.",
    )
    s1 = "<|im_start|>think\nLet me see.\n<|im_start|>answer\nAnswer: 4"
    assert split(s1, "auto") == ("Let me see.", "Answer: 4")
    sky = "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>"
    assert split(sky, "auto") == ("Hm.", "4")
    assert join("Hm.", "4", "sky_t1") == sky
    zero = "<think> a </think> <answer> (1+2)/3 </answer>"
    assert split(zero, "think_answer") == ("a", "(1+2)/3")
    # Its answer tags are for the verifier, so they stay unless they are asked about.
    assert split(zero, "auto") == ("a", "<answer> (1+2)/3 </answer>")


def test_the_delimiters_of_every_style_and_what_of_them_can_be_a_token() -> None:
    """s1's are a token of ChatML and a word; the others can be tokens as they are."""
    sky = ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>")
    whole = {"think": ("<think>", "</think>"), "sky_t1": sky}
    whole["think_answer"] = (*whole["think"], "<answer>", "</answer>")
    assert {name: style.delimiters for name, style in STYLES.items()} == {
        **whole,
        "s1": ("<|im_start|>think", "<|im_start|>answer"),
    }
    assert {name: style.tokens for name, style in STYLES.items()} == {**whole, "s1": ("<|im_start|>",)}


@pytest.mark.parametrize("text", ["plain", "Write <think> before the answer.", "I <think>aloud</think> sometimes.", ""])
def test_prose_that_names_a_delimiter_has_no_thought(text: str) -> None:
    assert split(text, "auto") == ("", text)


@pytest.mark.parametrize("opening", ["<think>\n", ""])
def test_a_thought_ends_at_the_last_delimiter_as_the_published_templates_read_it(opening: str) -> None:
    text = f"{opening}Tags are <b></think> then.\n</think>\n\nWrite </think> and stop."
    assert split(text, "auto") == ("Tags are <b></think> then.\n</think>\n\nWrite", "and stop.")
    assert join(*split(text, "auto"), "think").split() == f"<think>\n{text.removeprefix(opening)}".split()


def test_as_is_leaves_the_text_alone() -> None:
    assert split("<think>\na\n</think>\n\nb", "as_is") == ("", "<think>\na\n</think>\n\nb")


def test_a_thought_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="never ended by </think>"):
        split("<think>\nfor ever", "auto")


def test_drop_and_no_thought_write_the_answer_alone() -> None:
    assert join("why", "42", "drop") == join("", "42", "think") == "42"

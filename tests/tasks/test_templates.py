"""Why this matters: a reproduction with another prompt is another experiment. The published prompts are
compared as whole strings, as their systems show them to the model.

Not exercised: how a tokenizer's chat template wraps the turns (models/chat).
"""

from __future__ import annotations

import pytest

from r1kit.records import Message, Problem
from r1kit.tasks.templates import (
    TEMPLATES,
    Prompt,
    countdown_prompt,
    multiplication_prompt,
    r1_zero,
    thinking_opened,
)

TINYZERO = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The \
assistant first thinks about the reasoning process in the mind and then provides the user with the \
answer.
User: Using the numbers [19, 36, 55, 7], create an equation that equals 65. You can use basic arithmetic \
operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. \
And return the final answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>.
Assistant: Let me solve this step by step.
<think>"""

R1_ZERO = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The \
assistant first thinks about the reasoning process in the mind and then provides the user with the \
answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> \
tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: \
What is 1+1?. Assistant:"""

MULTIPLY = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The \
assistant first thinks about the reasoning process in the mind and then provides the user with the \
answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> \
tags, respectively, i.e., <think> reasoning process here </think> <answer> RESULT_NUMBER </answer>. User:\
 Give me the answer of the following equation: 123 * 456 = Assistant: Ok let me think about it.
<think>"""


def whole(prompt: Prompt) -> str:
    assert [m.role for m in prompt.messages] == ["text"]
    return prompt.messages[0].content + prompt.prefill


def problem(prompt: Prompt) -> Problem:
    return Problem("p", prompt.messages, "t", {}, prefill=prompt.prefill)


def test_tinyzero_base() -> None:
    assert whole(countdown_prompt("tinyzero", (19, 36, 55, 7), 65)) == TINYZERO


def test_tinyzero_chat() -> None:
    prompt = countdown_prompt("tinyzero_chat", (19, 36, 55, 7), 65)
    question = TINYZERO.split("User:")[1].split("\nAssistant")[0]
    assert prompt.messages == (
        Message(
            "system",
            "You are a helpful assistant. You first thinks about the reasoning process in the mind and then "
            "provides the user with the answer.",
        ),
        Message("user", question),
    )
    assert prompt.prefill == "Let me solve this step by step.\n<think>"


def test_tinyzero_multiply() -> None:
    assert whole(multiplication_prompt("tinyzero", 123, 456)) == MULTIPLY


def test_r1_zero() -> None:
    assert whole(r1_zero("What is 1+1?")) == R1_ZERO
    for prompt in (countdown_prompt("r1_zero", (1, 2, 3), 6), multiplication_prompt("r1_zero", 12, 34)):
        assert whole(prompt).count("..") == 0
        assert whole(prompt).endswith(". Assistant:")


def test_compact_and_chat_ask_the_same() -> None:
    for compact, chat in (
        (countdown_prompt("compact", (3, 5, 6), 13), countdown_prompt("chat", (3, 5, 6), 13)),
        (multiplication_prompt("compact", 12, 34), multiplication_prompt("chat", 12, 34)),
    ):
        assert compact.messages[0].content == chat.messages[0].content
        assert (compact.messages[0].role, chat.messages[0].role) == ("text", "user")
    assert countdown_prompt("compact", (3, 5, 6), 13).messages[0].content == "Q:3,5,6>13\n"
    assert multiplication_prompt("compact", 12, 34).messages[0].content == "Q:12*34\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_who_opens_the_thinking(template: str) -> None:
    opened = template.startswith("tinyzero")
    assert thinking_opened(problem(countdown_prompt(template, (1, 2, 3), 6))) == opened
    assert thinking_opened(problem(multiplication_prompt(template, 12, 34))) == opened


def test_unknown_templates_are_refused() -> None:
    with pytest.raises(ValueError, match="compact, chat, tinyzero"):
        countdown_prompt("alpaca", (1, 2, 3), 6)

"""Why this matters: a reproduction with another prompt is another experiment. The published prompts are compared as
whole strings.

Not exercised: how a tokenizer's chat template wraps the turns (models/chat).
"""

from __future__ import annotations

from typing import Any, get_args

import pytest

from r1kit.config import ConfigError
from r1kit.config.tasks.questions import QuestionTemplate
from r1kit.records import Message, Problem
from r1kit.tasks.question_prompts import QUESTION_PROMPTS, Prompter
from r1kit.tasks.templates import thinking_opened

from .question_files import task_settings

Q = "What is 1+1?"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
PUBLISHED = {
    "deepseek_r1": ([("user", f"{Q}\n{BOXED}")], "<think>\n"),
    "qwen_math": ([("system", BOXED), ("user", Q)], ""),
    "qwen_boxed": ([("system", "You are a helpful assistant."), ("user", f"{Q}\n{BOXED}")], ""),
    "abel": ([("text", f"Question:\n{Q}\nAnswer:\nLet's think step by step.\n")], ""),
    "dapo": (
        [
            (
                "user",
                "Solve the following math problem step by step. The last line of your response should be of the form "
                "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 1+1?\n\n"
                'Remember to put your answer on its own line after "Answer:".',
            )
        ],
        "",
    ),
    "deepscaler": (
        [("user", f"{Q} Let's think step by step and output the final answer within \\boxed{{}}.")],
        "",
    ),
    "open_r1": (
        [
            (
                "system",
                "You are a helpful AI Assistant that provides well-reasoned and detailed responses. You first think "
                "about the reasoning process as an internal monologue and then provide the user with the answer. "
                "Respond in the following format: <think>\n...\n</think>\n<answer>\n...\n</answer>",
            ),
            ("user", Q),
        ],
        "",
    ),
    "s1": ([("user", Q)], "<|im_start|>think\n"),
    "prime_math": ([("user", f"{Q}\n\nPresent the answer in LaTex format: \\boxed{{Your answer}}")], ""),
    "prime_code": (
        [
            (
                "user",
                f"{Q}\n\nWrite Python code to solve the problem. Present the code in \n"
                "```python\nYour code\n```\nat the end.",
            )
        ],
        "",
    ),
    "chat": ([("user", Q)], ""),
    "compact": ([("text", f"Q:{Q}\n")], ""),
}


def prompter(kind: str = "math", **settings: Any) -> Prompter:
    return Prompter(task_settings(name="math", data="some.jsonl", **settings), kind=kind)


@pytest.mark.parametrize("template", PUBLISHED)
def test_published_prompts_letter_by_letter(template: str) -> None:
    messages, prefill = PUBLISHED[template]
    prompt = prompter(template=template)(Q)
    assert [(m.role, m.content) for m in prompt.messages] == messages
    assert prompt.prefill == prefill


def test_multiple_choice_names_its_letters() -> None:
    prompt = prompter("choice", template="simple_choice")("Which?\n\nA) a\nB) b\nC) c", "ABC")
    assert prompt.messages[0].content == (
        "Answer the following multiple choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABC. Think step by step before answering."
        "\n\nWhich?\n\nA) a\nB) b\nC) c"
    )


def test_every_template_of_the_settings_is_there() -> None:
    assert set(get_args(QuestionTemplate)) == set(QUESTION_PROMPTS)


def test_who_opens_the_thinking() -> None:
    opened = set()
    for template in QUESTION_PROMPTS:
        prompt = prompter("choice", template=template)(Q, "AB")
        if thinking_opened(Problem("p", prompt.messages, "t", {}, prefill=prompt.prefill)):
            opened.add(template)
    assert opened == {"deepseek_r1", "s1"}


def test_a_prompt_of_ones_own() -> None:
    made = prompter(system="Du bist Arzt.", prompt="Frage: {question}\nDenk nach.", prefill="<think>\n", format="think")
    prompt = made("Was tun bei {Fieber}?")
    assert prompt.messages == (
        Message("system", "Du bist Arzt."),
        Message("user", "Frage: Was tun bei {Fieber}?\nDenk nach."),
    )
    assert (prompt.prefill, made.shape) == ("<think>\n", "think")


def test_a_question_that_looks_like_a_placeholder_stays_as_it_is() -> None:
    assert (
        prompter(template="simple_choice", kind="choice")("{letters} {question}?", "AB")
        .messages[0]
        .content.endswith("\n\n{letters} {question}?")
    )


@pytest.mark.parametrize(
    ("template", "kind", "shape"),
    [("chat", "code", "fence"), ("dapo", "code", "fence"), ("r1_zero", "code", "tags"), ("chat", "math", "any")],
)
def test_programs_are_answered_in_a_fence(template: str, kind: str, shape: str) -> None:
    assert prompter(kind, template=template).shape == shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "open_r1", "system": "Hi"}, "brings its own system prompt: set template: chat"),
        ({"template": "r1_zero", "system": "Hi"}, "is one text without turns"),
        ({"template": "dapo", "prompt": "{question}!"}, "template dapo brings its own prompt"),
        ({"prompt": "no place"}, "expected {question} in it, once"),
        ({"prompt": "{question} {question}"}, "expected {question} in it, once"),
        ({"template": "simple_choice"}, "asks for a letter, but the answers are of kind math"),
    ],
)
def test_what_a_template_cannot_hold_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", "\\{").replace("}", "\\}")):
        prompter(**settings)

"""Prompts: compact ones for the tiny tokenizer, the published ones word for word for real models.

The published texts are quoted from their systems because a reproduction has to use the same characters:
TinyZero (`examples/data_preprocess/{countdown,multiply}.py`, base and chat variants, including the chat
variant's grammar and its space before "Using") and DeepSeek-R1-Zero (the paper's table 1). A base prompt is
one message of role "text". Where a published prompt ends by speaking for the assistant, that part is the
`prefill`: the response begins after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1kit.records import Message, Problem

TEMPLATES = ("compact", "chat", "tinyzero", "tinyzero_chat", "r1_zero")

_TINYZERO_INTRO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with "
    "the answer."
)
_TINYZERO_TAGS = (
    " The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> RESULT_NUMBER </answer>."
)
_TINYZERO_SYSTEM = (
    "You are a helpful assistant. You first thinks about the reasoning process in the mind and then "
    "provides the user with the answer."
)
_TINYZERO_PREFILL = "Let me solve this step by step.\n<think>"
_COUNTDOWN_QUESTION = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic "
    "operations (+, -, *, /) and each number can only be used once."
)
_TINYZERO_SHOW = (
    " Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags, "
    "for example <answer> (1 + 2) / 3 </answer>."
)
_MULTIPLY_QUESTION = "Give me the answer of the following equation: {a} * {b}"
_MULTIPLY_SHOW = "Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags."
_R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with "
    "the answer. The reasoning process and answer are enclosed within <think> </think> and <answer> "
    "</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here "
    "</answer>. User: {question}. Assistant:"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a problem shows the model: its messages and the text the assistant's turn starts with."""

    messages: tuple[Message, ...]
    prefill: str = ""


def check_template(name: str) -> str:
    """`name` where it is a known template, else ValueError that lists them."""
    if name not in TEMPLATES:
        raise ValueError(f"task.template is {name!r}: expected one of {', '.join(TEMPLATES)}")
    return name


def r1_zero(question: str) -> Prompt:
    """The R1-Zero template around any question; it brings its own full stop, so the question's is cut."""
    return Prompt((Message("text", _R1_ZERO.format(question=question.removesuffix("."))),))


def countdown_question(numbers: Sequence[int], target: int) -> str:
    """TinyZero's question; it shows the numbers as a Python list."""
    return _COUNTDOWN_QUESTION.format(numbers=list(numbers), target=target)


def countdown_prompt(template: str, numbers: Sequence[int], target: int) -> Prompt:
    """The countdown prompt: compact for tiny models, TinyZero's question for real ones."""
    if check_template(template) in ("compact", "chat"):
        question = f"Q:{','.join(map(str, numbers))}>{target}\n"
        return Prompt((Message("text" if template == "compact" else "user", question),))
    question = countdown_question(numbers, target)
    if template == "r1_zero":
        return r1_zero(question)
    if template == "tinyzero":
        text = f"{_TINYZERO_INTRO}\nUser: {question}{_TINYZERO_SHOW}\nAssistant: "
        return Prompt((Message("text", text),), _TINYZERO_PREFILL)
    turns = (Message("system", _TINYZERO_SYSTEM), Message("user", f" {question}{_TINYZERO_SHOW}"))
    return Prompt(turns, _TINYZERO_PREFILL)


def multiplication_prompt(template: str, a: int, b: int) -> Prompt:
    """The multiplication prompt. Only the base variant is published; the chat one follows countdown's."""
    if check_template(template) in ("compact", "chat"):
        return Prompt((Message("text" if template == "compact" else "user", f"Q:{a}*{b}\n"),))
    question = _MULTIPLY_QUESTION.format(a=a, b=b)
    if template == "r1_zero":
        return r1_zero(question)
    if template == "tinyzero":
        text = f"{_TINYZERO_INTRO}{_TINYZERO_TAGS} User: {question} = Assistant: "
        return Prompt((Message("text", text),), "Ok let me think about it.\n<think>")
    user = f"{question} = {_MULTIPLY_SHOW}"
    return Prompt((Message("system", _TINYZERO_SYSTEM), Message("user", user)), _TINYZERO_PREFILL)


def thinking_opened(problem: Problem) -> bool:
    """True where the prompt itself opened `<think>` (or s1's): the response then begins inside the thinking."""
    ending = problem.prefill or problem.prompt[-1].content
    return ending.rstrip().endswith(("<think>", "<|im_start|>think"))


def published_tinyzero(template: str) -> bool:
    """True where TinyZero's published scoring goes with the prompt: an answer counts wherever it stands."""
    return template.startswith("tinyzero")

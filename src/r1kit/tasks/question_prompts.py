"""Prompts for questions in words: the published ones word for word, the plain one, and the user's own.

A row says what stands around the question, and which shape of response the prompt asks for (see `shapes`). The texts
are quoted from their systems because a reproduction has to use the same characters; the turn tokens around a
conversation are the tokenizer's chat template's. Sources:

    r1_zero      DeepSeek-R1 (arXiv 2501.12948), table 1
    deepseek_r1  DeepSeek-R1's usage notes: boxed instruction, no system prompt, the response forced to open <think>
    qwen_math    Qwen2.5-Math's chain-of-thought prompt; simpleRL v0 trains with it
    qwen_boxed   simpleRL-Zoo's prompt for strong bases; abel is the one for weak ones
    dapo         DAPO (arXiv 2503.14476)
    deepscaler   DeepScaleR
    open_r1      Open-R1's system prompt for GRPO
    s1           s1 (arXiv 2501.19393): the thought between <|im_start|>think and <|im_start|>answer
    prime_math, prime_code   PRIME (arXiv 2502.01456)
    simple_choice            OpenAI simple-evals' prompt for multiple choice
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1kit.config.errors import ConfigError
from r1kit.records import Message
from r1kit.tasks.templates import Prompt, r1_zero

_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
_OPEN_R1 = (
    "You are a helpful AI Assistant that provides well-reasoned and detailed responses. You first think about the "
    "reasoning process as an internal monologue and then provide the user with the answer. Respond in the following "
    "format: <think>\n...\n</think>\n<answer>\n...\n</answer>"
)
_DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{question}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
_CHOICE = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering."
    "\n\n{question}"
)
_PRIME_CODE = "\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code\n```\nat the end."


@dataclass(frozen=True, slots=True)
class QuestionPrompt:
    """`user`: the user's turn around {question}; with `text` it is the whole prompt of a base model."""

    user: str = "{question}"
    system: str = ""
    prefill: str = ""
    shape: str = "any"
    text: bool = False


QUESTION_PROMPTS: Mapping[str, QuestionPrompt] = {
    "chat": QuestionPrompt(),
    "compact": QuestionPrompt("Q:{question}\n", shape="tags", text=True),
    "r1_zero": QuestionPrompt(shape="tags", text=True),
    "deepseek_r1": QuestionPrompt("{question}\n" + _BOXED, prefill="<think>\n", shape="boxed"),
    "qwen_math": QuestionPrompt(system=_BOXED, shape="boxed"),
    "qwen_boxed": QuestionPrompt("{question}\n" + _BOXED, "You are a helpful assistant.", shape="boxed"),
    "abel": QuestionPrompt("Question:\n{question}\nAnswer:\nLet's think step by step.\n", text=True),
    "dapo": QuestionPrompt(_DAPO, shape="answer_line"),
    "deepscaler": QuestionPrompt(
        "{question} Let's think step by step and output the final answer within \\boxed{}.", shape="boxed"
    ),
    "open_r1": QuestionPrompt(system=_OPEN_R1, shape="tag_lines"),
    "s1": QuestionPrompt(prefill="<|im_start|>think\n", shape="think"),
    "prime_math": QuestionPrompt(
        "{question}\n\nPresent the answer in LaTex format: \\boxed{Your answer}", shape="boxed"
    ),
    "prime_code": QuestionPrompt("{question}" + _PRIME_CODE, shape="fence"),
    "simple_choice": QuestionPrompt(_CHOICE, shape="answer_line"),
}


class Prompter:
    """Questions to prompts, as the settings of a task say; `shape` is that of a well-formed response.

    ConfigError where the settings ask for what their template cannot hold.
    """

    def __init__(self, settings: Any, *, kind: str) -> None:
        self.template, row = str(settings.template), QUESTION_PROMPTS[settings.template]
        if settings.system is not None and (row.system or row.text):
            why = "is one text without turns" if row.text else "brings its own system prompt"
            raise ConfigError(f"task.system: template {self.template} {why}: set template: chat, or leave system out")
        if self.template == "simple_choice" and kind != "choice":
            raise ConfigError(f"task.template simple_choice asks for a letter, but the answers are of kind {kind}")
        self.row = row
        self.user = row.user if settings.prompt is None else str(settings.prompt)
        self.system = row.system if settings.system is None else str(settings.system)
        self.prefill = row.prefill if settings.prefill is None else str(settings.prefill)
        wish = row.shape if settings.format == "auto" else str(settings.format)
        self.shape = "fence" if kind == "code" and wish in ("any", "boxed", "answer_line") else wish

    def __call__(self, question: str, letters: str = "") -> Prompt:
        """`letters`: of the options, for templates that name them."""
        if self.template == "r1_zero":
            return Prompt(r1_zero(question).messages, self.prefill)
        user = self.user.replace("{letters}", letters).replace("{question}", question)
        if self.row.text:
            return Prompt((Message("text", user),), self.prefill)
        system = (Message("system", self.system),) if self.system else ()
        return Prompt((*system, Message("user", user)), self.prefill)

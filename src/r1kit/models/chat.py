"""Problems to token ids: bare text for base models, the chat template for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from r1kit.models.own_tokenizer import special_ids
from r1kit.records import Problem
from r1kit.tasks.thinking import STYLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Templates such as Llama 3.2's ask the clock: what is trained after midnight, or evaluated next week, would stand
# behind another prompt. They are told the date that Llama 3's own templates name where there is no clock.
_DATE = {"%A": "Friday", "%a": "Fri", "%d": "26", "%B": "July", "%b": "Jul", "%m": "07", "%Y": "2024", "%y": "24"}
_HOUR = {"%H": "00", "%M": "00", "%S": "00"}
# A macro goes before the function of its name. The template stays as it is: Jinja drops one line break behind a block.
_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace('{code}', '{text}')" for code, text in {**_DATE, **_HOUR}.items())
    + " }}{% endmacro %}\n"
)


class PromptError(ValueError):
    """A problem that this tokenizer cannot be asked; the message says what to change."""


def render_turns(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], *, open_turn: bool = True
) -> str:
    """The chat template's text of `{role, content}` turns, the same on every day; with `open_turn` up to where the
    assistant speaks. PromptError where the template refuses them."""
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _CLOCK + template
    conversation: Any = [dict(turn) for turn in turns]
    try:
        text: Any = tokenizer.apply_chat_template(
            conversation, chat_template=template, tokenize=False, add_generation_prompt=open_turn
        )
    except TemplateError as error:
        raise PromptError(f"the chat template refuses this conversation: {error}") from None
    return str(text)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> list[int]:
    """Token ids of a problem's prompt, the assistant's prefill included.

    A single message with role "text" is the whole prompt as it stands (after <bos> where the tokenizer has one). Any
    other conversation goes through the tokenizer's chat template with an open assistant turn.
    """
    if problem.prompt[0].role == "text":
        bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        text = problem.prompt[0].content + problem.prefill
        return bos + tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.chat_template is None:
        raise PromptError(
            f"problem {problem.id} is a conversation, but the tokenizer has no chat template: use a task template for "
            "base models (compact, tinyzero, r1_zero), or a model with a chat template"
        )
    try:
        rendered = render_turns(tokenizer, [m.to_json() for m in problem.prompt])
    except PromptError as error:
        raise PromptError(f"problem {problem.id}: {error}") from None
    # R1-Distill's chat template opens <think> itself: a prefill that stands there already is not written twice.
    written = bool(problem.prefill.strip()) and rendered.rstrip().endswith(problem.prefill.strip())
    return tokenizer.encode(rendered if written else rendered + problem.prefill, add_special_tokens=False)


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a response."""
    if tokenizer.eos_token_id is None:
        raise PromptError(
            "the tokenizer has no eos token: responses could never stop; set one in tokenizer_config.json"
        )
    return (int(tokenizer.eos_token_id),)


def control_tokens(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> set[int]:
    """Ids of the special and added tokens that a problem's prompt and its answers take: the prompt's own, those of the
    thinking delimiters of whose style it names one, and the end."""
    prompt = encode_prompt(tokenizer, problem)
    text = str(tokenizer.decode(prompt))
    named = [style for style in STYLES.values() if any(delimiter in text for delimiter in style.delimiters)]
    written = tokenizer.encode("\n".join(d for style in named for d in style.delimiters), add_special_tokens=False)
    return {*prompt, *written, *stop_token_ids(tokenizer)} & special_ids(tokenizer)

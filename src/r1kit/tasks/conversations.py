"""Turns of a conversation from the forms of published data: ShareGPT, OpenAI messages, columns of prompt and response.

Everything raises ValueError with the field and what was found: the caller knows the file and the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.config.data import ColumnSettings
from r1kit.config.errors import UserError
from r1kit.config.suggest import nearest
from r1kit.records import Message
from r1kit.tasks.thinking import split

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "bard"), "assistant"),
    **dict.fromkeys(("tool", "observation", "ipython", "function_response"), "tool"),
    "text": "text",
}
# Column names of published sets, the most telling first.
MESSAGES = ("messages", "conversations", "conversation")
SYSTEM = ("system", "system_prompt")
PROMPT = ("prompt", "instruction", "question", "problem", "query", "text")
INPUT = ("input",)
REASONING = (
    *("reasoning", "thinking", "reasoning_content"),
    *("deepseek_thinking_trajectory", "thinking_trajectories", "deepseek_reasoning"),
)
RESPONSE = (
    *("completion", "response", "output", "deepseek_attempt", "attempt"),
    *("deepseek_solution", "solution", "answer"),
)
LABEL = ("label", "kto_tag")
IDS = ("id", "uuid", "trace_id", "problem_id", "unique_id", "task_id")
# What a recipe may name the columns of, by form.
_PROMPTED = ("messages", "system", "prompt", "input", "id")
NAMED: Mapping[str, tuple[str, ...]] = {
    "trace": (*_PROMPTED, "reasoning", "response"),
    "pair": (*_PROMPTED, "chosen", "rejected"),
    "labelled": (*_PROMPTED, "reasoning", "response", "label"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what; "" where it has none."""

    messages: str = ""
    system: str = ""
    prompt: str = ""
    input: str = ""
    reasoning: str = ""
    response: str = ""
    chosen: str = ""
    rejected: str = ""
    label: str = ""
    id: str = ""

    def describe(self) -> str:
        """One line for a person."""
        return ", ".join(f"{name} from {value}" for name in self.__slots__ if (value := getattr(self, name)))


def find_columns(names: Iterable[str], asked: ColumnSettings, source: str, *, form: str = "trace") -> Columns:
    """The columns of a file that has `names`, those `asked` for first; `form` is trace, pair or labelled.

    Raises UserError, of `source`, where a column that was asked for is absent or nothing tells what is trained.
    """
    present = {name.lower(): name for name in names}
    wishes = asked_columns(present.values(), asked, source, NAMED[form])

    def first(key: str, known: Sequence[str]) -> str:
        return wishes.get(key) or next((present[name] for name in known if name in present), "")

    # Columns named by the recipe settle the form: a conversation beside them is not what was asked for.
    by_columns = "messages" not in wishes and ("prompt" in wishes or "response" in wishes)
    found = Columns(
        messages="" if by_columns else first("messages", MESSAGES),
        system=first("system", SYSTEM),
        prompt=first("prompt", PROMPT),
        input=first("input", INPUT),
        reasoning=first("reasoning", REASONING),
        response=first("response", RESPONSE) if form != "pair" else "",
        chosen=first("chosen", ("chosen",)) if form == "pair" else "",
        rejected=first("rejected", ("rejected",)) if form == "pair" else "",
        label=first("label", LABEL) if form == "labelled" else "",
        id=first("id", IDS),
    )
    missing = _missing(found, form)
    if missing:
        raise UserError(
            f"{source}: no column that holds the {missing}; its columns are {', '.join(present.values()) or 'none'}: "
            f"name it in the recipe (columns: {{{missing}: ...}}; docs/data-formats.md lists the known forms)"
        )
    return found


def asked_columns(
    present: Collection[str], asked: ColumnSettings, source: str, known: Collection[str]
) -> dict[str, str]:
    """The columns that the recipe names. UserError where the file has none of that name, or the form no such part."""
    wishes = {name: value for name, value in asked.model_dump().items() if value is not None}
    for key, value in wishes.items():
        if key not in known:
            raise UserError(f"{source}: columns.{key} is set, but such rows have none; expected {', '.join(known)}")
        if value not in present:
            raise UserError(
                f"{source}: columns.{key} is {value!r}{nearest(value, present)}; its columns are {', '.join(present)}"
            )
    return wishes


def _missing(found: Columns, form: str) -> str:
    """The first thing that a form cannot do without and that no column holds."""
    if form == "pair":
        return next((name for name in ("chosen", "rejected") if not getattr(found, name)), "")
    if form == "labelled" and not found.label:
        return "label"
    if found.messages:
        return ""
    return next((name for name in ("prompt", "response") if not getattr(found, name)), "")


def turns_of(data: Mapping[str, Any], columns: Columns, thinking: str, system: str | None) -> tuple[Message, ...]:
    """The conversation of a row: its turns where it has some, else prompt and response."""
    if columns.messages and data.get(columns.messages) is not None:
        found = read_turns(data[columns.messages], columns.messages, thinking)
    else:
        found = (*prompt_of(data, columns, thinking), _response_of(data, columns, thinking))
    return with_system(found, data, columns.system, system)


def prompt_of(data: Mapping[str, Any], columns: Columns, thinking: str) -> tuple[Message, ...]:
    """The turns that ask, system prompt apart: a list of turns, or a text with its further input (Alpaca)."""
    value = data.get(columns.prompt)
    if isinstance(value, (list, tuple)):
        return read_turns(value, columns.prompt, thinking)
    text = text_of(value, columns.prompt)
    more = text_of(data.get(columns.input) or "", columns.input) if columns.input != columns.prompt else ""
    return (Message("user", f"{text}\n{more}" if more.strip() else text),)


def with_system(
    turns: tuple[Message, ...], data: Mapping[str, Any], column: str, system: str | None
) -> tuple[Message, ...]:
    """The turns behind their system prompt: the conversation's own, the row's in `column`, or the data set's."""
    own = data.get(column) if column else None
    text = text_of(own, column) if own else system
    if not text or turns[0].role in ("system", "text"):
        return turns
    return (Message("system", text), *turns)


def read_turns(value: Any, name: str, thinking: str) -> tuple[Message, ...]:
    """Turns of a list of `{role, content}` or `{from, value}`; the thought of an assistant's turn taken apart."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # the JSON text of a CSV cell
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{name} is {_shown(value)}: expected a list of turns")
    return tuple(read_turn(turn, f"{name}[{i}]", thinking) for i, turn in enumerate(value))


def read_turn(turn: Any, name: str, thinking: str) -> Message:
    """One turn; a plain text is the assistant's."""
    if isinstance(turn, str):
        turn = {"role": "assistant", "content": turn}
    if not isinstance(turn, Mapping):
        raise ValueError(f"{name} is {_shown(turn)}: expected an object with role and content, or from and value")
    if turn.get("tool_calls") or turn.get("from") == "function_call":
        raise ValueError(f"{name} calls a tool: such turns are not trained here; leave the row out (bad_rows: skip)")
    spoken = turn.get("role") if turn.get("role") is not None else turn.get("from")
    role = ROLES.get(str(spoken).lower())
    if role is None:
        raise ValueError(f"{name} is by {spoken!r}: expected one of {', '.join(ROLES)}")
    content = turn.get("content") if "content" in turn else turn.get("value")
    thought = turn.get("reasoning") or turn.get("reasoning_content") or ""
    text = text_of(content if content is not None or not thought else "", f"{name}.content")
    return (
        assistant(text, text_of(thought, f"{name}.reasoning"), thinking) if role == "assistant" else Message(role, text)
    )


def assistant(text: str, thought: str, thinking: str) -> Message:
    """The assistant's turn; where no thought stands apart, it is looked for in the text."""
    if not thought:
        thought, text = split(text, thinking)
    return Message("assistant", text, thought)


def _response_of(data: Mapping[str, Any], columns: Columns, thinking: str) -> Message:
    value = data.get(columns.response)
    if isinstance(value, (list, tuple)) and len(value) == 1:  # s1K keeps lists of attempts, TRL lists of one turn
        value = value[0]
    if isinstance(value, Mapping):
        return read_turn(value, columns.response, thinking)
    thought: Any = data.get(columns.reasoning) if columns.reasoning else None
    if isinstance(thought, (list, tuple)):
        thought = thought[0] if thought else None
    text = text_of(value, columns.response)
    return assistant(text, text_of(thought, columns.reasoning).strip() if thought else "", thinking)


def text_of(value: Any, name: str) -> str:
    """A text, a number, or the text parts of OpenAI's list form."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{name or 'a column'} holds half a surrogate pair: such a text has no UTF-8")
        return value
    # NaN is how pandas writes an empty cell: nobody said the word.
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, (list, tuple)) and value and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    raise ValueError(f"{name or 'a column'} is {_shown(value)}: expected a text")


def check_turns(turns: Sequence[Message], *, answered: bool = True) -> None:
    """Refuse what no model is trained on: an empty turn, a late system prompt, a conversation that does not end in the
    assistant's turn (with `answered`) or that does (without)."""
    for i, turn in enumerate(turns):
        if not turn.content.strip() and not turn.reasoning:
            raise ValueError(f"turn {i + 1} ({turn.role}) is empty")
        if turn.role == "system" and i > 0:
            raise ValueError(f"turn {i + 1} is a system prompt: expected it at the start")
        if turn.role == "text" and i > 0:
            raise ValueError(f"turn {i + 1} is of role 'text': expected it at the start, as the whole prompt")
    if not turns or turns[0].role == "assistant":
        raise ValueError("there is no prompt: the first turn is the assistant's")
    last = turns[-1].role
    if answered and last != "assistant":
        raise ValueError(f"the last turn is by {last}: expected the assistant's")
    if not answered and last == "assistant":
        raise ValueError("the prompt ends with the assistant's turn: expected the user's")


_SPEAKERS = re.compile(r"\n\n(Human|Assistant):")


def transcript(text: str, thinking: str) -> tuple[Message, ...]:
    """The turns of a text in the form of HH-RLHF: `\\n\\nHuman: ...\\n\\nAssistant: ...`."""
    parts = _SPEAKERS.split(text)
    turns = []
    for speaker, said in zip(parts[1::2], parts[2::2], strict=True):
        turns.append(Message("user", said.strip()) if speaker == "Human" else assistant(said.strip(), "", thinking))
    return tuple(turns)


def is_transcript(text: Any) -> bool:
    return isinstance(text, str) and text.startswith("\n\nHuman:")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

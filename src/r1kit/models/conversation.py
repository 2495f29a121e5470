"""Conversations to the token streams a model learns from, each token marked: context, thought or answer.

A stream is built from what the model sees and says when it is used: for each assistant's turn the chat template renders
the prompt (the turns before it, the assistant's turn opened), and the turn's own text follows, up to the token that
ends a turn. So a template that opens `<think>` itself, or that drops the thoughts of earlier turns (DeepSeek-R1, QwQ,
Qwen3), is trained as it is sampled. Where the prompt of a later turn goes on from the stream so far, both share one
stream; where the template has changed what came before, a new one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from r1kit.models.chat import PromptError, render_turns
from r1kit.models.own_tokenizer import special_ids
from r1kit.records import Message
from r1kit.tasks.thinking import STYLES, Style, join

CONTEXT, THOUGHT, ANSWER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Token ids, int32 [T], and the part each belongs to, int8 [T]: CONTEXT, THOUGHT (its delimiters too) or ANSWER
    (the end of the turn too)."""

    token_ids: np.ndarray
    parts: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, length: int) -> TokenStream:
        """The first `length` tokens, without a context at the end that nothing is learned behind."""
        learned = np.flatnonzero(self.parts[:length] != CONTEXT)
        end = int(learned[-1]) + 1 if len(learned) else 0
        return TokenStream(self.token_ids[:end], self.parts[:end])

    @property
    def trained(self) -> int:
        """Tokens that are learned."""
        return int((self.parts != CONTEXT).sum())


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the model sees, what it then says, and how many characters of that are the thought."""

    prompt: str
    said: str
    thought: int


class ConversationEncoder:
    """Encodes conversations for one tokenizer. `thinking` is how a thought is written: a name of STYLES, or "drop"."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: str = "think") -> None:
        if not tokenizer.is_fast:
            raise PromptError("this tokenizer gives no character offsets: training on conversations needs a fast one")
        self.tokenizer, self.thinking = tokenizer, thinking
        self.end = end_of_turn(tokenizer) if tokenizer.chat_template else _eos(tokenizer)

    def streams(self, messages: Sequence[Message], *, last_only: bool = False) -> list[TokenStream]:
        """The streams that train every assistant's turn, or only the last. PromptError where the template refuses."""
        turns = [self._turn(messages, i) for i, m in enumerate(messages) if m.role == "assistant"]
        if last_only:
            return [self._encode(turns[-1:])]
        chains: list[list[_Turn]] = []
        text = ""
        for turn in turns:
            if not chains or not turn.prompt.startswith(text):
                chains.append([])
            chains[-1].append(turn)
            text = turn.prompt + turn.said
        return [self._encode(chain) for chain in chains]

    def control_tokens(self) -> set[int]:
        """Ids of the special and added tokens that a turn with a thought takes, whatever the data say: the chat
        template's, those of the thought's delimiters that are one token, and the end of the turn."""
        turns = [Message("user" if self.tokenizer.chat_template else "text", "-"), Message("assistant", "-", "-")]
        return {int(i) for stream in self.streams(turns) for i in stream.token_ids} & special_ids(self.tokenizer)

    def _turn(self, messages: Sequence[Message], index: int) -> _Turn:
        message = messages[index]
        said = join(message.reasoning, message.content, self.thinking)
        style = STYLES.get(self.thinking)
        thought = 0
        if style is not None and message.reasoning:
            thought = len(style.before) + len(message.reasoning) + _closing(style)
        prompt = self._prompt(messages[:index])
        opened = next((s for s in STYLES.values() if prompt.rstrip().endswith(s.open)), None)
        if opened is not None and messages[0].role != "text":
            if opened is not style and (style is None or opened.open != style.open):
                raise PromptError(
                    f"the chat template opens {opened.open} itself, but thinking is {self.thinking!r}: write thoughts "
                    "in that style, or use another chat_template"
                )
            said, thought = _behind_opening(said, thought, style or opened, prompt)
        return _Turn(prompt, said + self.end, thought)

    def _prompt(self, messages: Sequence[Message]) -> str:
        if messages[0].role == "text":
            if len(messages) > 1:
                raise PromptError("a bare text has one response: further turns need a chat template")
            return f"{self.tokenizer.bos_token or ''}{messages[0].content}"
        return render(self.tokenizer, messages, self.thinking)

    def _encode(self, turns: Sequence[_Turn]) -> TokenStream:
        """Prompt and response are encoded apart, as in sampling: no token reaches over the border between them."""
        ids: list[int] = []
        parts: list[int] = []
        text = ""
        for turn in turns:
            context = self.tokenizer.encode(turn.prompt[len(text) :], add_special_tokens=False)
            said: Any = self.tokenizer(turn.said, add_special_tokens=False, return_offsets_mapping=True)
            ids += [*context, *said["input_ids"]]
            parts += [CONTEXT] * len(context)
            parts += [THOUGHT if start < turn.thought else ANSWER for start, _ in said["offset_mapping"]]
            text = turn.prompt + turn.said
        return TokenStream(np.array(ids, dtype=np.int32), np.array(parts, dtype=np.int8))


def _closing(style: Style) -> int:
    """Characters between the end of the thought and the end of its closing delimiter."""
    return style.between.index(style.close) + len(style.close)


def _behind_opening(said: str, thought: int, style: Style, prompt: str) -> tuple[str, int]:
    """The turn's text behind an opening that the prompt has written; a turn without a thought closes it at once."""
    if not thought:
        between = style.between if prompt.endswith(style.before) else style.between.lstrip()
        return f"{between.lstrip()}{said}{style.after}", _closing(style)
    # The prompt may end with the opening alone: then its line break is still to be said.
    written = style.before if prompt.endswith(style.before) else style.open
    return said.removeprefix(written), thought - len(written)


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], thinking: str, *, open_turn: bool = True
) -> str:
    """The chat template's text of a conversation. `thinking` writes the thoughts of earlier turns, which the template
    may then drop. PromptError where there is no template or it refuses the conversation."""
    if tokenizer.chat_template is None:
        raise PromptError(
            "the tokenizer has no chat template, and the data are conversations: name one with chat_template "
            "(chatml, chatml_think, or a .jinja file)"
        )
    turns = [{"role": m.role, "content": join(m.reasoning, m.content, thinking)} for m in messages]
    return render_turns(tokenizer, turns, open_turn=open_turn)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that the chat template writes behind an assistant's turn; the eos token where it writes none."""
    said = "r1kit"
    text = render(tokenizer, [Message("user", said), Message("assistant", said)], "drop", open_turn=False)
    after = text.rpartition(said)[2]
    special = special_ids(tokenizer)
    found = next((i for i in tokenizer.encode(after, add_special_tokens=False) if i in special), None)
    return _eos(tokenizer) if found is None else str(tokenizer.convert_ids_to_tokens(found))


def _eos(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.eos_token is None:
        raise PromptError("the tokenizer has no eos token and no end of turn: a model would never learn to stop")
    return str(tokenizer.eos_token)

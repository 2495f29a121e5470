"""Problems to token ids.

Why this matters: a prompt that starts one token off (no <bos>, a second <bos>, a lost prefill) moves every log-prob and
costs accuracy without a trace.

Not exercised here: templates of published models; the texts of the tasks (tests/tasks).
"""

from __future__ import annotations

from datetime import datetime
from unittest.mock import Mock, patch

import pytest
from transformers import PreTrainedTokenizerFast

from r1kit.models.chat import PromptError, encode_prompt, render_turns, stop_token_ids
from r1kit.models.conversation import ConversationEncoder
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Message, Problem


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


def problem(*messages: tuple[str, str], prefill: str = "") -> Problem:
    return Problem("p1", tuple(Message(*m) for m in messages), "countdown", {}, prefill=prefill)


def test_bare_text_stands_behind_one_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_prompt(tokenizer, problem(("text", "Q:3,5>8\n"), prefill="<think>"))
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "Q:", "3", ",", "5", ">", "8", "\n", "<think>"]


def test_bare_text_without_bos_where_the_tokenizer_has_none(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.bos_token = None
    assert tokenizer.decode(encode_prompt(tokenizer, problem(("text", "Q:1>1\n")))) == "Q:1>1\n"


def test_a_conversation_opens_the_assistants_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_prompt(tokenizer, problem(("system", "check "), ("user", "Q:3"), prefill="<think>"))
    want = ["<bos>", "<|system|>", "check ", "<|user|>", "Q:", "3", "<|assistant|>", "<think>"]
    assert tokenizer.convert_ids_to_tokens(ids) == want


def test_a_thought_that_the_template_opens_is_not_opened_twice(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = problem(("user", "Q:3"), prefill="<think>\n")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>' }}", "<|assistant|><think>\n' }}")
    want = ["<bos>", "<|user|>", "Q:", "3", "<|assistant|>", "<think>", "\n"]
    assert tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, asked)) == want


def test_a_conversation_needs_a_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="problem p1 is a conversation, but the tokenizer has no chat template"):
        encode_prompt(tokenizer, problem(("user", "Q:3")))


def test_responses_end_at_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    assert stop_token_ids(tokenizer) == (tokenizer.convert_tokens_to_ids("<eos>"),)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no eos token"):
        stop_token_ids(tokenizer)


# Its line break, its indent and its question whether there is a clock are those of published templates.
DATED = """
  {%- if strftime_now is defined %}{% set date = strftime_now('%d %b %Y') %}{% else %}{% set date = 'none' %}{% endif %}
{{ date }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}
  {%- macro opening() %}<|assistant|>{{ strftime_now('%d,%m,%Y') }}>{% endmacro %}
{% if add_generation_prompt %}{{ opening() }}{% endif %}"""


def at(clock: datetime, tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[int], list[int]]:
    """The text of a prompt, its ids, and those that are trained, by a clock."""
    turns = [Message("user", "Q:3"), Message("assistant", "3")]
    with patch("transformers.utils.chat_template_utils.datetime", Mock(now=lambda: clock)):
        ids = encode_prompt(tokenizer, problem(("user", "Q:3")))
        (stream,) = ConversationEncoder(tokenizer).streams(turns)
        return render_turns(tokenizer, [{"role": "user", "content": "Q:3"}]), ids, stream.token_ids.tolist()


def test_a_template_that_asks_the_clock_is_told_the_same_day(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = DATED
    text, ids, trained = at(datetime(2025, 1, 31, 23, 59), tokenizer)
    assert (text, ids, trained) == at(datetime(2025, 2, 1, 0, 1), tokenizer)
    assert text == "26 Jul 2024<|user|>Q:3<|assistant|>26,07,2024>"
    assert tokenizer.decode(ids).endswith("<|assistant|>26,07,2024>")
    assert trained[: len(ids)] == ids


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n", "  ", "  {% if true %}\n-{% endif %}", "\n  {%- if true %} -{% endif %}\n"]
)
def test_nothing_else_of_the_template_changes(tokenizer: PreTrainedTokenizerFast, start: str) -> None:
    formats = "%a %A %d %m %b %B %y %Y %H:%M:%S"
    tokenizer.chat_template = f"{start}{{{{ strftime_now('{formats}') }}}}{{{{ messages[0]['content'] }}}}"
    turns = [{"role": "user", "content": "Q:3"}]
    with patch("transformers.utils.chat_template_utils.datetime", Mock(now=lambda: datetime(2024, 7, 26))):
        plain = tokenizer.apply_chat_template(turns, tokenize=False)
    assert render_turns(tokenizer, turns) == plain


def test_what_a_template_refuses_is_said_with_the_problem(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system prompt, please') }}"
    with pytest.raises(PromptError, match=r"problem p1: the chat template refuses .*: no system prompt, please"):
        encode_prompt(tokenizer, problem(("system", "check "), ("user", "Q:3")))

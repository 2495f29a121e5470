"""Problems to token ids.

Why this matters: a prompt that starts one token off (no <bos>, a second <bos>, a lost prefill) moves every log-prob and
costs accuracy without a trace.

Not exercised here: templates of published models; the texts of the tasks (tests/tasks).
"""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from r1kit.models.chat import encode_prompt, stop_token_ids
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

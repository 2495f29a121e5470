"""Conversations to marked token streams: exactly what the model will see and say, and nothing else is learned.

Why this matters: a span that is one token off trains the prompt, or never trains the end of the turn, and the model
babbles. A template that drops thoughts trains a model that does not think. Neither shows in the loss.

Not exercised here: reading files (tests/tasks/test_traces.py); templates of models that are not in the shared data
beyond the two imitated below.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from r1kit.config.data import DataSettings
from r1kit.models.chat import PromptError, encode_prompt
from r1kit.models.chat_templates import set_chat_template
from r1kit.models.conversation import ANSWER, CONTEXT, THOUGHT, ConversationEncoder, TokenStream, end_of_turn, render
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.models.vocabulary import add_tokens
from r1kit.records import Message, Problem
from r1kit.tasks.thinking import STYLES
from r1kit.tasks.traces import read_traces

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
QWEN = DATA / "tokenizer_qwen2.5"

USER, SAY = Message("user", "What is 2+2?"), Message("assistant", "It is 4.", "Two and two.")
TWO_TURNS = (USER, SAY, Message("user", "And 3+3?"), Message("assistant", "6", "Three twice."))

# As Qwen3's: an assistant's thought stands only behind the last question.
DROPS_EARLIER = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m['role'] == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set text = m['content'] %}"
    "{%- if m['role'] == 'assistant' and loop.index0 < ns.last and '</think>' in text %}"
    "{%- set text = text.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m['role'] + '\\n' + text + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.fixture(scope="module")
def qwen_files() -> PreTrainedTokenizerBase:
    if not (QWEN / "tokenizer.json").is_file():
        pytest.skip("no tokenizer_qwen2.5: set R1KIT_DATA to a folder that holds it")
    return AutoTokenizer.from_pretrained(QWEN)


@pytest.fixture
def qwen(qwen_files: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The real Qwen2.5 tokenizer with its own template."""
    qwen_files.chat_template = json.loads((QWEN / "tokenizer_config.json").read_text())["chat_template"]
    return qwen_files


@pytest.fixture
def qwq(qwen: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """QwQ's template: it opens the thought itself and drops the thoughts of earlier turns."""
    qwen.chat_template = json.loads((QWEN / "tokenizer_config_qwq.json").read_text())["chat_template"]
    return qwen


def pieces(tokenizer: PreTrainedTokenizerBase, stream: TokenStream) -> list[tuple[int, str]]:
    """Runs of one part with their text."""
    cuts = np.flatnonzero(np.diff(stream.parts)) + 1
    spans = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    return [(int(stream.parts[a]), tokenizer.decode(stream.token_ids[a:b].tolist())) for a, b in spans]


def test_thought_answer_and_end_of_turn_are_learned(qwen: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwen).streams([Message("system", "Be brief."), USER, SAY])
    prompt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert pieces(qwen, stream) == [
        (CONTEXT, prompt),
        (THOUGHT, "<think>\nTwo and two.\n</think>\n\n"),
        (ANSWER, "It is 4.<|im_end|>"),
    ]
    assert stream.trained == len(qwen.encode("<think>\nTwo and two.\n</think>\n\nIt is 4.<|im_end|>"))


def test_a_thought_that_repeats_its_delimiter_is_marked_to_its_end(qwen: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwen).streams([USER, Message("assistant", "4", "think")])
    assert pieces(qwen, stream)[1:] == [(THOUGHT, "<think>\nthink\n</think>\n\n"), (ANSWER, "4<|im_end|>")]


def test_turns_that_go_on_from_each_other_share_one_stream_equal_to_the_whole(qwen: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwen).streams(TWO_TURNS)
    whole = render(qwen, TWO_TURNS, "think", open_turn=False).removesuffix("\n")
    assert stream.token_ids.tolist() == qwen.encode(whole, add_special_tokens=False)
    assert [part for part, _ in pieces(qwen, stream)] == [CONTEXT, THOUGHT, ANSWER] * 2


def test_a_template_that_opens_and_drops_thoughts_is_trained_as_it_is_sampled(qwq: PreTrainedTokenizerBase) -> None:
    first, second = ConversationEncoder(qwq).streams(TWO_TURNS)
    assert pieces(qwq, first)[1:] == [(THOUGHT, "Two and two.\n</think>\n\n"), (ANSWER, "It is 4.<|im_end|>")]
    assert pieces(qwq, first)[0][1].endswith("<|im_start|>assistant\n<think>\n")
    context = pieces(qwq, second)[0][1]
    assert "It is 4." in context
    assert "Two and two." not in context
    assert pieces(qwq, second)[1:] == [(THOUGHT, "Three twice.\n</think>\n\n"), (ANSWER, "6<|im_end|>")]


def test_a_turn_without_thought_closes_the_opened_one(qwq: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwq).streams([USER, Message("assistant", "4")])
    assert pieces(qwq, stream)[1:] == [(THOUGHT, "</think>\n\n"), (ANSWER, "4<|im_end|>")]


def test_a_template_that_changes_earlier_turns_gives_a_stream_for_each(qwen: PreTrainedTokenizerBase) -> None:
    qwen.chat_template = DROPS_EARLIER
    first, second = ConversationEncoder(qwen).streams(TWO_TURNS)
    assert [text for part, text in pieces(qwen, first) if part == THOUGHT] == ["<think>\nTwo and two.\n</think>\n\n"]
    assert "Two and two." not in qwen.decode(second.token_ids.tolist())
    assert second.token_ids.tolist() == qwen.encode(
        render(qwen, TWO_TURNS, "think", open_turn=False).removesuffix("\n"), add_special_tokens=False
    )


def test_the_prompt_is_that_of_sampling(qwq: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwq).streams([USER, SAY])
    sampled = encode_prompt(qwq, Problem("p", (USER,), "math", {}))
    assert stream.token_ids[: len(sampled)].tolist() == sampled
    assert not stream.parts[: len(sampled)].any()
    assert stream.parts[len(sampled) :].all()


@pytest.mark.parametrize(
    ("style", "thought", "answer"),
    [
        ("s1", "<|im_start|>think\nTwo and two.\n<|im_start|>answer", "\nIt is 4.<|im_end|>"),
        (
            "sky_t1",
            "<|begin_of_thought|>\n\nTwo and two.\n\n<|end_of_thought|>\n\n",
            "<|begin_of_solution|>\n\nIt is 4.\n\n<|end_of_solution|><|im_end|>",
        ),
        ("think_answer", "<think>\nTwo and two.\n</think>\n", "<answer>\nIt is 4.\n</answer><|im_end|>"),
        ("drop", "", "It is 4.<|im_end|>"),
    ],
)
def test_every_style_of_thought(qwen: PreTrainedTokenizerBase, style: str, thought: str, answer: str) -> None:
    (stream,) = ConversationEncoder(qwen, style).streams([USER, SAY])
    assert pieces(qwen, stream)[1:] == [(p, t) for p, t in [(THOUGHT, thought), (ANSWER, answer)] if t]


def test_a_style_that_the_template_contradicts_is_refused(qwq: PreTrainedTokenizerBase) -> None:
    with pytest.raises(PromptError, match="opens <think> itself, but thinking is 's1'"):
        ConversationEncoder(qwq, "s1").streams([USER, SAY])


def test_light_r1s_opened_thought_and_plain_chatml(qwen: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    set_chat_template(qwen, "chatml_think")
    (stream,) = ConversationEncoder(qwen).streams([USER, SAY])
    assert pieces(qwen, stream)[0][1].endswith("<|im_start|>assistant\n<think>\n")
    (tmp_path / "own.jinja").write_text("{{ messages[0]['content'] }}<|im_end|>")
    set_chat_template(qwen, str(tmp_path / "own.jinja"))
    assert render(qwen, [USER], "think") == "What is 2+2?<|im_end|>"
    with pytest.raises(PromptError, match="chat_template is 'chatlm': expected chatml"):
        set_chat_template(qwen, "chatlm")


def test_only_the_last_turn_where_asked(qwen: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwen).streams(TWO_TURNS, last_only=True)
    assert [part for part, _ in pieces(qwen, stream)] == [CONTEXT, THOUGHT, ANSWER]
    assert pieces(qwen, stream)[-1][1] == "6<|im_end|>"


def test_a_base_models_text_stands_behind_bos_and_ends_with_eos() -> None:
    tokenizer = build_tiny_tokenizer()
    said = "<think>3+5=8 yes</think><answer>3+5</answer>"
    (stream,) = ConversationEncoder(tokenizer, "drop").streams(
        [Message("text", "Q:3,5>8\n"), Message("assistant", said)]
    )
    assert pieces(tokenizer, stream) == [(CONTEXT, "<bos>Q:3,5>8\n"), (ANSWER, said + "<eos>")]


def test_the_end_of_a_turn_is_the_templates_not_the_tokenizers(qwen: PreTrainedTokenizerBase) -> None:
    qwen.eos_token = "<|endoftext|>"  # as in the base models
    assert end_of_turn(qwen) == "<|im_end|>"
    qwen.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert end_of_turn(qwen) == "<|endoftext|>"
    qwen.eos_token = "<|im_end|>"


@pytest.mark.parametrize("style", STYLES)
def test_every_styles_delimiters_as_text_and_as_tokens(style: str, qwen_files: PreTrainedTokenizerBase) -> None:
    """Qwen2.5 spells them with ordinary tokens, s1's but for their first part; ChatML's tokens are there always."""
    chatml = {"<|im_start|>", "<|im_end|>"}
    tokenizer = AutoTokenizer.from_pretrained(QWEN)
    before = ConversationEncoder(tokenizer, style)
    assert set(tokenizer.convert_ids_to_tokens(list(before.control_tokens()))) == chatml
    (as_text,) = before.streams([USER, SAY])
    added = add_tokens(tokenizer, STYLES[style].tokens)
    assert added == [token for token in STYLES[style].tokens if token not in chatml]
    after = ConversationEncoder(tokenizer, style)
    assert set(tokenizer.convert_ids_to_tokens(list(after.control_tokens()))) == chatml | {*STYLES[style].tokens}
    (as_tokens,) = after.streams([USER, SAY])
    assert tokenizer.decode(as_tokens.token_ids.tolist()) == tokenizer.decode(as_text.token_ids.tolist())
    first = as_tokens.token_ids[as_tokens.parts == THOUGHT][0]
    assert tokenizer.convert_ids_to_tokens(int(first)) == STYLES[style].tokens[0]


def test_the_tokens_of_a_template_do_not_need_a_chat() -> None:
    """A base model's prompt is bare text: its start, the tags it has as tokens, its end."""
    tiny = build_tiny_tokenizer()
    tiny.chat_template = None
    found = tiny.convert_ids_to_tokens(sorted(ConversationEncoder(tiny).control_tokens()))
    assert found == ["<bos>", "<eos>", "<think>", "</think>"]


def test_no_template_and_a_template_that_refuses(qwen: PreTrainedTokenizerBase) -> None:
    qwen.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(PromptError, match="refuses this conversation: no system role"):
        render(qwen, [USER], "think")
    qwen.chat_template = None
    with pytest.raises(PromptError, match=r"no chat template.*chatml"):
        ConversationEncoder(qwen).streams([USER, SAY])


def test_a_cut_stream_ends_with_a_learned_token(qwen: PreTrainedTokenizerBase) -> None:
    (stream,) = ConversationEncoder(qwen).streams(TWO_TURNS)
    second = int(np.flatnonzero(np.diff(stream.parts))[2]) + 3
    cut = stream.cut(second)
    assert cut.parts[-1] == ANSWER
    assert len(cut) < second
    assert len(stream.cut(5)) == 0


@pytest.mark.parametrize("name", ["cot_r1distill_math/traces.jsonl.gz", "cot_star1_safety/train.jsonl.gz"])
def test_real_traces_are_encoded_as_the_whole_text_would_be(name: str, qwen: PreTrainedTokenizerBase) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"no {name}: set R1KIT_DATA to a folder that holds it")
    encoder = ConversationEncoder(qwen)
    for trace in islice(read_traces(DataSettings(path=str(DATA / name), bad_rows="skip")), 12):
        (stream,) = encoder.streams(trace.messages)
        whole = render(qwen, trace.messages, "think", open_turn=False).removesuffix("\n")
        assert qwen.decode(stream.token_ids.tolist()) == whole
        assert stream.token_ids.tolist() == qwen.encode(whole, add_special_tokens=False)
        learned = qwen.decode(stream.token_ids[stream.parts != CONTEXT].tolist())
        assert learned == f"<think>\n{trace.response.reasoning}\n</think>\n\n{trace.response.content}<|im_end|>"

"""Why this matters: the tiny bases read and write only through this tokenizer; a text that does not survive
it, or a number that falls apart, silently changes the task. Exercised: round trips, single tokens, saving
and loading through plain Transformers, the chat template, the fast corpus encoder against the tokenizer
itself.

Not exercised: text outside printable ASCII beyond its mapping to <unk>.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r1kit.models.tiny_tokenizer import build_tiny_tokenizer, corpus_encoder, vocabulary

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F)) + "\n"
TRACE = "<think>(3+6)-5=9-5=4?13 no\nwait (4*4)-3=16-3=13?13 yes\ncheck 4</think><answer>(4*4)-3</answer>"
PIECES = st.sampled_from(["<think>", "</answer>", " no\n", " yes", "wait ", "A:", "07", "10", "100", "<eos>"])

# Hypothesis does not mix with fixtures.
TOKENIZER = build_tiny_tokenizer()
ENCODE = corpus_encoder()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


def test_an_attempt_is_sixteen_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("(3+6)-5=9-5=4?13 no\n")
    assert len(ids) == 16
    assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["?", "13", " no\n"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("0", ["0"]),
        ("99", ["99"]),
        ("100", ["1", "0", "0"]),
        ("07", ["0", "7"]),
        ("12*34=408", ["12", "*", "34", "=", "4", "0", "8"]),
        (" no", [" ", "n", "o"]),
        (" yes</think>", [" yes", "</think>"]),
        ("Q:3,5,6>13\n", ["Q:", "3", ",", "5", ",", "6", ">", "13", "\n"]),
    ],
)
def test_pieces(tokenizer: PreTrainedTokenizerFast, text: str, tokens: list[str]) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) == tokens


@given(st.text(alphabet=PRINTABLE, max_size=60))
def test_printable_ascii_survives_a_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(PIECES | st.text(alphabet=PRINTABLE + "é\t", max_size=5), max_size=12).map("".join))
def test_corpus_encoder_equals_the_tokenizer(text: str) -> None:
    assert ENCODE(text) == TOKENIZER.encode(text)


def test_other_characters_are_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("aé\t٣")) == ["a", "<unk>", "<unk>", "<unk>"]


def test_nothing_is_added_and_tags_are_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(TRACE)
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == TRACE


def test_vocabulary_is_small_and_stable(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = vocabulary()
    assert len(tokenizer) == len(ids) == 203
    # Checkpoints hold these ids: moving one breaks every saved model.
    assert [ids[t] for t in ("<pad>", "<bos>", "<eos>", "<unk>", "<think>", " no\n", "0", "99")] == [
        *(0, 1, 2, 3, 7, 11, 33, 202),
    ]


def test_loads_in_plain_transformers(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode(TRACE) == tokenizer.encode(TRACE)
    assert loaded.decode(loaded.encode(TRACE)) == TRACE
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert loaded.chat_template == tokenizer.chat_template


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Q:1,2,3>6\n"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<bos><|system|>be brief<|user|>Q:1,2,3>6\n<|assistant|>"
    done = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "A:6"}], tokenize=False)
    assert str(done).endswith("<|assistant|>A:6<eos>")

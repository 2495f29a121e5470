"""Tokens a recipe adds, the token that ends a turn, and rows that were never trained.

Why this matters: a new row that is random or zero dominates, or never enters, the softmax; a model whose eos is not the
token it was taught to end with never stops. Both are common after fine-tuning a base model on conversations.

Not exercised here: real checkpoints, of which there is none on a test machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1kit.config.tasks import CountdownSettings
from r1kit.models.chat import control_tokens
from r1kit.models.chat_templates import CHATML_TOKENS
from r1kit.models.checkpoint import CheckpointError, read_config
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.models.vocabulary import add_tokens, fit_vocabulary, set_end_of_turn, untrained_tokens
from r1kit.records import Message, Problem
from r1kit.tasks import make_task

from .families import random_model, saved

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
    "model_type": "llama",
    "max_positions": 32,
}


def decoder(rows: int, *, tied: bool = True) -> Decoder:
    model = Decoder(DecoderConfig(vocab_size=rows, tie_embeddings=tied, **SIZES))
    initialise(model, 0, std=0.3)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 40])
def test_new_tokens_start_from_the_mean_of_the_rows_in_use(tied: bool, spare: int, tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    used = len(tokenizer)
    model = decoder(used + spare, tied=tied)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # One is there already, so two are added.
    added = add_tokens(tokenizer, ("<tool>", "<think>", "</tool>", "<tool>"))
    assert added == ["<tool>", "</tool>"]
    fit_vocabulary(model, tokenizer, added)
    assert model.head_weight.shape[0] == model.config.vocab_size == max(used + spare, used + 2)
    for name in ("embedding",) if tied else ("embedding", "head"):
        now = getattr(model, name)
        assert torch.equal(now[:used], before[name][:used])
        torch.testing.assert_close(now[used : used + 2], before[name][:used].mean(0).expand(2, -1))
    write_model(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.get_input_embeddings().weight.shape[0] == model.config.vocab_size
    again = load_tokenizer(tmp_path)
    assert again.encode("<tool>", add_special_tokens=False) == [used]
    assert again.decode([used], skip_special_tokens=True) == "<tool>"


def test_a_foreign_architecture_grows_too(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    used = len(tokenizer)
    saved(random_model("olmo2", vocab_size=used), tmp_path)
    model = load_model(tmp_path)
    fit_vocabulary(model, tokenizer, add_tokens(tokenizer, ("<tool>",)))
    assert model.head_weight.shape[0] == model.config.vocab_size == used + 1
    torch.testing.assert_close(model.head_weight[used], model.head_weight[:used].mean(0))


def test_a_tokenizer_of_another_model_is_refused() -> None:
    tokenizer = build_tiny_tokenizer()
    with pytest.raises(
        CheckpointError, match=f"the tokenizer has {len(tokenizer)} tokens, the model's embedding 50 rows"
    ):
        fit_vocabulary(decoder(50), tokenizer, [])


def test_the_end_of_a_turn_reaches_every_file(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    model = decoder(len(tokenizer))
    assert not set_end_of_turn(model, tokenizer, "<eos>")
    assert set_end_of_turn(model, tokenizer, "<|user|>")
    write_model(model, tokenizer, tmp_path)
    want = tokenizer.convert_tokens_to_ids("<|user|>")
    assert read_config(tmp_path)["eos_token_id"] == want
    assert load_tokenizer(tmp_path).eos_token_id == want
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == want


def test_rows_that_look_untrained_are_found() -> None:
    tokenizer = build_tiny_tokenizer()
    used = len(tokenizer)
    model = decoder(used + 20)
    with torch.no_grad():
        model.embedding[used:] = torch.full((16,), 0.2)
        model.embedding[5] = 0.21  # as the rows that no token uses
        model.embedding[6] *= 0.05  # as small as when it was made
    assert untrained_tokens(model, tokenizer, range(used)) == [5, 6]
    # Without spare rows only the size can tell.
    assert untrained_tokens(_without_spare(model, used), tokenizer, [4, 5, 6]) == [6]


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_look_untrained_until_they_were_trained(tied: bool) -> None:
    tokenizer = build_tiny_tokenizer()
    model = decoder(len(tokenizer), tied=tied)
    fit_vocabulary(model, tokenizer, add_tokens(tokenizer, ("<tool>", "</tool>")))
    new = tokenizer.convert_tokens_to_ids(["<tool>", "</tool>"])
    assert untrained_tokens(model, tokenizer, range(len(tokenizer))) == new
    with torch.no_grad():
        model.head_weight[new] = 0.3 * torch.randn(2, 16)
    # A row that is written well may still be read badly: where they are two matrices, both count.
    assert untrained_tokens(model, tokenizer, new) == ([] if tied else new)


TEMPLATES = {"compact": set(), "r1_zero": {"<think>", "</think>", "<answer>", "</answer>"}}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_says_which_tokens_it_and_its_answers_take(template: str) -> None:
    """R1-Zero's names its tags in prose; the compact one names none."""
    tokenizer = build_tiny_tokenizer()
    problem = make_task(CountdownSettings(template=template, high=6)).problems("train")[0]
    found = tokenizer.convert_ids_to_tokens(sorted(control_tokens(tokenizer, problem)))
    assert set(found) - TEMPLATES[template] == {"<bos>", "<eos>"} | ({"<unk>"} & set(found))
    assert set(found) >= TEMPLATES[template]


def test_an_open_thought_asks_for_its_end() -> None:
    """Of s1's delimiters the tokenizer has the first part as a token, once ChatML's are added."""
    tokenizer = build_tiny_tokenizer()
    add_tokens(tokenizer, CHATML_TOKENS)
    for prefill, wanted in {"<think>\n": {"<think>", "</think>"}, "<|im_start|>think\n": {"<|im_start|>"}}.items():
        problem = Problem("p", (Message("user", "Q"),), "countdown", {}, prefill=prefill)
        found = tokenizer.convert_ids_to_tokens(sorted(control_tokens(tokenizer, problem)))
        assert set(found) >= {*wanted, "<|user|>", "<|assistant|>", "<eos>"}


def _without_spare(model: Decoder, rows: int) -> Decoder:
    small = decoder(rows)
    with torch.no_grad():
        small.embedding.copy_(model.embedding[:rows])
    return small

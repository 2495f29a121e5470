"""Is a tokenizer the model's own? By its fingerprint where r1kit wrote the checkpoint, by evidence where another did.

Why this matters: ids that mean something else raise no error. Training goes on, the loss falls, and days later the
model speaks nonsense. A refusal without reason is as bad: a padded vocabulary, an added token, a file written by
another version of a library and a model that was never trained have to pass.

Not exercised here: large models (models/own_tokenizer.py says what one loses through foreign tokenizers); that every
stage asks (tests/training/test_damage.py, test_rl.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError, write_decoder
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.own_tokenizer import FINGERPRINT, PLAIN, doubtful_end, fingerprint, never_trained
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.models.vocabulary import add_tokens, differing_tokens

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
QWEN = DATA / "tokenizer_qwen2.5"
TOKENS, SPARE = 420, 12
# English as well, other words before others.
OTHER = ("The kettle is on the shelf and the milk is in the fridge, said the mother of the baker.",) * 3 + PLAIN


def bpe(texts: tuple[str, ...], size: int = TOKENS) -> PreTrainedTokenizerBase:
    """A byte-level BPE as the models of the field have it, made of a few sentences; <end> ends a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")


def decoder(rows: int = TOKENS + SPARE, **changes: Any) -> Decoder:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16}
    sizes |= {"intermediate_size": 64, "model_type": "llama", "max_positions": 64, "eos_token_id": 0}
    model = Decoder(DecoderConfig(vocab_size=rows, tie_embeddings=True, **{**sizes, **changes}))
    initialise(model, 0)
    return model


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows English and was written by another program: trained, and without a fingerprint."""
    directory = tmp_path_factory.mktemp("foreign")
    tokenizer, model = bpe(PLAIN), decoder()
    texts = [tokenizer.encode(text) for text in PLAIN]
    segments = [Segment(1, len(ids) - 1) for ids in texts]
    inputs, targets = (torch.tensor([i for t in texts for i in t[cut]]) for cut in (slice(0, -1), slice(1, None)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        hidden = model(inputs, positions(segments), packed_attention(segments))
        loss = torch.nn.functional.cross_entropy(model.logits(hidden), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    write_decoder(model, directory)
    tokenizer.save_pretrained(directory)
    return directory


def edited(source: Path, target: Path, edit: Callable[[dict[str, Any]], None], **form: Any) -> Path:
    """A copy of a checkpoint with another tokenizer.json."""
    shutil.copytree(source, target)
    raw = json.loads((target / "tokenizer.json").read_text())
    edit(raw)
    (target / "tokenizer.json").write_text(json.dumps(raw, **form))
    return target


def swap(raw: dict[str, Any], one: str, other: str) -> None:
    vocabulary = raw["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def permute(raw: dict[str, Any]) -> None:
    """Every token has the id of another; special ones stay."""
    vocabulary = raw["model"]["vocab"]
    names = [name for name in vocabulary if name != "<end>"]
    turned = [vocabulary[name] for name in [*names[97:], *names[:97]]]
    vocabulary.update(zip(names, turned, strict=True))


def swap_merges(raw: dict[str, Any]) -> None:
    merges = raw["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


# -- fingerprints


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that r1kit wrote."""
    directory = tmp_path_factory.mktemp("own")
    write_model(decoder(), bpe(PLAIN), directory)
    return directory


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "two ids swapped": (lambda raw: swap(raw, "a", "b"), "of its 420 tokens some have other texts or other ids"),
    "all permuted": (permute, "some have other texts or other ids"),
    "merges in another order": (swap_merges, "the same tokens, but cuts texts into them by other rules"),
    "another pre-tokeniser": (lambda raw: raw["pre_tokenizer"].update(add_prefix_space=True), "by other rules"),
    "a normaliser": (lambda raw: raw.update(normalizer={"type": "Lowercase"}), "by other rules"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tokenizer_that_was_changed_behind_the_weights_is_refused(case: str, own: Path, tmp_path: Path) -> None:
    edit, how = WRONG[case]
    path = edited(own, tmp_path / "model", edit)
    with pytest.raises(CheckpointError, match=how) as error:
        load_tokenizer(path)
    assert str(error.value).startswith(f"{path / FINGERPRINT}: the weights beside it were not trained with")
    assert "Put tokenizer.json and tokenizer_config.json of this checkpoint back" in str(error.value)


@pytest.mark.parametrize(("size", "how"), [(300, "it has 300 tokens, theirs had 420"), (TOKENS, "other texts")])
def test_the_tokenizer_of_another_model_is_refused_whatever_its_size(
    size: int, how: str, own: Path, tmp_path: Path
) -> None:
    shutil.copytree(own, tmp_path / "model")
    bpe(OTHER, size).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=how):
        load_tokenizer(tmp_path / "model")
    # What the message says about the case that it was meant.
    (tmp_path / "model" / FINGERPRINT).unlink()
    assert len(load_tokenizer(tmp_path / "model")) <= TOKENS


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": 3}'])
def test_a_damaged_fingerprint_is_named(content: str, own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "model")
    (tmp_path / "model" / FINGERPRINT).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{FINGERPRINT}: damaged"):
        load_tokenizer(tmp_path / "model")


def spell_otherwise(raw: dict[str, Any]) -> None:
    """As older versions of the library wrote the same tokenizer."""
    raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    raw["model"] = dict(reversed(raw["model"].items()))


def test_the_spelling_of_the_files_does_not_matter(own: Path, tmp_path: Path) -> None:
    path = edited(own, tmp_path / "model", spell_otherwise, indent=3, ensure_ascii=True)
    assert (path / "tokenizer.json").read_bytes() != (own / "tokenizer.json").read_bytes()
    assert fingerprint(load_tokenizer(path)) == fingerprint(load_tokenizer(own))


def test_what_may_change_with_a_stage_does_not_matter() -> None:
    tokenizer = bpe(PLAIN)
    before = fingerprint(tokenizer)
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.padding_side = "{{ messages }}", "a", "left"
    assert fingerprint(tokenizer) == before
    add_tokens(tokenizer, ("<think>",))
    assert fingerprint(tokenizer) != before


def test_written_tokenizers_are_found_again(tmp_path: Path) -> None:
    for name, tokenizer in {"tiny": build_tiny_tokenizer(), "bpe": bpe(PLAIN)}.items():
        add_tokens(tokenizer, ("<think>", "<tool>"))
        write_model(decoder(), tokenizer, tmp_path / name)
        assert fingerprint(load_tokenizer(tmp_path / name)) == fingerprint(tokenizer)


def test_qwens_tokenizer_is_found_again_with_and_without_new_tokens(tmp_path: Path) -> None:
    if not (QWEN / "tokenizer.json").is_file():
        pytest.skip("no tokenizer_qwen2.5: set R1KIT_DATA to a folder that holds it")
    tokenizer = AutoTokenizer.from_pretrained(QWEN)
    plain = fingerprint(tokenizer)
    assert plain["tokens"] == 151665
    assert add_tokens(tokenizer, ("<think>", "</think>", "<|im_start|>")) == ["<think>", "</think>"]
    write_model(decoder(151936, hidden_size=8, head_dim=4, intermediate_size=8), tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).encode("<think>") == [151665]
    assert load_model(tmp_path, tokenizer=tokenizer).config.vocab_size == 151936  # spare rows are no reason
    edited(tmp_path, tmp_path / "swapped", lambda raw: swap(raw, "Ġthe", "Ġof"))
    with pytest.raises(CheckpointError, match="of its 151667 tokens some have other texts or other ids"):
        load_tokenizer(tmp_path / "swapped")


def test_equal_words_cut_by_other_rules_are_another_tokenizer(own: Path, tmp_path: Path) -> None:
    one = load_tokenizer(own)
    (edited(own, tmp_path / "model", swap_merges) / FINGERPRINT).unlink()
    assert differing_tokens(one, load_tokenizer(own)) == ""
    assert "cut texts into them by other rules" in differing_tokens(one, load_tokenizer(tmp_path / "model"))


# -- checkpoints of others


def test_a_foreign_checkpoint_with_its_own_tokenizer_passes(foreign: Path, tmp_path: Path) -> None:
    """Rows beyond the tokenizer are padding; new tokens take them, or rows that are still to be made."""
    tokenizer = load_tokenizer(foreign)
    model = load_model(foreign, tokenizer=tokenizer)
    assert not never_trained(model)
    assert model.config.vocab_size == len(tokenizer) + SPARE
    write_model(model, tokenizer, tmp_path)  # what r1kit then writes is compared by its fingerprint
    assert (tmp_path / FINGERPRINT).is_file()
    load_model(tmp_path, tokenizer=load_tokenizer(tmp_path))


def test_a_foreign_checkpoint_with_permuted_ids_is_refused(foreign: Path, tmp_path: Path) -> None:
    path = edited(foreign, tmp_path / "model", permute)
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json is not this model's: through it plain English"
    ) as error:
        load_model(path, tokenizer=load_tokenizer(path))
    assert "Copy the files of its own tokenizer beside the weights" in str(error.value)


@pytest.mark.parametrize("size", [TOKENS, 380])
def test_a_foreign_checkpoint_with_the_tokenizer_of_another_model_is_refused(size: int, foreign: Path) -> None:
    other = bpe(OTHER, size)
    assert len(other) == size
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not this model's"):
        load_model(foreign, tokenizer=other)


def test_a_configuration_that_ends_texts_with_an_unknown_token_gives_the_tokenizer_away(
    foreign: Path, tmp_path: Path
) -> None:
    shutil.copytree(foreign, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, TOKENS + 3]}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id is 423, but .* 420 tokens"):
        load_model(tmp_path / "model", tokenizer=load_tokenizer(foreign))
    # Padding may lie in spare rows, and a configuration may name rows that the model has not.
    (tmp_path / "model" / "generation_config.json").write_text(
        json.dumps({"pad_token_id": TOKENS + 3, "eos_token_id": TOKENS + SPARE, "bos_token_id": None})
    )
    load_model(tmp_path / "model", tokenizer=load_tokenizer(foreign))


def test_a_model_that_was_never_trained_takes_any_tokenizer_that_fits(tmp_path: Path) -> None:
    """Sizes of a published model, weights from a seed: there is nothing in it that another tokenizer could spoil."""
    model = decoder(eos_token_id=TOKENS + 3)
    assert never_trained(model)
    write_decoder(model, tmp_path)
    load_model(tmp_path, tokenizer=bpe(PLAIN, 300))
    with pytest.raises(CheckpointError, match="the tokenizer has 440 tokens, the model's embedding 432 rows"):
        load_model(tmp_path, tokenizer=bpe((*PLAIN, *(text.upper() for text in PLAIN)), 440))


def test_a_model_without_gains_and_biases_is_taken_for_trained() -> None:
    assert not never_trained(torch.nn.Linear(3, 3, bias=False))
    assert not never_trained(torch.nn.Linear(3, 3))
    assert never_trained(torch.nn.LayerNorm(3))


def test_a_tokenizer_that_is_not_made_of_english_is_not_judged_by_english(foreign: Path) -> None:
    """As those of tiny models, of proteins or of chess: one letter, one token."""
    load_model(foreign, tokenizer=build_tiny_tokenizer())


def test_an_end_that_is_an_ordinary_word_is_doubtful(foreign: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(foreign)
    assert doubtful_end(tokenizer, foreign) is None
    shutil.copytree(foreign, tmp_path / "model")
    word = tokenizer.convert_ids_to_tokens(300)
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": 300}))
    found = doubtful_end(tokenizer, tmp_path / "model")
    assert found is not None
    assert f"ends a text with token 300, in this tokenizer the ordinary {word!r} (its own end is <end>)" in found

"""Tokens that a recipe adds to a tokenizer, and rows of the embedding that were never trained.

A new token starts from the mean of the rows in use (Hewitt 2021, "Initializing New Word Embeddings for Pretrained
Language Models"): a random row can dominate the softmax of every position until it has been trained down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from r1kit.models.chat import control_tokens
from r1kit.models.decoder import Decoder
from r1kit.models.loading import LanguageModel
from r1kit.models.own_tokenizer import doubtful_end, fingerprint, require_rows
from r1kit.records import Problem

# A row shorter than this share of the median row, or this near (cosine) to the rows that no token uses, is taken for
# untrained (after Land & Bartolo 2024, arXiv 2405.05417, whose indicators these are; the thresholds are ours).
SHORT, NEAR = 0.4, 0.9
# And so is one whose distance from the mean of the rows is less than this share of the usual one: there new rows start,
# here and in Transformers. The least of SmolLM2's 49,152 trained rows is 0.73.
CLOSE = 0.3
# Fewer unused rows than this say nothing.
MIN_SPARE = 8


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[str]:
    """Make each text one token; those that were added, in order. A text that is one token already stays as it is."""
    missing = [t for t in dict.fromkeys(tokens) if len(tokenizer.encode(t, add_special_tokens=False)) != 1]
    # Not special: decoding for a verifier skips special tokens and would lose the delimiters.
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in missing])
    return missing


def differing_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str:
    """In words, how two tokenizers make other ids of a text; "" where they do not."""
    unlike = sorted({token for token, _ in one.get_vocab().items() ^ other.get_vocab().items()})
    if unlike:
        return f"{len(unlike)} tokens differ, such as {', '.join(map(repr, unlike[:4]))}"
    same = fingerprint(one) == fingerprint(other)
    return "" if same else "they have the same tokens, but cut texts into them by other rules"


@torch.no_grad()
def fit_vocabulary(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, added: Sequence[str]) -> None:
    """Give the tokens `added` rows of their own, at the mean of the rows in use; spare rows are taken before new ones.

    CheckpointError where the tokenizer's other tokens do not fit the model: it is not this model's tokenizer.
    """
    ids = sorted(tokenizer.get_vocab()[token] for token in added)
    require_rows(model, tokenizer, len(ids))
    used, rows = len(tokenizer) - len(ids), model.head_weight.shape[0]
    if not ids:
        return
    if ids[-1] >= rows:
        _resize(model, ids[-1] + 1)
    for weight in _vocabulary_weights(model):
        weight[ids] = weight[:used].float().mean(dim=0).to(weight.dtype)


def set_end_of_turn(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Let `token` end a response everywhere: tokenizer, config.json, generation_config.json. True where it did not.

    Qwen2.5 and its kin call <|endoftext|> their eos while chat turns end with <|im_end|>: a model trained on turns
    then samples on and on.
    """
    if tokenizer.eos_token == token:
        return False
    tokenizer.eos_token = token
    config = getattr(model, "config", None)
    if isinstance(model, Decoder):
        model.config = replace(model.config, eos_token_id=tokenizer.eos_token_id)
    elif config is not None:
        model.inner.config.eos_token_id = tokenizer.eos_token_id
    return True


def sampling_warnings(
    model: Any, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], directory: Path
) -> list[str]:
    """`token_warnings` of a task's prompts and answers; its problems share a template, so one stands for all."""
    return token_warnings(model, tokenizer, control_tokens(tokenizer, problems[0]), directory) if problems else []


def token_warnings(model: Any, tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], directory: Path) -> list[str]:
    """What a person should know of the special tokens `ids` before the model of `directory` reads and writes them."""
    lines = [warning for warning in [doubtful_end(tokenizer, directory)] if warning]
    if bare := untrained_tokens(model, tokenizer, ids):
        lines.append(
            f"warning: the embeddings of {' '.join(map(str, tokenizer.convert_ids_to_tokens(bare)))} look untrained: "
            "the model can neither read nor write them until it has seen many (start from a model that was trained "
            "with them, fine-tune it on traces that hold them first, or use another template)"
        )
    return lines


@torch.no_grad()
def untrained_tokens(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[int]:
    """Those of `ids` whose row of the embedding or of the output matrix looks as if it had never been trained."""
    found: set[int] = set()
    for weight in _vocabulary_weights(model):
        used = len(tokenizer)
        mean = weight[:used].mean(dim=0, dtype=torch.float32)
        norms = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)
        apart = torch.linalg.vector_norm(weight - mean.to(weight.dtype), dim=1, dtype=torch.float32)
        short, close = SHORT * norms[:used].median(), CLOSE * apart[:used].median()
        spare = weight[used:].mean(dim=0, dtype=torch.float32) if weight.shape[0] - used >= MIN_SPARE else None
        for i in set(ids):
            near = spare is not None and float(torch.cosine_similarity(weight[i].float(), spare, dim=0)) > NEAR
            if near or bool(norms[i] < short) or bool(apart[i] < close):
                found.add(i)
    return sorted(found)


def _vocabulary_weights(model: LanguageModel) -> list[Tensor]:
    """The embedding and, where it is a matrix of its own, the head."""
    embedding: Any = model.embedding if isinstance(model, Decoder) else model.inner.get_input_embeddings().weight
    head = model.head_weight
    return [embedding] if head is embedding else [embedding, head]


def _resize(model: LanguageModel, rows: int) -> None:
    if not isinstance(model, Decoder):
        model.inner.resize_token_embeddings(rows, mean_resizing=False)
        model.config.vocab_size = rows
        return

    def grown(old: Tensor) -> nn.Parameter:
        new: Any = old.new_zeros(rows, old.shape[1])
        new[: old.shape[0]] = old
        return nn.Parameter(new)

    model.embedding = grown(model.embedding)
    if model.head is not None:
        model.head = grown(model.head)
    model.config = replace(model.config, vocab_size=rows)

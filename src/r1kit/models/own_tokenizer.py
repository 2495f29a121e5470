"""Does this tokenizer belong to this model? A foreign one raises no error by itself: training just goes on, on ids that
mean something else.

A checkpoint that r1kit writes carries a fingerprint of the tokenizer whose ids its weights learned; whoever loads its
tokenizer compares (`load_tokenizer`), so that one other id is found. Checkpoints of others carry none. Their tokenizer
is refused (`load_model(..., tokenizer=...)`) where

    1. it has more tokens than the model has rows;
    2. config.json or generation_config.json begins or ends a text with a token that it does not have;
    3. the model predicts plain English through it hardly better than with the tokens' ids exchanged at random.

2 and 3 say nothing of a model that was never trained, whose rows mean nothing yet. 3 needs English to be what the
tokenizer was made of: one that cuts it into single letters (of tiny models, of proteins) is not judged. SmolLM2-135M
needs 2.6 nats a token through its own tokenizer and 9.5 with ids exchanged; 13.1 and 13.0 through as many tokens of
Qwen2.5's; 10.2 and 12.0 with half of its ids permuted. With a fifth of them permuted, 5.1 and 10.1, it would pass: in
the checkpoints of others a few wrong ids are not seen.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError, read_config

FINGERPRINT = "tokenizer_fingerprint.json"
# What normalisers, pre-tokenisers and byte fall-backs of the field treat in different ways.
_SAMPLE = (
    "Hello  world,\tI've SEEN 3.14159 and 1,234,567!\n\n  def f(x):\n    return x**2  # naïve café ﬁ ① Å\r\n"
    "你好，世界。 Привет 안녕 שלום \u200b🙂👩‍🚀 \\frac{a}{b} <b>x</b> don't DON'T _under_score camelCase"
)
# Sentences that any model of English has an idea of; a short context each, or a large model learns any code from it.
PLAIN = (
    "Once upon a time there was a little girl who lived with her mother in a small house near the forest.",
    "He opened the door, walked into the kitchen and asked if there was anything left to eat.",
    "The sun rises in the east and sets in the west, and every night the moon comes out.",
    "I do not know what you want me to say, but I will try to answer your question.",
    "There are seven days in a week and twelve months in a year.",
    "She said that it was not easy at first, but that everything became much better in the end.",
)
# Nats a token by which PLAIN has to be likelier than the same with exchanged ids: between the 6.9 of the model above,
# small as it is, and the 1.8 of a tokenizer that is half foreign.
GAIN = 2.5
# A tokenizer that needs more tokens a character than this was not made of English.
COARSE = 0.5


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the ids depend on, as hashes: `vocabulary`, each token's id; `rules`, the merges and what a sample becomes.

    By content and behaviour, not by the bytes of tokenizer.json: other versions of the libraries spell the same
    tokenizer differently. The chat template, special tokens' roles and eos may change without another fingerprint.
    """
    rows = sorted((i, token) for token, i in tokenizer.get_vocab().items())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    merges = json.loads(backend.to_str())["model"].get("merges", []) if backend is not None else []
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    sample = tokenizer.encode(_SAMPLE, add_special_tokens=False)
    return {"tokens": len(rows), "vocabulary": _hash(rows), "rules": _hash([pairs, sample])}


def write_fingerprint(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Beside the weights in `directory`, which were trained with `tokenizer`."""
    (Path(directory) / FINGERPRINT).write_text(json.dumps(fingerprint(tokenizer), indent=1))


def check_fingerprint(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """CheckpointError where the weights in `directory` were trained with another tokenizer, by their fingerprint."""
    path = Path(directory) / FINGERPRINT
    if not path.is_file():
        return
    try:
        kept = {name: json.loads(path.read_text())[name] for name in ("tokens", "vocabulary", "rules")}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); take another copy of the checkpoint") from error
    now = fingerprint(tokenizer)
    if kept == now:
        return
    if kept["tokens"] != now["tokens"]:
        how = f"it has {now['tokens']} tokens, theirs had {kept['tokens']}"
    elif kept["vocabulary"] != now["vocabulary"]:
        how = f"of its {now['tokens']} tokens some have other texts or other ids"
    else:
        how = "it has the same tokens, but cuts texts into them by other rules (merges, normaliser, pre-tokeniser)"
    raise CheckpointError(
        f"{path}: the weights beside it were not trained with this tokenizer: {how}. Put tokenizer.json and "
        "tokenizer_config.json of this checkpoint back (or of the model that its stage started from); to add tokens, "
        f"use add_tokens of an sft stage. If another program has since trained the weights with it, delete {path.name}"
    )


def require_rows(model: Any, tokenizer: PreTrainedTokenizerBase, added: int = 0) -> None:
    """CheckpointError where a tokenizer has more tokens than the model has rows, `added` new ones apart."""
    used, rows = len(tokenizer) - added, model.head_weight.shape[0]
    if used > rows:
        raise CheckpointError(
            f"the tokenizer has {used} tokens, the model's embedding {rows} rows: this is not the model's tokenizer; "
            "copy the files of its own beside the weights"
        )


def require_own_tokenizer(
    model: Any, tokenizer: PreTrainedTokenizerBase, directory: str | Path, added: int = 0
) -> None:
    """CheckpointError where `tokenizer`, `added` new tokens apart, is not that of the language model in `directory`:
    the rules at the top of this file, for a checkpoint with a fingerprint the first alone (the others are for those
    that `load_tokenizer` could not compare)."""
    require_rows(model, tokenizer, added)
    if (Path(directory) / FINGERPRINT).is_file() or never_trained(model):
        return
    used, rows = len(tokenizer) - added, model.head_weight.shape[0]
    for file, name, token in _named_tokens(directory):
        if used <= token < rows and name != "pad_token_id":
            raise CheckpointError(
                f"{Path(directory) / file}: {name} is {token}, but the tokenizer has {used} tokens: this is not the "
                "model's tokenizer; copy the files of its own beside the weights"
            )
    found = _losses(model, tokenizer)
    if found is not None and found[1] - found[0] < GAIN:
        raise CheckpointError(
            f"{directory}: tokenizer.json is not this model's: through it plain English costs the model {found[0]:.1f} "
            f"nats a token, and {found[1]:.1f} with the tokens' ids exchanged at random (its own makes several nats of "
            "difference). Copy the files of its own tokenizer beside the weights. If it is the right one and the model "
            "knows no English, save both once with r1kit.models.loading.write_model"
        )


def never_trained(model: torch.nn.Module) -> bool:
    """True while every gain and bias is what it is set to at the start; the first steps of training end that. A model
    that has none of them cannot be told from a trained one, and is taken for that."""
    gains = [p for p in model.parameters() if p.ndim == 1]
    return bool(gains) and all(bool((p == p[0]).all()) for p in gains)


def doubtful_end(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> str | None:
    """A warning where config.json ends a text with what this tokenizer holds for an ordinary word, else None.

    No proof of a foreign tokenizer: configurations keep ids that nobody ever set.
    """
    marked = special_ids(tokenizer)
    for file, name, token in _named_tokens(directory):
        if name == "eos_token_id" and 0 <= token < len(tokenizer) and token not in marked:
            word = tokenizer.convert_ids_to_tokens(token)
            return (
                f"warning: {Path(directory) / file} ends a text with token {token}, in this tokenizer the ordinary "
                f"{word!r} (its own end is {tokenizer.eos_token}): make sure that it is the model's, and correct the id"
            )
    return None


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of tokens that stand for no ordinary text: special ones, and those added to the vocabulary."""
    return set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())


def _named_tokens(directory: str | Path) -> Iterator[tuple[str, str, int]]:
    """(file, key, id) for every id of a token that the configurations name."""
    for file in ("config.json", "generation_config.json"):
        if not (Path(directory) / file).is_file():
            continue
        raw = read_config(directory, file)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = raw.get(name)
            for token in value if isinstance(value, list) else [value]:
                if isinstance(token, int):
                    yield file, name, token


@torch.no_grad()
def _losses(model: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[float, float] | None:
    """Nats a token of PLAIN, and of PLAIN with the ids of its tokens exchanged; None where English is not the
    tokenizer's."""
    texts = [tokenizer.encode(text) for text in PLAIN]  # with the bos that some models are lost without
    if sum(map(len, texts)) > COARSE * sum(map(len, PLAIN)):
        return None
    used = sorted({i for ids in texts for i in ids} - set(tokenizer.all_special_ids))
    random.Random(0).shuffle(used)
    other = dict(zip(used, [*used[1:], *used[:1]], strict=True))  # one cycle: no token keeps its id
    exchanged = [[other.get(i, i) for i in ids] for ids in texts]
    return _nats(model, texts), _nats(model, exchanged)


def _nats(model: Any, texts: Sequence[Sequence[int]]) -> float:
    """Mean loss of the tokens of `texts`, each behind those before it in its own text."""
    device = model.head_weight.device
    segments = [Segment(1, len(ids) - 1) for ids in texts]
    inputs = torch.tensor([i for ids in texts for i in ids[:-1]], device=device)
    targets = torch.tensor([i for ids in texts for i in ids[1:]], device=device)
    hidden = model(inputs, positions(segments).to(device), packed_attention(segments))
    return float(torch.nn.functional.cross_entropy(model.logits(hidden).float(), targets))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

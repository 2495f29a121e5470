"""Any Hugging Face checkpoint in, and out again: the native decoder where it applies, Transformers where not."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from r1kit.models.checkpoint import CheckpointError, load_decoder, read_config, unsupported_reason, write_decoder
from r1kit.models.decoder import Decoder
from r1kit.models.own_tokenizer import check_fingerprint, require_own_tokenizer, write_fingerprint
from r1kit.models.transformers_model import TransformersModel

LanguageModel = Decoder | TransformersModel
"""What trains and what samples: `forward(token_ids_T, positions_T, attend)`, `logits`, `head_weight`, `config`."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    directory: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LanguageModel:
    """The model of a checkpoint directory, behind the one small interface of `Decoder`.

    CheckpointError where it cannot be read, or where `tokenizer` is given and is not the model's own.
    """
    if is_value_model(directory):
        # Its tied embedding would be taken for an output matrix, and it would speak nonsense without an error.
        raise CheckpointError(
            f"{directory}: a model with one value per token (a reward model or a critic), which cannot write text; "
            "name a language model"
        )
    native = unsupported_reason(read_config(directory)) is None
    load = load_decoder if native else TransformersModel.load
    model: LanguageModel = load(directory, dtype=DTYPES[dtype], device=device)
    if tokenizer is not None:
        require_own_tokenizer(model, tokenizer, directory)
    return model


def is_value_model(directory: str | Path) -> bool:
    """The directory holds a classifier of sequences or tokens: models/heads.py loads it."""
    names = read_config(directory).get("architectures") or []
    return any(name.endswith(("ForSequenceClassification", "ForTokenClassification")) for name in names)


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a checkpoint. CheckpointError where it cannot be read, or where the weights were
    trained with another one."""
    if not (Path(directory) / "tokenizer_config.json").is_file():
        raise CheckpointError(f"{directory}: no tokenizer_config.json; expected a checkpoint with its tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception, others what their parsers raise
        raise CheckpointError(
            f"{directory}: the tokenizer cannot be read ({type(error).__name__}: {error}); its files are damaged or "
            "of an unknown kind, take another copy"
        ) from error
    check_fingerprint(tokenizer, directory)
    return tokenizer


def write_model(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Weights, config, tokenizer and generation_config.json: a directory that plain Transformers loads."""
    if isinstance(model, Decoder):
        write_decoder(model, directory)
    else:
        model.write(directory)
    write_tokenizer(tokenizer, directory)
    GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(directory)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """The tokenizer's files beside weights that were trained with it, and its fingerprint."""
    tokenizer.save_pretrained(directory)
    write_fingerprint(tokenizer, directory)

"""A number per token from the trunk of a language model: reward models, process reward models and critics.

One small matrix stands where the vocabulary's output matrix stood. Saved in the Hugging Face layout (a model for
sequence classification with one label, or for token classification where the head has a bias), so plain Transformers
loads what is trained here, and what others trained loads here.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from r1kit.models.checkpoint import (
    CheckpointError,
    fill_decoder,
    from_hf_config,
    read_config,
    read_hf_state,
    to_hf_config,
    to_hf_state,
    unsupported_reason,
)
from r1kit.models.decoder import Attend, Decoder
from r1kit.models.loading import DTYPES, LanguageModel, write_tokenizer
from r1kit.models.transformers_model import TransformersModel

# What the classifiers of Transformers call their last layer; `classifier` in some of tokens (GPT-2, GPT-NeoX, Falcon).
_HEADS = ("score", "classifier")


class ValueModel(nn.Module):
    """`forward(token_ids_T, positions_T, attend) -> values_T`, the interface of a language model with one output.

    Takes `trunk` over: its own output matrix, where it has one apart from the embedding, is dropped or frozen. The
    value of a token sees that token and all before it; the value of a response is that of its last token. `bias` adds
    a constant to every value and makes the checkpoint one for token classification.
    """

    def __init__(self, trunk: LanguageModel, *, bias: bool = False) -> None:
        super().__init__()
        weight = trunk.head_weight
        if isinstance(trunk, Decoder):
            trunk.head = None
            trunk.config = replace(trunk.config, tie_embeddings=True)
        else:
            tied = trunk.inner.get_input_embeddings().weight is weight
            weight.requires_grad_(tied)
        self.trunk = trunk
        self.config = trunk.config
        self.weight = nn.Parameter(torch.zeros(1, weight.shape[1], dtype=weight.dtype, device=weight.device))
        self.bias = nn.Parameter(torch.zeros(1, dtype=weight.dtype, device=weight.device)) if bias else None

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Values [T], float32 whatever the dtype of the trunk."""
        return self.values(self.trunk(token_ids_T, positions_T, attend))

    def values(self, hidden_TD: Tensor) -> Tensor:
        """Values [T] of final hidden states [T, D]."""
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden_TD.float(), self.weight.float(), bias)[:, 0]

    def draw_head(self, seed: int, std: float | None = None) -> ValueModel:
        """Random head: normal(0, std), by default 1/sqrt(D + 1) (Stiennon et al. 2020, arXiv 2009.01325, appendix B).

        A critic is better left at zero: its first values then say nothing rather than something wrong.
        """
        width = self.weight.shape[1]
        draw = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.weight.copy_(draw * ((width + 1) ** -0.5 if std is None else std))
        return self


def load_value_model(
    directory: str | Path, *, dtype: str = "float32", device: str | torch.device = "cpu"
) -> ValueModel:
    """The value model of a checkpoint directory; CheckpointError where it holds none, or one of several labels."""
    raw, state = read_config(directory), read_hf_state(directory)
    head = next((name for name in _HEADS if f"{name}.weight" in state), _HEADS[0])
    weight, bias = state.get(f"{head}.weight"), state.get(f"{head}.bias")
    if weight is None or weight.shape[0] != 1:
        found = "no tensor 'score.weight'" if weight is None else f"a head of {weight.shape[0]} outputs"
        raise CheckpointError(
            f"{directory}: {found}; expected a model with one value per token (a reward model or a critic): "
            "make one from a language model with a stage of kind reward_model"
        )
    trunk: LanguageModel
    if unsupported_reason(raw) is None:
        config = replace(from_hf_config(raw, Path(directory) / "config.json"), tie_embeddings=True)
        trunk = Decoder(config).to(device=device, dtype=DTYPES[dtype])
        fill_decoder(trunk, state, directory)
    else:
        trunk = TransformersModel.load(directory, dtype=DTYPES[dtype], device=device, headless=True)
    model = ValueModel(trunk, bias=bias is not None)
    if weight.shape != model.weight.shape:
        raise CheckpointError(f"{directory}: {head}.weight is {tuple(weight.shape)}, not {tuple(model.weight.shape)}")
    with torch.no_grad():
        model.weight.copy_(weight)
        if model.bias is not None and bias is not None:
            model.bias.copy_(bias)
    return model


def write_value_model(model: ValueModel, tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Weights, config and tokenizer: a directory that Transformers loads as a classifier with one label."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    trunk, config = model.trunk, _config(model)
    if isinstance(trunk, Decoder):
        state = to_hf_state({name: p.detach() for name, p in trunk.state_dict().items()}, trunk.config)
    else:
        inner = trunk.inner
        state = {f"{inner.base_model_prefix}.{name}": p.detach() for name, p in inner.base_model.state_dict().items()}
    head = _HEADS[0] if isinstance(trunk, Decoder) else _head_name(config)
    state[f"{head}.weight"] = model.weight.detach()
    if model.bias is not None:
        state[f"{head}.bias"] = model.bias.detach()
    on_cpu = {name: tensor.to("cpu").contiguous() for name, tensor in state.items()}
    save_file(on_cpu, directory / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(directory)
    write_tokenizer(tokenizer, directory)


def _head_name(config: Any) -> str:
    with torch.device("meta"):
        made = getattr(transformers, config.architectures[0])(config)
    return next(name for name in _HEADS if hasattr(made, name))


def _config(model: ValueModel) -> Any:
    """The Transformers configuration of the classifier that `model` is."""
    from transformers.models.auto import modeling_auto

    trunk = model.trunk
    config = to_hf_config(trunk.config) if isinstance(trunk, Decoder) else copy.deepcopy(trunk.inner.config)
    kind = "SEQUENCE" if model.bias is None else "TOKEN"
    names = getattr(modeling_auto, f"MODEL_FOR_{kind}_CLASSIFICATION_MAPPING_NAMES")
    if config.model_type not in names:
        raise CheckpointError(
            f"Transformers has no {kind.lower()} classifier for model_type {config.model_type!r}: start the reward "
            "model from another family (qwen2, qwen3, llama)"
        )
    config.architectures = [names[config.model_type]]
    config.num_labels = 1
    # A classifier for tokens would drop out a tenth of its input where this is not said.
    config.classifier_dropout = 0.0
    config.dtype = str(model.weight.dtype).removeprefix("torch.")
    return config

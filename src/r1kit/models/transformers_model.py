"""Any other decoder architecture, run by Transformers behind the interface of `Decoder`: flat tokens and `attend`.

Transformers lets a model call a registered attention function. Ours hands query, key and value to the caller's
`attend`, so trainer and engine treat a foreign architecture exactly as their own, only slower. What such a function
cannot express (sliding windows, soft-capped scores) is refused when the model is loaded, and so is every model whose
logits then differ from Transformers' own.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import CheckpointError, Source
from r1kit.models.decoder import Attend

_NAME = "r1kit"
# Largest accepted difference of logits, relative to the largest logit; in half precision rounding alone takes percents.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_attend: ContextVar[Attend] = ContextVar("r1kit_attend")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention call (arrays [1, heads, T, K]) answered by the current `attend`."""
    width = query.shape[-1]
    # `attend` scales by 1/sqrt(K); an architecture with another scale is brought to it through the query.
    if scaling is not None and scaling != width**-0.5:
        query = query * (scaling * width**0.5)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return _attend.get()(int(module.layer_idx), q, k, v).unsqueeze(0), None  # type: ignore[arg-type]


AttentionInterface.register(_NAME, _attention)


class _Sizes:
    """The sizes the engine asks of `Decoder.config`, read from a Transformers configuration."""

    def __init__(self, config: Any) -> None:
        self.vocab_size = int(config.vocab_size)
        self.hidden_size = int(config.hidden_size)
        self.num_layers = int(config.num_hidden_layers)
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(getattr(config, "num_key_value_heads", None) or self.num_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or self.hidden_size // self.num_heads)
        self.max_positions = int(config.max_position_embeddings)


def _unsupported(model: PreTrainedModel) -> str | None:
    """What a configuration asks for that `attend` and the fused loss cannot do; None where nothing is known."""
    config = model.config
    layer_types = getattr(config, "layer_types", None)
    other = sorted(set(layer_types or []) - {"full_attention"})
    if other:
        return f"uses {', '.join(other)}"
    # Without layer types a window holds for every layer (Mistral, Phi-3, StarCoder2).
    if layer_types is None and getattr(config, "sliding_window", None):
        return f"uses a sliding window of {config.sliding_window} tokens"
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None):
            return f"caps its scores ({name})"
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        return "has a bias in its output layer"
    return None


def _require_complete(model: PreTrainedModel, found: dict[str, Any], directory: str | Path, headless: bool) -> None:
    """CheckpointError where Transformers drew a tensor at random: one that it did not find, or of another size.

    A tied matrix counts as found where one of its names is.
    """
    head = {f"{name}.weight" for name, module in model.named_modules() if module is model.get_output_embeddings()}
    missing = sorted(set(found["missing_keys"]) - (head if headless else set()))
    if missing:
        raise CheckpointError(
            f"{directory} has no tensor {missing[0]!r}, which its config.json asks for ({len(missing)} missing); take "
            "another copy"
        )
    if wrong := sorted((name, tuple(theirs), tuple(asked)) for name, theirs, asked in found["mismatched_keys"]):
        raise CheckpointError(
            f"{directory}: config.json and weights disagree: "
            f"{'; '.join(f'{name}: {theirs} instead of {asked}' for name, theirs, asked in wrong[:3])} "
            f"({len(wrong)} in all)"
        )


class TransformersModel(nn.Module):
    """A Transformers causal LM with `forward(token_ids_T, positions_T, attend) -> hidden_TD` and `logits`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        reason = _unsupported(model)
        if reason:
            raise CheckpointError(
                f"{type(model).__name__} {reason}, which packed and cached attention and the fused loss here do not "
                "express; choose a model with full attention in every layer and a plain output matrix"
            )
        token_ids_BT = (torch.arange(16, device=model.device) % model.config.vocab_size).view(2, 8)
        with torch.no_grad():
            theirs = model(input_ids=token_ids_BT, use_cache=False).logits.flatten(0, 1).float()
        model.set_attn_implementation(_NAME)
        self.inner = model
        self._compare(token_ids_BT, theirs)
        self.config = _Sizes(model.config)

    @torch.no_grad()
    def _compare(self, token_ids_BT: Tensor, expected_TV: Tensor) -> None:
        """Refuse an architecture whose logits differ here from Transformers' own (position biases, attention sinks,
        scaled logits ...): training would go on, on wrong log-probs."""
        segments = [Segment(*token_ids_BT.shape)]
        at = positions(segments).to(token_ids_BT.device)
        hidden = self(token_ids_BT.flatten(), at, packed_attention(segments))
        logits = nn.functional.linear(hidden, self.head_weight).float()
        error = ((logits - expected_TV).abs().max() / expected_TV.abs().max().clamp_min(1e-6)).item()
        if not error <= _TOLERANCE.get(hidden.dtype, 0.1):
            raise CheckpointError(
                f"{type(self.inner).__name__}: logits through this interface differ from Transformers' own by "
                f"{error:.1g} of the largest; its attention or its output layer does what the interface does not "
                "express; choose another architecture"
            )

    @classmethod
    def load(
        cls, directory: str | Path, *, dtype: torch.dtype, device: str | torch.device, headless: bool = False
    ) -> TransformersModel:
        """The model of a checkpoint directory. `headless`: of a classifier, which has another output matrix.

        CheckpointError where a file or a tensor is missing or damaged, or the architecture cannot be run here.
        """
        with Source(directory):  # says which file is damaged, where Transformers does not
            pass
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # all of them are named below
                output_loading_info=True,
            )
        except Exception as error:  # its parts raise what they like: OSError, KeyError, Exception itself
            raise CheckpointError(
                f"{directory}: Transformers cannot load it ({type(error).__name__}: {error}); its files are damaged, "
                "or it is no causal language model"
            ) from error
        model, found = loaded
        _require_complete(model, found, directory, headless)
        model.to(torch.device(device))
        try:
            return cls(model)
        except CheckpointError as error:
            raise CheckpointError(f"{directory}: {error}") from None

    def write(self, directory: str | Path) -> None:
        self.inner.save_pretrained(directory, safe_serialization=True)

    @property
    def head_weight(self) -> Tensor:
        return self.inner.get_output_embeddings().weight

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D]; see `Decoder.forward`."""
        token = _attend.set(attend)
        try:
            output = self.inner.base_model(
                input_ids=token_ids_T.unsqueeze(0), position_ids=positions_T.unsqueeze(0), use_cache=False
            )
        finally:
            _attend.reset(token)
        return output.last_hidden_state[0]

    def logits(self, hidden_TD: Tensor) -> Tensor:
        return self.inner.get_output_embeddings()(hidden_TD)

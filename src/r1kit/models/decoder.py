"""The one decoder of r1kit: Qwen2 / Qwen2.5 / Qwen3 and Llama 3, for trainer and engine alike.

`Decoder.forward` takes flat tokens and an `attend` function. What differs between training (packed causal attention)
and sampling (attention over a cache) is only that function, so what sampled and what trains are the same mathematics.

Weights are kept as the engine wants them: query, key and value rows in one matrix, gate and up rows in one, and the
rows of rotated heads in interleaved order, which makes RoPE one complex product. `models/checkpoint.py` translates from
and to the Hugging Face layout; logits and gradients equal Transformers' (tests/models/test_parity.py).

Left out on purpose: sliding windows, mixture of experts, dropout, attention biases on the output projection. Such
architectures run through Transformers (`models/transformers_model.py`), slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from r1kit.models.functional import norm_linear, rms_norm, rope, swiglu_linear

# attend(layer_index, q_THK, k_TGK, v_TGK) -> out_THK, heads already rotated.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches. `model_type` names the Hugging Face family it is saved as: qwen2, qwen3 or llama."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    model_type: str = "qwen2"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_parameters: dict[str, Any] = field(default_factory=dict)
    tie_embeddings: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 4096
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}: "
                "grouped-query attention needs equal groups"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd: rotary embedding turns pairs, use an even width")

    @property
    def query_width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def matmul_parameters(self) -> int:
        """Parameters used in matrix products for each token (the tied head counts, the embedding lookup does not)."""
        layer = self.hidden_size * (2 * self.query_width + 2 * self.kv_width + 3 * self.intermediate_size)
        return self.num_layers * layer + self.vocab_size * self.hidden_size


class DecoderLayer(nn.Module):
    """Pre-norm attention and SwiGLU, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.config, self.index = config, index
        width, query, kv = config.hidden_size, config.query_width, config.kv_width
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Parameter(torch.empty(query + 2 * kv, width))
        self.qkv_bias = nn.Parameter(torch.zeros(query + 2 * kv)) if config.qkv_bias else None
        self.q_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.output = nn.Parameter(torch.empty(width, query))
        self.mlp_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Parameter(torch.empty(2 * config.intermediate_size, width))
        self.down = nn.Parameter(torch.empty(width, config.intermediate_size))

    def forward(self, x_TD: Tensor, phase_TC: Tensor, attend: Attend) -> Tensor:
        c = self.config
        qkv = norm_linear(x_TD, self.attention_norm, self.qkv, self.qkv_bias, c.rms_norm_eps)
        rotated, v = qkv.unflatten(-1, (-1, c.head_dim)).split([c.num_heads + c.num_kv_heads, c.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = rotated.split([c.num_heads, c.num_kv_heads], dim=1)
            q, k = rms_norm(q, self.q_norm, c.rms_norm_eps), rms_norm(k, self.k_norm, c.rms_norm_eps)
            rotated = torch.cat([q, k], dim=1)
        q, k = rope(rotated, phase_TC).split([c.num_heads, c.num_kv_heads], dim=1)
        mixed = attend(self.index, q, k, v)
        x_TD = torch.addmm(x_TD, mixed.flatten(1), self.output.t())
        gate_up = norm_linear(x_TD, self.mlp_norm, self.gate_up, None, c.rms_norm_eps)
        return swiglu_linear(gate_up, self.down, x_TD)


class Decoder(nn.Module):
    """Embedding, layers, final norm and head over flat tokens."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        # Not a buffer: complex angles must keep float32 when the weights change dtype (see _apply).
        self.phase_PC = rotary_phases(config)
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.final_norm = nn.Parameter(torch.ones(config.hidden_size))
        head = torch.empty(config.vocab_size, config.hidden_size)
        self.head = None if config.tie_embeddings else nn.Parameter(head)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]; the embedding itself where they are tied."""
        return self.embedding if self.head is None else self.head

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D] (after the last norm) of flat tokens.

        token_ids_T, positions_T: int64 [T]; positions count from 0 within each sequence. Rows that `attend` keeps
        apart never mix: everything else is per token.
        """
        x_TD = nn.functional.embedding(token_ids_T, self.embedding)
        phase_TC = self.phase_PC[positions_T]
        for layer in self.layers:
            x_TD = layer(x_TD, phase_TC, attend)
        return rms_norm(x_TD, self.final_norm, self.config.rms_norm_eps)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Unnormalised next-token scores [..., V]."""
        return nn.functional.linear(hidden_TD, self.head_weight)

    def _apply(self, fn: Any, recurse: bool = True) -> Decoder:
        """Let the rotary table follow the weights to another device, but never to another dtype."""
        super()._apply(fn, recurse)
        self.phase_PC = self.phase_PC.to(self.embedding.device)
        return self


def rotary_phases(config: DecoderConfig) -> Tensor:
    """attention_scaling * exp(i * p * inv_freq) for every position p: complex64 [positions, head_dim / 2].

    Frequencies and scaling of every RoPE variant come from Transformers' own table, so they cannot drift from it.
    """
    inverse_frequency, scaling = _inverse_frequencies(config)
    angles = torch.arange(config.max_positions, dtype=torch.float32).outer(inverse_frequency)
    return torch.polar(torch.full_like(angles, scaling), angles)


def _inverse_frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
        return 1.0 / (config.rope_theta**exponent), 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from r1kit.models.checkpoint import NATIVE_ROPE_TYPES, to_hf_config

    if kind not in NATIVE_ROPE_TYPES:
        raise ValueError(f"rope_parameters.rope_type is {kind!r}: this decoder knows {NATIVE_ROPE_TYPES}")
    inverse_frequency, scaling = ROPE_INIT_FUNCTIONS[kind](to_hf_config(config), torch.device("cpu"))
    return inverse_frequency.float(), float(scaling)


def initialise(model: Decoder, seed: int, std: float = 0.02) -> None:
    """Random weights: normal(0, std), projections back into the residual stream scaled by 1/sqrt(2 * layers).

    (Radford et al. 2019.) The same seed gives the same weights on every machine: drawn on the CPU in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = std / (2 * model.config.num_layers) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            scale = residual_std if name.endswith(("output", "down")) else std
            draw = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(draw.to(parameter.dtype))

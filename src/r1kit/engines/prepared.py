"""The decoder as the engine runs it: the same mathematics, its weights laid out for products of few rows.

A decoding step of a small model is hundreds of small operations, so what can be done once before a batch is not
done in every step: norm gains are folded into the matrices behind them, and matrices are stored transposed, which MKL
multiplies up to 2.6 times as fast when there are 64 rows or fewer. Measured on one core with the quick start's model:
a quarter more tokens per second with 128 slots. The price is a copy of the weights, so large models, half precision
and other devices run the trainer's own `forward` instead.

Equal to `Decoder.forward` to rounding (tests/engines/test_prepared.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1kit.engines.invariance import LARGE, Model
from r1kit.models.decoder import Attend, Decoder, DecoderLayer


class PreparedLayer(NamedTuple):
    """Weights of one layer: matrices [inputs, outputs], gains folded in."""

    qkv: Tensor
    qkv_bias: Tensor | None
    head_gains: Tensor | None  # [heads + kv_heads, head_dim], of the query and key norms
    output: Tensor
    gate_up: Tensor
    down: Tensor

    @classmethod
    def of(cls, layer: DecoderLayer) -> PreparedLayer:
        gains = None
        if layer.q_norm is not None and layer.k_norm is not None:
            c = layer.config
            gains = torch.cat([layer.q_norm.expand(c.num_heads, -1), layer.k_norm.expand(c.num_kv_heads, -1)])
        return cls(
            qkv=(layer.qkv * layer.attention_norm).t().contiguous(),
            qkv_bias=layer.qkv_bias,
            head_gains=gains,
            output=layer.output.t().contiguous(),
            gate_up=(layer.gate_up * layer.mlp_norm).t().contiguous(),
            down=layer.down.t().contiguous(),
        )


class PreparedDecoder:
    """A `Decoder` to sample from; `refresh` takes over the parameters it has now (about a millisecond)."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.config = decoder, decoder.config
        self.refresh()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.decoder.parameters()

    @torch.no_grad()
    def refresh(self) -> None:
        decoder = self.decoder
        self.layers = [PreparedLayer.of(layer) for layer in decoder.layers]  # type: ignore[arg-type]
        self.head = (decoder.head_weight * decoder.final_norm).t().contiguous()
        self._eps = torch.full((1,), self.config.rms_norm_eps, dtype=self.head.dtype)

    def __call__(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D] without the last norm's gain, which `logits` holds; see `Decoder.forward`."""
        c, tokens = self.config, len(token_ids_T)
        rotated, width = c.num_heads + c.num_kv_heads, c.head_dim
        x_TD = F.embedding(token_ids_T, self.decoder.embedding)
        phase_T1C = self.decoder.phase_PC[positions_T].unsqueeze(1)
        for index, w in enumerate(self.layers):
            normed = self._normalise(x_TD)
            qkv = torch.mm(normed, w.qkv) if w.qkv_bias is None else torch.addmm(w.qkv_bias, normed, w.qkv)
            heads = qkv.view(tokens, -1, width)
            if w.head_gains is not None:
                heads[:, :rotated] = self._normalise(heads[:, :rotated]) * w.head_gains
            torch.view_as_complex(heads.view(tokens, -1, width // 2, 2)[:, :rotated]).mul_(phase_T1C)
            mixed = attend(index, heads[:, : c.num_heads], heads[:, c.num_heads : rotated], heads[:, rotated:])
            x_TD = torch.addmm(x_TD, mixed.reshape(tokens, -1), w.output)
            gate_up = torch.mm(self._normalise(x_TD), w.gate_up)
            gate, up = gate_up[:, : c.intermediate_size], gate_up[:, c.intermediate_size :]
            x_TD = torch.addmm(x_TD, F.silu(gate).mul_(up), w.down)
        return self._normalise(x_TD)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        return torch.mm(hidden_TD, self.head)

    def _normalise(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps) over the last axis."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.addcmul(self._eps, norm, norm, value=1.0 / x.shape[-1]).rsqrt_()


def prepare(model: Model) -> Model:
    """The model in the form it is sampled from: prepared where that pays, else as it is."""
    if type(model) is not Decoder:  # a subclass may compute something else
        return model
    weight = model.embedding
    small = weight.device.type == "cpu" and sum(p.numel() for p in model.parameters()) <= LARGE
    return PreparedDecoder(model) if small and weight.dtype in (torch.float32, torch.float64) else model

"""The decoder as a module: its initial weights, its rotary table, its sizes.

Why this matters: a run is reproducible only if the same seed gives the same base everywhere, and a rotary table in half
precision would blur the positions of long sequences without any error.

Not exercised here: values against Transformers (test_parity.py); sampling (tests/engines).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import weights_checksum
from r1kit.models.decoder import Decoder, DecoderConfig, initialise, rotary_phases


def config(**changes: Any) -> DecoderConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_positions": 32,
    }
    return DecoderConfig(**{**sizes, **changes})


def initialised(seed: int, **changes: Any) -> Decoder:
    model = Decoder(config(**changes))
    initialise(model, seed)
    return model


def test_the_seed_decides_every_weight() -> None:
    first, again, other = (weights_checksum(initialised(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_initial_weights_have_their_stated_deviation() -> None:
    model = initialised(0, hidden_size=128, intermediate_size=256, vocab_size=300, qkv_bias=True, qk_norm=True)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            want = 0.02 / 2 if name.endswith(("output", "down")) else 0.02
            assert parameter.std().item() == pytest.approx(want, rel=0.1), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, 0.0 if "bias" in name else 1.0)), name


@pytest.mark.parametrize("tied", [True, False])
def test_matmul_parameters_are_the_matrices_a_token_meets(tied: bool) -> None:
    model = initialised(0, tie_embeddings=tied)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and name != "embedding")
    assert model.config.matmul_parameters == matrices + (model.embedding.numel() if tied else 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_rotary_table_keeps_its_precision(dtype: torch.dtype) -> None:
    model = initialised(0).to(dtype)
    assert torch.equal(model.phase_PC, rotary_phases(model.config))
    assert torch.equal(copy.deepcopy(model).phase_PC, model.phase_PC)


def test_the_rotary_table_is_no_part_of_a_checkpoint() -> None:
    assert not any("phase" in name for name in initialised(0).state_dict())


def test_packing_does_not_change_a_sequence() -> None:
    """The same sequence alone, behind another one, and padded: the same hidden states."""
    model = initialised(0)
    ids = torch.randint(0, 40, (12,), generator=torch.Generator().manual_seed(0))

    def hidden(tokens: torch.Tensor, segments: list[Segment]) -> torch.Tensor:
        return model(tokens, positions(segments), packed_attention(segments)).detach()

    alone = hidden(ids[:5], [Segment(1, 5)])
    behind = hidden(torch.cat([ids[5:], ids[:5]]), [Segment(1, 7), Segment(1, 5)])[7:]
    padded = hidden(torch.cat([ids[:5], ids[:2]]), [Segment(1, 7)])[:5]
    torch.testing.assert_close(behind, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_an_unknown_rope_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rope_type is 'longrope'"):
        Decoder(config(rope_parameters={"rope_type": "longrope"}))

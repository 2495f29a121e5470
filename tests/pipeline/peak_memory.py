"""What training steps take, measured in this process and planned: `python -m tests.pipeline.peak_memory WAY LENGTH`.

WAY is one of WAYS. Prints a JSON object of MiB.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from r1kit.config.parts import ModelSettings, OptimizerSettings
from r1kit.config.rl import LoRASettings
from r1kit.models.loading import DTYPES
from r1kit.models.lora import adapters
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.memory import Computing, Shape, passes, trained
from r1kit.pipeline.process import tune_process
from r1kit.pipeline.usage import reset_peak, resident_bytes
from r1kit.training.parallel import World
from r1kit.training.recompute import recompute_activations
from r1kit.training.session import Session
from r1kit.training.token_step import TokenSequence, token_step

# Large enough for arrays to weigh more than what an allocator leaves between them.
SHAPE = ModelSettings(hidden=256, layers=6, heads=4, kv_heads=2, head_dim=64, intermediate=1024)
TOKENS = 4096
RANK = 8
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "muon": {"optimizer": {"name": "muon", "lr": 0.01, "adam_lr": 1e-3}},
    "bfloat16": {"bf16": True},
    "recompute": {"recompute": True},
    "adapters": {"rank": RANK},
    "compiled": {"native": "float32"},
    "compiled_bfloat16": {"native": "bfloat16"},
}


def measured(
    length: int,
    *,
    bf16: bool = False,
    native: str = "off",
    recompute: bool = False,
    rank: int | None = None,
    optimizer: dict[str, Any] | None = None,
) -> int:
    """Bytes that a session and two steps on sequences of `length` add to this process at most."""
    if native != "off":
        from r1kit.models.native.training import library

        library()
    tokenizer, dtype = build_tiny_tokenizer(), "bfloat16" if bf16 else "float32"
    generator = np.random.default_rng(0)
    batch = [
        TokenSequence(generator.integers(3, len(tokenizer), length + 1), np.ones(length + 1, np.float32))
        for _ in range(TOKENS // length)
    ]
    reset_peak()
    before = resident_bytes("VmRSS")
    session = Session(
        Path("nowhere"),
        World.single(),
        OptimizerSettings(**(optimizer or {"lr": 1e-3})),
        lambda: make_tiny(SHAPE, tokenizer, seed=0, dtype=DTYPES[dtype]),
        tokenizer,
        dtype=dtype,
        keep_checkpoints=1,
        native=native,
        adapt=adapters(LoRASettings(rank=rank) if rank else None, 0),
    )
    if recompute:
        recompute_activations(session.model)
    for _ in range(2):
        token_step(session, batch, SimpleNamespace(token_budget=TOKENS, grad_clip=1.0), 1.0)
    return resident_bytes("VmHWM") - before


def planned(
    length: int,
    *,
    bf16: bool = False,
    native: str = "off",
    recompute: bool = False,
    rank: int | None = None,
    optimizer: dict[str, Any] | None = None,
) -> dict[str, int]:
    shape, how = Shape.of_settings(SHAPE), Computing(bf16, native=native)
    micro = passes(shape, how, TOKENS, length, recompute=recompute, head_trained=rank is None)
    memory = trained(shape, how, rank=rank) + micro
    return {**vars(memory), "total": memory.total}


def main() -> None:
    way, length = WAYS[sys.argv[1]], int(sys.argv[2])
    tune_process()
    found = {"measured": measured(length, **way), **planned(length, **way)}
    print(json.dumps({name: round(size / (1 << 20)) for name, size in found.items()}))


if __name__ == "__main__":
    main()

"""The parts of the memory plan against what is really held: tensors that autograd saves, buffers of the compiled pass,
resident memory of training processes.

Why this matters: a plan that is too low lets a run die after hours, one that is too high sends people to machines that
they do not need.

Not exercised: GPUs; the plan of whole recipes (test_preflight.py, test_preflight_data.py); docs/memory.md compares it
with the peaks of whole runs.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r1kit.algorithms import entropy
from r1kit.config import ModelSettings, parse_recipe
from r1kit.config.machine import resolve
from r1kit.engines.invariance import LARGE
from r1kit.engines.local import LocalEngine
from r1kit.models import attention
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.lora import LoRAModel
from r1kit.models.native.training import NativePass, _batch, library
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline import memory
from r1kit.pipeline.memory import Computing, Memory, Shape, cached, passes, trained
from r1kit.pipeline.plan import ENGINE_SLOTS, StagePlan, memory_table, plan_stages

from .peak_memory import WAYS

QUICKSTART = ModelSettings(hidden=128, layers=4, heads=2, kv_heads=1, head_dim=64, intermediate=384)
GROUPED = ModelSettings(hidden=96, layers=3, heads=6, kv_heads=2, head_dim=32, intermediate=160)
QWEN = Shape(151936, 896, 24, 14, 2, 64, 4864, tied=True)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("length", [64, 256, 512])
@pytest.mark.parametrize("sizes", [QUICKSTART, GROUPED])
def test_activations_are_what_autograd_saves(sizes: ModelSettings, length: int, bf16: bool) -> None:
    """Sequences over 512 tokens keep no attention weights; the plan says what they take beside short ones."""
    tokenizer, tokens = build_tiny_tokenizer(), 1024
    model = make_tiny(sizes, tokenizer, seed=0, dtype=torch.bfloat16 if bf16 else torch.float32)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if len(tensor) >= tokens // length and tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    segments = (Segment(tokens // length, length),)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(tokens, dtype=torch.int64), positions(segments), packed_attention(segments))
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    how = Computing(bf16)
    wanted = sizes.layers * tokens * Shape.of_settings(sizes).activation_width(length, how) * how.size
    assert 0.9 < wanted / found < 1.3


@needs_compiler
@pytest.mark.parametrize("native", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [64, 1024])
@pytest.mark.parametrize("tokens", [1024, 4096])
@pytest.mark.parametrize("sizes", [QUICKSTART, GROUPED])
def test_activations_are_what_the_compiled_pass_asks_for(
    sizes: ModelSettings, tokens: int, length: int, native: str
) -> None:
    model = NativePass(make_tiny(sizes, build_tiny_tokenizer(), seed=0))
    asked, lengths = np.empty(3, np.int64), np.full(tokens // length, length, np.int64)
    batch = _batch(np.zeros(tokens, np.int64), lengths)
    library().sizes(model._describe(), int(native == "bfloat16"), batch, asked.ctypes.data)
    packed, saved, room = map(int, asked)
    shape, how = Shape.of_settings(sizes), Computing(native=native)
    assert 0.9 < passes(shape, how, tokens, length).activations / (1.25 * (saved + room)) < 1.2
    assert trained(shape, how).weights - trained(shape, Computing()).weights == pytest.approx(packed, rel=0.25)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("length", [256, 1024])
@pytest.mark.parametrize("way", [pytest.param(w, marks=needs_compiler if "compiled" in w else ()) for w in WAYS])
def test_planned_memory_is_what_a_process_takes(way: str, length: int) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not say how much memory a process held at most")
    command = [sys.executable, "-m", "tests.pipeline.peak_memory", way, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(way, length, found)
    assert 0.85 < found["total"] / found["measured"] < 1.4


def test_limits_are_those_of_the_code_that_computes() -> None:
    limits = (attention.EXPLICIT_LENGTH_LIMIT, entropy.KEEP_ELEMENTS, entropy.CACHED_ELEMENTS, entropy.MIN_ROWS, LARGE)
    names = ("SCORED_LENGTH", "KEPT_PROBABILITIES", "CHUNK_ELEMENTS", "CHUNK_ROWS", "PREPARED")
    assert tuple(getattr(memory, name) for name in names) == limits
    assert inspect.signature(LocalEngine).parameters["slots"].default == ENGINE_SLOTS
    assert len(build_tiny_tokenizer()) <= memory.TINY_VOCABULARY


def test_logits_of_a_large_vocabulary_are_a_chunk() -> None:
    """Whole, those of 32,768 tokens would take 18.5 GiB in float32."""
    assert passes(QWEN, Computing(bf16=True), 32768, 4096).logits < 1 << 30
    few, many = (passes(Shape.of_settings(QUICKSTART), Computing(), tokens, 256).logits for tokens in (2048, 1 << 20))
    assert few > many, "the probabilities of few tokens are kept"


def test_recomputing_takes_less_memory() -> None:
    whole, again = (passes(QWEN, Computing(), 32768, 4096, recompute=r).activations for r in (False, True))
    assert again < 0.3 * whole


def test_adapters_take_the_memory_of_adapters() -> None:
    """Counted as they are made, and much less than training all weights of a model where it matters."""
    sizes = ModelSettings(heads=4, kv_heads=2, head_dim=16, hidden=32, intermediate=48, layers=3)
    made = LoRAModel(make_tiny(sizes, build_tiny_tokenizer(), seed=0), rank=5, alpha=1.0)
    assert Shape.of_settings(sizes).adapter_parameters(5) == sum(p.numel() for p in made.parameters())
    large, how = Shape(151936, 3584, 28, 28, 4, 128, 18944, False), Computing(bf16=True)
    assert trained(large, how, rank=16).total < 0.4 * trained(large, how).total


def test_parameters_and_cache_of_a_known_shape() -> None:
    # Qwen2.5-0.5B: 494,032,768 parameters, of which biases and norms (about 71 thousand) are not counted here.
    assert QWEN.parameters == pytest.approx(494_032_768, rel=2e-4)
    # 24 layers x keys and values x 2 heads x 64 numbers x 2 bytes = 12,288 bytes a token.
    assert cached(QWEN, Computing(bf16=True), 10, 1000).cache == 10 * 1000 * 12_288


def test_the_table_has_a_row_for_each_stage_and_no_empty_column() -> None:
    mib = 1 << 20
    plans = [
        StagePlan("base", Memory(process=600 * mib, weights=3 * mib, activations=1500 * mib), 2),
        StagePlan("final", Memory(process=600 * mib, weights=mib // 2, cache=20 * mib), 2),
    ]
    assert memory_table(plans, on_gpu=False) == [
        "MiB a process  process  weights  activations  KV cache  in all",
        "base               600      3.0        1,500         -   2,103",
        "final              600      0.5            -        20     620",
    ]
    assert "process" not in memory_table(plans, on_gpu=True)[0]
    assert [plan.memory_bytes // mib for plan in plans] == [4206, 1241]


def test_what_stands_beside_a_policy_has_its_own_part() -> None:
    def beside(settings: str) -> int:
        rl = f"{{kind: rl, model: '${{base}}', algorithm: {settings}}}"
        text = f"name: x\ntask: countdown\nprocesses: 1\nstages:\n  base: {{kind: pretrain}}\n  rl: {rl}\n"
        return plan_stages(resolve(parse_recipe(text, "recipe.yaml")))[1].memory.beside

    assert beside("{}") == 0
    assert 0 < beside("{kl_coef: 0.1}") < beside("{preset: ppo_orz}") < beside("{preset: prime}")


def test_an_rl_stage_that_recomputes_is_planned_so() -> None:
    """With 4 layers the inputs of all and the insides of one, instead of the insides of all."""

    def activations(settings: str) -> int:
        rl = f"{{kind: rl, model: '${{base}}', {settings}}}"
        text = f"name: x\ntask: countdown\nprocesses: 1\nstages:\n  base: {{kind: pretrain}}\n  rl: {rl}\n"
        return plan_stages(resolve(parse_recipe(text, "recipe.yaml")))[1].memory.activations

    assert activations("recompute: true") < 0.7 * activations("recompute: false")

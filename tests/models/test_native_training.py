"""The compiled training pass against the PyTorch decoder: log-probs, gradients, packing, determinism, refusals.

Why it matters: it is another writing of the decoder's mathematics and of its derivative. Were it to drift, training
would go on and learn something slightly else. The oracle is `Decoder` in float64.

Not exercised: processors other than the one the tests run on; speed (benchmarks/train.py). Skipped where there is no
C++ compiler, and in bfloat16 where the processor does not multiply it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from r1kit.algorithms.entropy import chunked_logprobs
from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.native import build, training
from r1kit.models.native.build import BuildError
from r1kit.models.native.training import NativeError, NativePass, has_bfloat16, library

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")

VOCAB = 37
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"model_type": "qwen2", "qkv_bias": True},
    "qwen3": {"model_type": "qwen3", "qk_norm": True},
    "untied": {"tie_embeddings": False},
    "one_group": {"num_heads": 3, "num_kv_heads": 1},
    "no_groups": {"num_heads": 2, "num_kv_heads": 2},
    "odd_widths": {"hidden_size": 40, "head_dim": 12, "intermediate_size": 50, "vocab_size": 5 + VOCAB},
    "all_switches": {"model_type": "qwen3", "qkv_bias": True, "qk_norm": True, "hidden_size": 72, "head_dim": 40},
    "wide_heads": {"head_dim": 96, "num_layers": 1},
}
# Several lengths, one token alone, a sequence over several blocks of rows and one over a chunk.
SEGMENTS = (Segment(1, 600), Segment(2, 70), Segment(3, 33), Segment(1, 1), Segment(4, 1), Segment(5, 17))
# Largest difference from float64 in a log-prob (nats), and in the gradient of any parameter (relative norm).
TOLERANCE = {"float32": (1e-5, 1e-5), "bfloat16": (0.06, 0.04)}
Network = Callable[..., Tensor]


def decoder_of(**changes: Any) -> Decoder:
    """A decoder whose gains and biases matter."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 32,
        "intermediate_size": 96,
        "model_type": "llama",
        "max_positions": 700,
    }
    model = Decoder(DecoderConfig(**{**sizes, **changes}))
    initialise(model, seed=1, std=0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.5 * torch.rand(parameter.shape, generator=generator))
    return model


def numbers(seed: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids, targets = torch.randint(0, VOCAB, (2, tokens), generator=generator)
    return ids, targets, torch.randn(tokens, generator=generator)


def run(model: Decoder, network: Network, segments: tuple[Segment, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Log-probs of random targets, and the gradient of their sum with random weights."""
    ids, targets, weights = numbers(seed, sum(s.tokens for s in segments))
    for parameter in model.parameters():
        parameter.grad = None
    hidden = network(ids, positions(segments), packed_attention(segments))
    logprobs, _ = chunked_logprobs(hidden, model.head_weight, targets)
    (logprobs * weights).sum().backward()
    return logprobs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def exact(model: Decoder, segments: tuple[Segment, ...]) -> tuple[Tensor, list[Tensor]]:
    double = copy.deepcopy(model).double()
    double.phase_PC = double.phase_PC.to(torch.complex128)
    return run(double, double, segments)


def distances(found: tuple[Tensor, list[Tensor]], wanted: tuple[Tensor, list[Tensor]]) -> tuple[float, float]:
    pairs = list(zip(found[1], wanted[1], strict=True))
    gradient = max(float((ours.double() - theirs.double()).norm() / theirs.norm()) for ours, theirs in pairs)
    return float((found[0].double() - wanted[0].double()).abs().max()), gradient


def precision(name: str) -> str:
    if name == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16 matrix products (AMX)")
    return name


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_decoder(shape: str, kind: str) -> None:
    model = decoder_of(**SHAPES[shape])
    found = run(model, NativePass(model, precision(kind)), SEGMENTS)
    assert len(found[1]) == len(list(model.parameters()))
    logprob, gradient = distances(found, exact(model, SEGMENTS))
    assert logprob < TOLERANCE[kind][0]
    assert gradient < TOLERANCE[kind][1]


@pytest.mark.parametrize("kind", TOLERANCE)
def test_it_is_as_near_to_exact_arithmetic_as_pytorch(kind: str) -> None:
    """It may not lose digits that PyTorch keeps in the same dtype; in bfloat16 it keeps sums and norms in float32."""
    model = decoder_of(num_layers=4, hidden_size=128, head_dim=64, num_heads=2, num_kv_heads=1)
    wanted = exact(model, SEGMENTS)
    ours = distances(run(model, NativePass(model, precision(kind)), SEGMENTS), wanted)
    plain = copy.deepcopy(model).to(getattr(torch, kind))
    theirs = distances(run(plain, plain, SEGMENTS), wanted)
    slack = 3.0 if kind == "float32" else 1.0
    assert ours[0] < slack * theirs[0]
    assert ours[1] < slack * theirs[1]


def test_no_tokens_leave_no_gradient() -> None:
    model = decoder_of()
    logprobs, gradients = run(model, NativePass(model), ())
    assert logprobs.numel() == 0
    assert not any(gradient.any() for gradient in gradients)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=9),  # of one chunk, or of two
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2)]),
    head_dim=st.sampled_from([2, 8, 34]),
    hidden=st.integers(8, 70),  # narrower, a norm cancels nearly everything and float32 keeps no digits
    intermediate=st.integers(1, 70),
    switches=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_shape_runs(
    lengths: list[int],
    heads: tuple[int, int],
    head_dim: int,
    hidden: int,
    intermediate: int,
    switches: tuple[bool, bool, bool],
) -> None:
    bias, norm, tied = switches
    model = decoder_of(
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=head_dim,
        hidden_size=hidden,
        intermediate_size=intermediate,
        qkv_bias=bias,
        qk_norm=norm,
        tie_embeddings=tied,
        num_layers=1,
    )
    segments = tuple(Segment(1, length) for length in lengths)
    logprob, gradient = distances(run(model, NativePass(model), segments), exact(model, segments))
    assert logprob < 2e-5
    assert gradient < 2e-5


@pytest.mark.parametrize("kind", TOLERANCE)
def test_neighbours_and_order_change_no_bit(kind: str) -> None:
    """A sequence alone gives the hidden states it has in any company."""
    model = decoder_of()
    network = NativePass(model, precision(kind))
    ids, _, _ = numbers(0, sum(s.tokens for s in SEGMENTS))
    with torch.no_grad():
        together = network(ids, positions(SEGMENTS), packed_attention(SEGMENTS))
        start = 0
        for length in [s.length for s in SEGMENTS for _ in range(s.rows)]:
            part, alone = slice(start, start + length), [Segment(1, length)]
            assert torch.equal(network(ids[part], positions(alone), packed_attention(alone)), together[part])
            start += length


@pytest.mark.parametrize("kind", TOLERANCE)
def test_two_runs_are_equal_bit_for_bit(kind: str) -> None:
    model = decoder_of(qk_norm=True, qkv_bias=True)
    network = NativePass(model, precision(kind))
    first = run(model, network, SEGMENTS)
    run(model, network, SEGMENTS[2:], seed=5)  # leaves other numbers in all buffers
    for again in (run(model, network, SEGMENTS), run(model, NativePass(model, kind), SEGMENTS)):
        assert torch.equal(again[0], first[0])
        assert all(torch.equal(a, b) for a, b in zip(again[1], first[1], strict=True))


def test_gradients_are_added_to_those_there_are() -> None:
    model = decoder_of()
    network = NativePass(model)
    _, once = run(model, network, SEGMENTS)
    ids, targets, weights = numbers(0, sum(s.tokens for s in SEGMENTS))
    hidden = network(ids, positions(SEGMENTS), packed_attention(SEGMENTS))
    logprobs, _ = chunked_logprobs(hidden, model.head_weight, targets)
    (logprobs * weights).sum().backward()
    for parameter, single in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * single, rtol=1e-4, atol=1e-5)


def test_two_forward_passes_may_wait_for_their_backward_passes() -> None:
    """As with two losses in one graph: each keeps what it needs."""
    model = decoder_of()
    network = NativePass(model)
    expected = [run(model, network, segments)[1] for segments in (SEGMENTS, SEGMENTS[1:4])]
    for parameter in model.parameters():
        parameter.grad = None
    losses = []
    for segments in (SEGMENTS, SEGMENTS[1:4]):
        ids, targets, weights = numbers(0, sum(s.tokens for s in segments))
        hidden = network(ids, positions(segments), packed_attention(segments))
        losses.append((chunked_logprobs(hidden, model.head_weight, targets)[0] * weights).sum())
    (losses[0] + losses[1]).backward()
    for parameter, *parts in zip(model.parameters(), *expected, strict=True):
        torch.testing.assert_close(parameter.grad, parts[0] + parts[1], rtol=1e-4, atol=1e-5)


def test_changed_parameters_are_taken_over() -> None:
    model = decoder_of()
    network = NativePass(model)
    run(model, network, SEGMENTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    network.refresh()
    ours, fresh = run(model, network, SEGMENTS), run(model, NativePass(model), SEGMENTS)
    assert torch.equal(ours[0], fresh[0])


def test_the_processors_tiles_are_left_as_they_were() -> None:
    """PyTorch's own bfloat16 products configure the same registers and trust them to stay."""
    model = decoder_of()
    network = NativePass(model, precision("bfloat16"))
    x, weight = torch.randn(300, 96).bfloat16(), torch.randn(70, 96).bfloat16()
    before = torch.nn.functional.linear(x, weight)
    run(model, network, SEGMENTS)
    assert torch.equal(torch.nn.functional.linear(x, weight), before)


def test_tiny_numbers_stay_pytorchs_own_affair() -> None:
    """Within a call they count as 0, since each costs a hundred cycles; behind it they are what they were."""
    model = decoder_of()
    run(model, NativePass(model), SEGMENTS)
    assert (torch.full((64,), 1e-39) * 0.5).count_nonzero() == 64


def hidden_of(network: NativePass, ids: list[int], segments: list[Segment]) -> Tensor:
    return network(torch.tensor(ids), positions(segments), packed_attention(segments))


def test_misuse_is_refused() -> None:
    model = decoder_of(max_positions=8)
    network = NativePass(model)
    for damaged in ([0, VOCAB, 1], [0, -1, 1]):
        with pytest.raises(IndexError, match="the vocabulary has 37"):
            hidden_of(network, damaged, [Segment(1, 3)])
    with pytest.raises(ValueError, match="3 token ids for segments of 4"):
        hidden_of(network, [1, 2, 3], [Segment(2, 2)])
    with pytest.raises(ValueError, match="knows 8 positions"):
        hidden_of(network, [1] * 9, [Segment(1, 9)])
    total = hidden_of(network, [1, 2], [Segment(1, 2)]).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="called twice"):
        total.backward()
    total = hidden_of(network, [1, 2], [Segment(1, 2)]).sum()
    network.refresh()
    with pytest.raises(RuntimeError, match="changed between"):
        total.backward()


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, reason in (
        (decoder_of().double(), "expected torch.float32 on cpu"),
        (decoder_of().bfloat16(), "expected torch.float32 on cpu"),
        (torch.nn.Linear(2, 2), "runs through Transformers"),
        (decoder_of().requires_grad_(False), "frozen"),
    ):
        with pytest.raises(NativeError, match=f"{reason}.*turn it off"):
            NativePass(model)  # type: ignore[arg-type]
    with pytest.raises(NativeError, match="expected one of float32, bfloat16"):
        NativePass(decoder_of(), "float16")
    monkeypatch.setattr(training, "has_bfloat16", lambda: False)
    with pytest.raises(NativeError, match="use float32"):
        NativePass(decoder_of(), "bfloat16")


def test_a_missing_or_failing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "broken.cpp"
    broken.write_text("void forward(", encoding="utf-8")
    with pytest.raises(BuildError, match=r"could not build broken\.cpp"):
        build.build(broken)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="install g"):
        build.build(broken)
    assert not list(tmp_path.rglob("*.so"))


def test_the_layouts_of_both_languages_agree() -> None:
    """The structures are written twice, in C++ and in ctypes: sizes asked of the library show that they match."""
    model = decoder_of(num_layers=3)
    network = NativePass(model)
    bytes_ = np.zeros(3, np.int64)
    ids, lengths = np.zeros(5, np.int64), np.array([5], np.int64)
    library().sizes(network._describe(), 0, training._batch(ids, lengths), bytes_.ctypes.data)
    layer = 2 * 4 * (256 * 64 + 128 * 64 + 192 * 64 + 96 * 64) + 4 * (256 + 2 * 32)
    assert bytes_[0] == 3 * layer

"""Training through the compiled pass: whole steps equal those through PyTorch, on one rank and on two, and resume.

Why this matters: the switch `native` changes what computes, never what is learned. A gradient that lands in the wrong
place, is reduced before it is written, or weights that are packed a step too early would all still train, only worse.

Not exercised here: the pass itself (tests/models/test_native_training.py); gloo, which ranks as threads stand in for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.config.parts import OptimizerSettings
from r1kit.models.native.training import NativeError, NativePass, has_bfloat16
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.pretraining import train_step
from r1kit.training.session import Session
from r1kit.training.update import update

from .helpers import random_groups, rl_settings, tiny_model
from .preset_updates import on_ranks
from .ranks import Results
from .test_optim_native import native_kinds
from .test_pretraining import batch_of
from .test_pretraining import settings as pretrain_settings

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")

MUON = OptimizerSettings(name="muon", lr=0.02, adam_lr=3e-3)
ADAMW = OptimizerSettings(name="adamw", lr=1e-3)
LENGTHS = [40, 3, 17, 17, 2, 29]


def session(native: str, world: World | None = None, directory: Path = Path("none"), optimizer: Any = MUON) -> Session:
    return Session(
        directory,
        world or World.single(),
        optimizer,
        tiny_model,
        build_tiny_tokenizer(),
        dtype="float32",
        keep_checkpoints=1,
        native=native,
    )


def trained_session(native: str, world: World, stopped: Path | None = None) -> tuple[dict[str, np.ndarray], bool]:
    """What four steps of pre-training leave, and whether all ranks have one master. `stopped`: where a session is saved
    after two of them, for another to go on."""
    settings = pretrain_settings(token_budget=90)

    def steps(state: Session) -> Session:
        for _ in range(2):
            train_step(state, batch_of(LENGTHS), settings, 1.0)
        return state

    state = steps(session(native, world, stopped or Path("none")))
    if stopped is not None:
        state.save(2, {})
        state = session(native, world, stopped)
        assert state.start_step == 2
    steps(state)
    tensors = {"weights": state.flat.master, **state.optimizer.state()}
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}, state.flat.is_common


def pretrained(native: str, world: World | None = None, steps: int = 2) -> dict[str, np.ndarray]:
    state = session(native, world)
    results = [train_step(state, batch_of(LENGTHS), pretrain_settings(token_budget=90), 1.0) for _ in range(steps)]
    return {
        "loss": np.array([loss for loss, _ in results]),
        "grad": state.flat.grad.numpy(),
        "weights": state.flat.master.numpy(),
    }


def test_pretraining_steps_equal_those_through_pytorch() -> None:
    found, wanted = pretrained("float32"), pretrained("off")
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-5 * np.abs(values).max(), err_msg=name)


def test_an_rl_update_equals_one_through_pytorch() -> None:
    found = {}
    for native in ("float32", "off"):
        state = session(native, optimizer=ADAMW)
        metrics = update(state, random_groups(6), rl_settings(token_budget=60), 1.0, None)
        found[native] = (state.flat.grad, metrics)
    wanted = found["off"][0]
    assert (found["float32"][0] - wanted).norm() < 1e-5 * wanted.norm()
    assert found["float32"][1] == pytest.approx(found["off"][1], rel=1e-4, abs=1e-6)


def test_two_ranks_make_the_gradient_of_one() -> None:
    alone = pretrained("float32", steps=1)
    first, second = on_ranks(lambda world: pretrained("float32", world, steps=1), 2)
    assert np.array_equal(first["weights"], second["weights"])
    np.testing.assert_allclose(first["grad"], alone["grad"], rtol=1e-4, atol=1e-6 * np.abs(alone["grad"]).max())


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_a_resumed_session_goes_on_bit_for_bit(tmp_path: Path, native: str) -> None:
    if native == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16 matrix products (AMX)")

    def train(state: Session, steps: int) -> list[tuple[float, float]]:
        return [train_step(state, batch_of(LENGTHS), pretrain_settings(token_budget=90), 1.0) for _ in range(steps)]

    straight = session(native, directory=tmp_path / "straight")
    train(straight, 2)
    expected = train(straight, 2)
    broken = session(native, directory=tmp_path / "broken")
    train(broken, 2)
    broken.save(2, {})
    resumed = session(native, directory=tmp_path / "broken")
    assert isinstance(resumed.network, NativePass)
    assert train(resumed, 2) == expected
    assert torch.equal(resumed.flat.master, straight.flat.master)


def test_in_bfloat16_the_loss_falls_as_in_float32() -> None:
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16 matrix products (AMX)")
    losses = {native: pretrained(native, steps=25)["loss"] for native in ("off", "bfloat16")}
    assert losses["off"][-1] < losses["off"][0] - 0.5
    np.testing.assert_allclose(losses["bfloat16"], losses["off"], atol=0.05)


def test_a_model_that_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(NativeError, match="turn it off"):
        Session(
            Path("none"),
            World.single(),
            ADAMW,
            lambda: tiny_model(dtype=torch.bfloat16),
            build_tiny_tokenizer(),
            dtype="bfloat16",
            keep_checkpoints=1,
            native="float32",
        )


def test_one_master_trains_as_one_for_each_rank_and_resumes(two_ranks: Results) -> None:
    ranks = two_ranks["native_session"]
    for kind in native_kinds():
        wanted = {name: values for name, values in ranks[0].items() if name.startswith(f"{kind}/gloo/")}
        assert len(wanted) > 3
        for way in ("shared", "resumed"):
            for rank in ranks:
                assert rank[f"{kind}/{way}/is_common"] == two_ranks["shared_memory"][0]["shares"]
                for name, values in wanted.items():
                    if not name.endswith("is_common"):
                        assert np.array_equal(rank[name.replace("gloo", way)], values), f"{way}: {name}"
        assert not ranks[0][f"{kind}/gloo/is_common"]

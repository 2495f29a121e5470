"""Every kind of training and sampling on another device than the CPU, without one: tests/training/pretended.py.

Why it matters: one array of NumPy's that is not moved, one mask or index made where the weights are not, and a stage
dies on a GPU in its first step, where nobody who develops on a laptop sees it. Here whole stages and the updates of the
presets run on a device that refuses the CPU's tensors, and their numbers must be those of the CPU.

Not exercised without a GPU: its kernels, its memory, nccl, speed, bfloat16 products; with one, the last tests here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1kit.config.parts import OptimizerSettings
from r1kit.models.loading import load_model
from r1kit.models.reward_model import RewardModel
from r1kit.training import rl
from r1kit.training.parallel import World
from r1kit.training.pretraining import pretrain
from r1kit.training.recorder import Interrupted
from r1kit.training.token_step import evaluate_tokens, token_step

from . import sigkill_stages, test_pretraining
from .helpers import session, tiny_model, token_sequences
from .preset_updates import Cut, preset_gradients
from .pretended import DevicesMet, There, elsewhere
from .stage import TASK, TASK_SETTINGS, ListRecorder, even_tokens, stage_settings, write_base

# Every loss, every role beside the policy, everything that acts on entropy; presets that differ in numbers are one.
UPDATES = (
    "grpo",
    "vapo",
    "gspo",
    "ppo_orz",
    "shared critic",
    "prime",
    "step rewards",
    "80/20",
    "entropy bonus",
    "gfpo",
)
MORE_UPDATES = ("dapo", "reinforce_pp", "gmpo", "cispo", "k3_k2")
JOBS = ("sft", "dpo", "kto", "implicit", "generate")
# Compiled passes are for the processor, two processes need two devices, and the others train nothing.
ELSEWHERE = (*sigkill_stages.COMPILED, *sigkill_stages.IN_TWO, "merge", "evaluate")
SMALL: dict[str, Any] = {"steps": 2, "engine": {"slots": 8, "deterministic": False}}
RL_STAGES: dict[str, dict[str, Any]] = {
    "evaluated": {**SMALL, "evaluate": {"every": 2, "problems": 2, "samples": 2, "max_tokens": 4}},
    "adapters, corrected": {
        **SMALL,
        "evaluate": {"every": 0},
        "lora": {"rank": 4, "alpha": 8},
        "mismatch": {"correction": "token_tis"},
    },
    "recomputed": {**SMALL, "evaluate": {"every": 0}, "recompute": True},
}
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")


def slow(names: Iterable[str]) -> list[Any]:
    """Cases that say little beside the others."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sigkill_stages.prepared(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def other_device() -> Iterator[str]:
    with elsewhere() as device:
        yield device


def test_the_other_device_refuses_what_a_gpu_refuses(other_device: str) -> None:
    here, there = torch.ones(3), torch.ones(3, device=other_device)
    with pytest.raises(DevicesMet):
        there + here
    with pytest.raises(DevicesMet):
        torch.where(there > 0, there, here)
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    assert (there * 2 + here.to(other_device)).cpu().tolist() == [3.0] * 3
    assert torch.where(there > 0, there, 0.0).sum().item() == 3.0


@pytest.mark.parametrize("name", [*UPDATES, *slow(MORE_UPDATES)])
def test_an_update_is_that_of_the_cpu(base: Path, name: str, other_device: str) -> None:
    cut = Cut(parts=2)
    want = preset_gradients(World.single(), name, base, cut)
    got = preset_gradients(World(device=other_device), name, base, cut)
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_on_tokens_is_that_of_the_cpu(optimizer: str, dtype: torch.dtype, other_device: str) -> None:
    """Pre-training and supervised fine-tuning; in bfloat16 with float32 master weights."""
    rates = {"lr": 0.01, **({"adam_lr": 0.003} if optimizer == "muon" else {})}
    chosen = OptimizerSettings.model_validate({"name": optimizer, "weight_decay": 0.1, **rates})
    settings = test_pretraining.settings(grad_clip=1.0)

    def stepped(device: str) -> tuple[list[float], torch.Tensor]:
        state = session(World(device=device), tiny_model(dtype=dtype).to(device), chosen)
        results = [token_step(state, token_sequences(), settings, 1.0, accuracy=True) for _ in range(2)]
        found = [x for r in results for x in (r.loss, r.norm, r.accuracy or 0.0)]
        return [*found, *evaluate_tokens(state, token_sequences(), 90)], state.flat.master.cpu()

    (want, weights), (got, moved) = stepped("cpu"), stepped(other_device)
    loose = 0.05 if dtype == torch.bfloat16 else 1e-4
    assert got == pytest.approx(want, rel=loose)
    assert (moved - weights).norm() <= loose * weights.norm()


@pytest.mark.parametrize("job", [*JOBS, *slow(sigkill_stages.JOBS.keys() - {*JOBS, *ELSEWHERE})])
def test_a_stage_that_learns_from_data_is_that_of_the_cpu(
    folder: Path, tmp_path: Path, job: str, other_device: str
) -> None:
    def rows(device: str) -> list[dict[str, Any]]:
        (tmp_path / device).mkdir()
        sigkill_stages.JOBS[job](folder, tmp_path / device, World(device=device))
        log = (tmp_path / device / "metrics.jsonl").read_text()
        return [_numbers(json.loads(line)) for line in log.splitlines()]

    want, got = rows("cpu"), rows(other_device)
    assert len(want) > 2
    _assert_alike(got, want)


@pytest.mark.parametrize("name", RL_STAGES)
def test_a_stage_of_rl_is_that_of_the_cpu_and_resumes(
    base: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, other_device: str
) -> None:
    """Sampling, judging, update, evaluation; interrupted, saved from the device and brought back to it."""
    monkeypatch.setattr(rl, "make_reward", lambda settings, **_: even_tokens)

    def trained(device: str, directory: str, recorder: ListRecorder) -> list[dict[str, Any]]:
        rl.train_rl(
            stage_settings(**RL_STAGES[name]),
            stage="rl",
            model_path=base,
            task=TASK,
            seed=5,
            world=World(device=device),
            recorder=recorder,
            directory=tmp_path / directory,
            dtype="float32",
        )
        return recorder.rows

    want = trained("cpu", "cpu", ListRecorder())
    assert any(row.get("grad_norm", 0) > 0 for row in want)
    broken = ListRecorder(stop_after=1)
    with pytest.raises(Interrupted):
        trained(other_device, "there", broken)
    broken.stop_after = None
    _assert_alike(trained(other_device, "there", broken), want)


def test_pre_training_makes_its_base_on_the_device(tmp_path: Path, other_device: str) -> None:
    def rows(device: str) -> list[dict[str, Any]]:
        recorder = ListRecorder()
        pretrain(
            test_pretraining.settings(),
            stage="base",
            task=TASK,
            task_settings=TASK_SETTINGS,
            seed=5,
            world=World(device=device),
            recorder=recorder,
            directory=tmp_path / device,
            dtype="float32",
        )
        return recorder.rows

    _assert_alike(rows(other_device), rows("cpu"))


def test_a_reward_model_scores_on_the_device(folder: Path, tmp_path: Path, other_device: str) -> None:
    judge = sigkill_stages.judging({"method": "pairwise"}, folder, tmp_path, World.single()).model
    assert judge is not None
    there = RewardModel.load(judge, device=other_device)
    assert isinstance(there.model.weight, There)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()[:4]]
    items = [_item(row) for row in rows]
    np.testing.assert_allclose(there.score(items), RewardModel.load(judge).score(items), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@ON_CUDA
def test_the_decoder_on_cuda_is_that_of_the_cpu(base: Path, dtype: str) -> None:
    from .test_token_step import by_hand

    batch = token_sequences()
    state = session(World(device="cuda:0"), load_model(base, dtype=dtype, device="cuda:0"))  # type: ignore[arg-type]
    loss, _ = evaluate_tokens(state, batch, 60)
    assert loss == pytest.approx(by_hand(load_model(base), batch)[0], rel=1e-4 if dtype == "float32" else 0.05)
    token_step(state, batch, test_pretraining.settings(), 1.0)
    assert bool(torch.isfinite(state.flat.master).all())


@ON_CUDA
def test_a_stage_of_rl_on_cuda(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl, "make_reward", lambda settings, **_: even_tokens)
    recorder = ListRecorder()
    run = rl.RLRun(
        stage_settings(), "rl", base, TASK, 5, World.single("cuda"), recorder, tmp_path / "cuda", "float32"
    )  # fmt: skip
    run.train()
    gaps = [row["gap_max"] for row in recorder.rows if "gap_max" in row]
    assert gaps
    assert max(gaps) < 1e-3  # the engine's log-probs are the trainer's
    assert any(row.get("grad_norm", 0) > 0 for row in recorder.rows)


def _item(row: dict[str, Any]) -> Any:
    from r1kit.records import Message

    return [Message(**m) for m in row["prompt"]], Message(**row["chosen"])


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl without what a clock said."""
    return {k: v for k, v in row.items() if isinstance(v, (int, float)) and not k.endswith(("_s", "seconds", "time"))}


def _assert_alike(got: list[dict[str, Any]], want: list[dict[str, Any]]) -> None:
    """The same rows; numbers but for rounding, which differs with the form of attention."""
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if isinstance(value, (int, float)):
                assert ours[key] == pytest.approx(value, rel=2e-3, abs=2e-4), (key, ours.get("step"))

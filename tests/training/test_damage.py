"""What every stage that learns from data, or makes them, does on a bad day.

Why this matters: a damaged file, a full disk and another model's tokenizer are what people meet. Each has to end in
words, leave what was good as it was, and let the same command go on to the result of a stage that had a good day.

Not exercised: checkpoints by themselves (test_checkpoints.py), merges (tests/models/test_merging.py), rl.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit.curation import generate as generating
from r1kit.models.checkpoint import CheckpointError
from r1kit.models.loading import write_model
from r1kit.models.own_tokenizer import FINGERPRINT
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training import checkpoints, reference
from r1kit.training.checkpoints import complete_checkpoints, verify_checkpoint
from r1kit.training.recorder import NullRecorder

from .helpers import tiny_model
from .sigkill_stages import IN_TWO, JOBS, prepared, run
from .stage import swap_two_ids, write_untrained
from .test_sigkill_stages import compare

# Those that keep checkpoints of their own on the way, in one process.
TRAINED = [job for job in JOBS if job not in ("generate", "merge", "evaluate", *IN_TWO)]
# Those that start from a model, in one process.
STARTED = [job for job in JOBS if not job.startswith("pretrain") and not job.endswith("_two")]
REFERENCES = ["dpo", "implicit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a stage that was left alone, run when it is first asked for."""
    root = tmp_path_factory.mktemp("alone")

    def made(job: str) -> Path:
        if not (root / job).is_dir():
            run(job, folder, root / job)
        return root / job

    return made


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_at(count: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but on its `count`-th call the disk is full."""
    calls = 0

    def call(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return full() if calls == count else real(*args, **named)

    return call


@pytest.mark.parametrize("job", TRAINED)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_leads_to_the_same_end(
    job: str, folder: Path, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(alone(job), tmp_path / job)
    *_, (_, before), (_, newest) = complete_checkpoints(tmp_path / job / "checkpoints")
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: is damaged or truncated.*{newest.name} to go on"):
        run(job, folder, tmp_path / job)
    verify_checkpoint(before)
    shutil.rmtree(newest)
    run(job, folder, tmp_path / job)
    compare(alone(job), tmp_path / job)


@pytest.mark.parametrize("job", TRAINED)
def test_a_full_disk_leaves_the_last_checkpoint_and_the_stage_goes_on(
    job: str, folder: Path, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / job
    with pytest.MonkeyPatch.context() as patch:
        # The second checkpoint: its weights are written, its optimiser's state no longer fits.
        patch.setattr(checkpoints, "save_file", full_at(2, checkpoints.save_file))
        with pytest.raises(OSError, match="No space left"):
            run(job, folder, place)
    ((step, path),) = complete_checkpoints(place / "checkpoints")
    verify_checkpoint(path)
    assert step > 0
    assert not list((place / "checkpoints").glob(".*"))
    run(job, folder, place)
    compare(alone(job), place)


@pytest.mark.parametrize("job", REFERENCES)
def test_what_a_reference_said_is_kept_whole_or_not_at_all(
    job: str, folder: Path, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / job
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(job, folder, place)
    assert not list(place.rglob("*reference-*"))
    run(job, folder, place)
    (kept,) = (place / "checkpoints").glob("reference-*.json")
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])  # what a disk makes of it; the stage is begun anew
    for _, path in complete_checkpoints(place / "checkpoints"):
        shutil.rmtree(path)
    run(job, folder, place)
    assert kept.read_bytes() == content
    compare(alone(job), place)


def test_waves_of_answers_outlive_a_full_disk(folder: Path, alone: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generating, "write_atomic", full_at(3, generating.write_atomic))
        with pytest.raises(OSError, match="No space left"):
            run("generate", folder, tmp_path)
    assert len(list((tmp_path / "data" / "counts").iterdir())) == 2
    run("generate", folder, tmp_path)
    compare(alone("generate"), tmp_path)
    damaged = tmp_path / "data" / "counts" / "wave-000001.json"
    damaged.write_text('{"answ')
    with pytest.raises(CheckpointError, match=r"wave-000001\.json: damaged .*Delete it: its wave is then answered"):
        run("generate", folder, tmp_path)
    damaged.unlink()
    run("generate", folder, tmp_path)
    compare(alone("generate"), tmp_path)


@pytest.mark.parametrize("job", [job for job in STARTED if job != "merge"])
def test_another_models_tokenizer_is_refused(job: str, folder: Path, tmp_path: Path) -> None:
    """One of more tokens than the model has rows."""
    for file in folder.glob("*.jsonl"):
        shutil.copy2(file, tmp_path)
    write_model(tiny_model(vocab_size=20), build_tiny_tokenizer(), tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"embedding 20 rows: this is not the model's tokenizer"):
        run(job, tmp_path, tmp_path / "stage")


@pytest.mark.parametrize("job", STARTED)
def test_a_tokenizer_of_as_many_tokens_in_another_order_is_refused(job: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "inputs")
    swap_two_ids(tmp_path / "inputs" / "base")
    with pytest.raises(CheckpointError, match=r"not trained with this tokenizer: of its 203 tokens some have other"):
        run(job, tmp_path / "inputs", tmp_path / "stage")
    assert not list((tmp_path / "stage").rglob("*.safetensors"))


@pytest.mark.parametrize("job", ["sft", "dpo", "pairwise"])
@pytest.mark.parametrize("known", [True, False], ids=["fingerprint", "no fingerprint"])
def test_a_tokenizer_that_changes_between_two_starts_leaves_the_checkpoints_whole(
    job: str, known: bool, folder: Path, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    """The stage's base lost its tokenizer after the first checkpoints, and another program's base has no fingerprint:
    then that of the stage's own checkpoint tells."""
    inputs = tmp_path / "inputs"
    shutil.copytree(folder, inputs)
    shutil.copytree(alone(job), tmp_path / "stage")
    *_, (_, before), (_, newest) = complete_checkpoints(tmp_path / "stage" / "checkpoints")
    shutil.rmtree(newest)
    swap_two_ids(inputs / "base")
    if not known:
        (inputs / "base" / FINGERPRINT).unlink()
    named = before if not known else inputs / "base"
    with pytest.raises(CheckpointError, match=rf"{named / FINGERPRINT}: the weights beside it were not trained with"):
        run(job, inputs, tmp_path / "stage")
    verify_checkpoint(before)
    shutil.copytree(folder / "base", inputs / "base", dirs_exist_ok=True)  # as the message says
    run(job, inputs, tmp_path / "stage")
    compare(alone(job), tmp_path / "stage")


@pytest.mark.parametrize("job", [job for job in STARTED if job != "merge"])
def test_untrained_tokens_are_warned_of(
    job: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge only measures what its models, each warned of where it was made, become."""
    shutil.copytree(folder, tmp_path / "inputs", ignore=shutil.ignore_patterns("base"))
    write_untrained(tmp_path / "inputs" / "base", "<eos>")
    notes: list[str] = []
    monkeypatch.setattr(NullRecorder, "note", lambda self, stage, text: notes.append(text))
    run(job, tmp_path / "inputs", tmp_path / "stage")
    assert sum("warning: the embeddings of <eos> look untrained" in note for note in notes) == 1


def test_a_reference_of_other_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens(["<other>"])
    write_model(tiny_model(vocab_size=len(tokenizer)), tokenizer, tmp_path / "other")
    inputs = {"model": folder / "base", "reference_model": tmp_path / "other"}
    with pytest.raises(CheckpointError, match=r"tokenizer of the reference is not that of .*1 tokens differ.*<other>"):
        reference.load_reference(inputs, "float32")

"""Checkpoints written whole or not at all.

Why this matters: machines die while files are written and disks fill up. A checkpoint that only looks finished costs
the whole run; so COMPLETE comes last, a full disk leaves the one before untouched, and damage is named before training.

Not exercised here: the contents (test_session.py); power loss between two flushes; kill -9 of a run (tests/pipeline).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from r1kit.models.checkpoint import CheckpointError
from r1kit.training import checkpoints
from r1kit.training.checkpoints import COMPLETE, complete_checkpoints, latest_checkpoint, load_state, save_checkpoint

TENSORS = {"first": torch.arange(5.0), "count": torch.tensor(3)}


def write_model(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"weights of the model")
    (path / "config.json").write_text("{}")


def save(
    directory: Path,
    step: int,
    *,
    keep: int = 2,
    writer: Callable[[Path], None] = write_model,
    tensors: dict[str, Tensor] = TENSORS,
) -> Path:
    return save_checkpoint(directory, step, write_model=writer, tensors=tensors, state={"cursor": 10 * step}, keep=keep)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    assert path == latest_checkpoint(tmp_path) == tmp_path / "step-000007"
    assert names(path) == sorted([COMPLETE, "config.json", "model.safetensors", "trainer.json", "trainer.safetensors"])
    tensors, state = load_state(path)
    assert state == {"step": 7, "cursor": 70}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_folders_of_a_tokenizer_are_saved_and_checked(tmp_path: Path) -> None:
    """A tokenizer with several chat templates writes them into a folder."""

    def with_folder(path: Path) -> None:
        write_model(path)
        (path / "additional_chat_templates").mkdir()
        (path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")

    path = save(tmp_path, 5, writer=with_folder)
    assert latest_checkpoint(tmp_path) == path
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("{{")
    with pytest.raises(CheckpointError, match=r"tool_use\.jinja: is damaged"):
        latest_checkpoint(tmp_path)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert latest_checkpoint(tmp_path) is None


def test_complete_is_written_after_everything_it_lists_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is flushed before COMPLETE exists, COMPLETE before the rename, the directory after it."""
    flushed: list[str] = []
    real = checkpoints.flush

    def watch(path: Path) -> None:
        if path.is_file() and path.name != COMPLETE:
            assert not (path.parent / COMPLETE).exists()
        if path == tmp_path:
            assert (tmp_path / "step-000001").is_dir()
        flushed.append(path.name)
        real(path)

    monkeypatch.setattr(checkpoints, "flush", watch)
    path = save(tmp_path, 1)
    assert set(json.loads((path / COMPLETE).read_text())) == set(names(path)) - {COMPLETE}
    assert flushed[-3:] == [COMPLETE, ".tmp-step-000001", tmp_path.name]
    assert set(flushed[:-3]) == set(names(path)) - {COMPLETE}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 100, 20):
        save(tmp_path, step, keep=2)
    assert [step for step, _ in complete_checkpoints(tmp_path)] == [20, 100]


def test_a_step_saved_again_replaces_itself(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 5, tensors={"first": torch.ones(1)})
    assert names(tmp_path) == ["step-000005"]
    assert load_state(tmp_path / "step-000005")[0]["first"].tolist() == [1.0]


def test_half_written_directories_are_no_checkpoints(tmp_path: Path) -> None:
    """What kill -9 leaves: a temporary directory, or (from elsewhere) a step without COMPLETE."""
    good = save(tmp_path, 5)
    (tmp_path / ".tmp-step-000010").mkdir()
    write_model(tmp_path / ".tmp-step-000010")
    (tmp_path / "step-000020").mkdir()
    write_model(tmp_path / "step-000020")
    assert latest_checkpoint(tmp_path) == good
    # The step done again takes the place of its own remains.
    assert save(tmp_path, 10).name == "step-000010"
    assert ".tmp-step-000010" not in names(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "trainer.json", "config.json", COMPLETE])
@pytest.mark.parametrize("kept", [0, -1])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: int) -> None:
    file = save(tmp_path, 5) / name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{name}: is damaged or truncated .*Delete the directory .*step-000005"):
        latest_checkpoint(tmp_path)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = save(tmp_path, 5) / "trainer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"trainer\.safetensors: is damaged"):
        latest_checkpoint(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (save(tmp_path, 5) / "trainer.json").unlink()
    with pytest.raises(CheckpointError, match=r"trainer\.json: is missing"):
        latest_checkpoint(tmp_path)


def test_an_unfinished_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was never finished"):
        checkpoints.verify_checkpoint(tmp_path)


class FullDisk:
    """Raises ENOSPC at one moment of a save."""

    def writer(self, path: Path) -> None:
        (path / "model.safetensors").write_bytes(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("moment", ["while the model is written", "while files are flushed", "at the rename"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    good = save(tmp_path, 5, keep=1)
    full = FullDisk()
    writer = full.writer if "model" in moment else write_model
    with monkeypatch.context() as patch:
        if moment == "while files are flushed":
            patch.setattr(checkpoints, "flush", full.flush)
        if moment == "at the rename":
            patch.setattr(Path, "rename", lambda self, target: full.flush(self))
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 10, keep=1, writer=writer)
    assert names(tmp_path) == ["step-000005"]
    assert latest_checkpoint(tmp_path) == good
    # With room again the next save goes through and takes the old one's place.
    save(tmp_path, 10, keep=1)
    assert names(tmp_path) == ["step-000010"]


def test_ctrl_c_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        write_model(path)
        raise KeyboardInterrupt

    good = save(tmp_path, 5)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 10, writer=interrupted)
    assert names(tmp_path) == ["step-000005"]
    assert latest_checkpoint(tmp_path) == good

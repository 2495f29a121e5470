"""Synthetic run directories, made once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from .synthetic_run import Shape, write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run whose four stages all finished. Read only: a test that changes files makes its own copy."""
    shape = Shape(steps=8, groups=4, samples=4, examples=4, rollouts_every=2, held_out=12)
    return write_run(tmp_path_factory.mktemp("finished"), shape)


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at RL step 3 of 8: two stages finished, one begun, one not started, no summary."""
    shape = Shape(steps=8, reached=2, stop_at=3, groups=3, samples=4, examples=3, rollouts_every=2, held_out=8)
    return write_run(tmp_path_factory.mktemp("stopped"), shape)

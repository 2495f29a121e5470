"""The sandbox and the data the code judges are tested with."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1kit.sandbox import Sandbox, SandboxError, open_sandbox
from r1kit.verifiers.code import BuildCache

Rows = Callable[[str], list[dict[str, Any]]]
DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The best sandbox of this machine; these tests say nothing without one."""
    try:
        box = open_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    yield box
    box.close()


@pytest.fixture
def cache(tmp_path: Path) -> BuildCache:
    return BuildCache(tmp_path / "programs")


@pytest.fixture(scope="session")
def rows() -> Rows:
    """The rows of a file of the shared data; skips where it is absent."""

    def read(name: str) -> list[dict[str, Any]]:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no {name}: set R1KIT_DATA to a folder that holds it")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    return read

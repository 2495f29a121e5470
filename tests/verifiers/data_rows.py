"""Rows of the shared data, read where they lie; a test that needs a file that is absent is skipped."""

from __future__ import annotations

import gzip
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


@lru_cache(maxsize=4)
def data_rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name}: set R1KIT_DATA to a folder that holds it")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

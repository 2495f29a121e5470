"""Golds of the shared data sets, read where they lie; tests skip where they are absent."""

from __future__ import annotations

import gzip
import json
import os
from functools import lru_cache
from pathlib import Path

import pytest

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
LABELLED = Path(__file__).with_name("labelled.jsonl")


def labelled() -> list[dict[str, object]]:
    """Our own pairs: {"id", "gold", "prediction", "label", "policy"}."""
    return [json.loads(line) for line in LABELLED.read_text().splitlines()]


@lru_cache
def golds(name: str, key: str = "answer") -> tuple[str, ...]:
    """The distinct golds of a data set under R1KIT_DATA, in order of appearance."""
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path.name}: set R1KIT_DATA to a folder that holds {name}.jsonl.gz")
    with gzip.open(path, "rt") as file:
        return tuple(dict.fromkeys(str(json.loads(line)[key]).strip() for line in file))

"""Held-out splits by content: a family of problems is in "test" or in "train" by a hash of what it is made
of.

The hash is BLAKE2b of the family's name and a salt, so the split is the same on every machine and in every
process (Python's own `hash` is neither), does not depend on how many problems are asked for, and never
moves a family from one side to the other when the range of the task grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)

SPLITS = ("train", "test")
# A stream of random draws counts as exhausted when so many in a row bring nothing new.
PATIENCE = 20_000


def in_test(family: str, share: float, salt: int) -> bool:
    """True for about `share` of all families."""
    digest = hashlib.blake2b(f"{salt}:{family}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def check_split(split: str) -> bool:
    """True for "test", False for "train"; ValueError for anything else."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: expected one of {', '.join(SPLITS)}")
    return split == "test"


def distinct(draws: Iterator[Item], count: int) -> list[Item]:
    """The first `count` different items of a stream of draws, fewer where it brings no new ones."""
    found: dict[Item, None] = {}
    while len(found) < count:
        for item in islice(draws, PATIENCE):
            if item not in found:
                break
        else:
            break
        found[item] = None
    return list(found)

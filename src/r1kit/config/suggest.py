"""The nearest known name, for messages about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""

"""Libraries that judging sites offer beside the standard one, handed into the sandbox where a source imports them.

The sandbox's Python has no site packages. What is sent is the text of the copy installed here, if there is one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

OFFERED = ("sortedcontainers",)  # pure Python, and at hand on LeetCode, AtCoder and Codeforces


def library_files(*sources: str) -> dict[str, bytes]:
    """Files of the offered libraries that any of `sources` imports."""
    files: dict[str, bytes] = {}
    for name in OFFERED:
        if any(re.search(rf"^\s*(?:import|from)\b.*\b{name}\b", source, re.MULTILINE) for source in sources):
            files |= _files(name)
    return files


@lru_cache(maxsize=8)
def _files(name: str) -> dict[str, bytes]:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent
    return {f"{name}/{path.relative_to(folder)}": path.read_bytes() for path in sorted(folder.rglob("*.py"))}

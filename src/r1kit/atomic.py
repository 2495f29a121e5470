"""Writing a file so that a crash, a kill or a full disk leaves the old content whole, or none where there was none."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`: a file beside it, flushed, then renamed. One writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of one name: what a kill leaves is written over by the next attempt.
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

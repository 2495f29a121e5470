"""What the pipeline writes as JSON and reads back, and the ends of a run that a person is told in words."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.atomic import write_atomic
from r1kit.config.errors import UserError


class RunError(UserError):
    """A run that cannot start or go on; the message says what to do."""


class DiskFullError(RunError):
    """No space left; what was complete before is untouched."""

    exit_code = 1


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, None where there is no file. A damaged file raises RunError."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path}:{error.lineno}: damaged ({error.msg}); start over with --fresh, or restore it"
        ) from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected a JSON object, found {type(value).__name__}; start over with --fresh")
    return value


def is_disk_full(error: BaseException) -> bool:
    """True for ENOSPC, also where a library wraps it in an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def plain(value: Any) -> Any:
    """A number of any library as plain JSON; NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value

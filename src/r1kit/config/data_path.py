"""Paths in a recipe: of data files relative ones lie beside the recipe; `$R1KIT_DATA/...` stays as it is written.

A relative path becomes absolute when the recipe is loaded, so that a run directory and every process of a run mean the
same file. A variable is looked up when the file is opened: a recipe that names one travels between machines.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from r1kit.config.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _beside_recipe(path: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None or path.startswith(("~", "$", "/")):
        return path
    return str((Path(folder) / path).resolve())


DataPath = Annotated[str, Field(min_length=1, pattern=r"\S"), AfterValidator(_beside_recipe)]


def expand(path: str | Path, folder: Path | None = None) -> Path:
    """What a recipe's path names: `~` and `$VARIABLE` replaced, a relative one below `folder` (None: left as it is)."""
    found = Path(os.path.expandvars(path)).expanduser()
    return folder / found if folder else found


def find_data(path: str) -> Path:
    """The file that `path` names, `~` and `$VARIABLE` replaced. ConfigError where it, or the variable, is missing."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(f"{path}: the environment has no variable {name}: set it, or write the path in full")
        return os.environ[name]

    found = Path(_VARIABLE.sub(value, path)).expanduser()
    if not found.is_file():
        what = "is a directory: name its files" if found.is_dir() else "does not exist"
        raise ConfigError(f"data file {found}{f' ({path})' if str(found) != path else ''} {what}")
    return found

"""Style, script and templates of the report: files of the package, inlined into every page."""

from __future__ import annotations

from importlib.resources import files


def read_asset(name: str) -> str:
    """The text of an asset file."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")

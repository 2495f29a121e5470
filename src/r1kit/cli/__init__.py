"""The command `r1kit`. Nothing in the library imports this room."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
    from r1kit.cli.app import run_app

    run_app()

"""Why this matters: `make quickstart FRESH=yes` that silently goes on with the old run misleads its user.

Only what make would run is looked at; the quick start itself runs in continuous integration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("value", "fresh"), [("1", True), ("yes", True), ("true", True), ("0", False), ("", False)])
def test_fresh_is_any_value_but_zero(value: str, fresh: bool, tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None or not (ROOT / "Makefile").is_file():
        pytest.skip("needs make and a checkout with its Makefile")
    # An environment that is not there: nothing of it runs under -n.
    done = subprocess.run(
        [make, "-n", "quickstart", f"FRESH={value}", f"VIRTUAL_ENV={tmp_path}"],
        cwd=ROOT, env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    command = next(line for line in done.stdout.splitlines() if "r1kit run tinyzero" in line)
    assert ("--fresh" in command) is fresh

"""Why this matters: the setting that gives up isolation must be said in so many words, and limits must arrive whole.

Not exercised: opening a sandbox by these settings (tests/sandbox/test_opening.py).
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from r1kit.config.sandbox import SandboxLimits, SandboxSettings


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"tier": "rlimits"}, "set allow_unsafe: true as well"),
        ({"tier": "docker"}, "Input should be 'auto', 'bubblewrap'"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"libraries": "os.path"}, "should match pattern"),
        ({"limits": {"cpu_seconds": 0}}, "greater than 0"),
        ({"limits": {"memory": 5}}, "Extra inputs are not permitted"),
        ({"unsafe": True}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings(values: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SandboxSettings(**values)
    assert part in str(caught.value)


def test_limits_that_are_set_and_no_others() -> None:
    assert SandboxLimits().changes() == {}
    limits = SandboxLimits(cpu_seconds=1.5, memory_mb=64, processes=4)
    assert limits.changes() == {"cpu_seconds": 1.5, "memory_bytes": 64 << 20, "processes": 4}


def test_one_library_may_stand_alone() -> None:
    assert SandboxSettings.model_validate({"libraries": "numpy"}).libraries == ("numpy",)

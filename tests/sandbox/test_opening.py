"""A recipe says which sandbox its programs get: what it says has to arrive, and the one of a process has to be one.

Not exercised: which tier a machine holds (test_pool.py), what a tier keeps out (test_probes.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from r1kit.config.sandbox import SandboxLimits, SandboxSettings
from r1kit.sandbox import SandboxError, open_by, shared_limits, shared_sandbox, use_sandbox

from .programs import python


@pytest.fixture
def own_settings() -> Iterator[None]:
    yield
    use_sandbox(SandboxSettings())


def test_a_sandbox_by_its_settings() -> None:
    with open_by(SandboxSettings(tier="rlimits", allow_unsafe=True, workers=1)) as sandbox:
        assert (sandbox.tier, sandbox.workers, sandbox.isolation) == ("rlimits", 1, "private")
        assert sandbox.run(python("print(1)")).stdout == b"1\n"
    try:
        shared = open_by(SandboxSettings(isolation="shared"))
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    with shared:
        assert (shared.isolation, shared.workers) == ("shared", len(os.sched_getaffinity(0)))


def test_the_sandbox_of_a_process_is_one_and_follows_the_recipe(own_settings: None) -> None:
    use_sandbox(SandboxSettings(tier="rlimits", allow_unsafe=True))
    unsafe = shared_sandbox()
    assert unsafe.tier == "rlimits"
    use_sandbox(SandboxSettings(tier="rlimits", allow_unsafe=True, limits=SandboxLimits(cpu_seconds=2.0, memory_mb=64)))
    assert shared_sandbox() is unsafe  # limits are the jobs'
    assert shared_limits() == {"cpu_seconds": 2.0, "memory_bytes": 64 << 20}

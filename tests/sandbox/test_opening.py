"""A recipe says which sandbox its programs get: what it says has to arrive, and the one of a process has to be one.

Not exercised: which tier a machine holds (test_pool.py), what a tier keeps out (test_probes.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit.config.sandbox import SandboxLimits, SandboxSettings
from r1kit.sandbox import Job, SandboxError, open_by, open_sandbox, shared_limits, shared_sandbox, use_sandbox

from .conftest import open_or_skip
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


def test_the_tier_in_use_is_told_once_when_it_is_needed(own_settings: None) -> None:
    told: list[str] = []
    use_sandbox(SandboxSettings(tier="rlimits", allow_unsafe=True, workers=1), told.append)
    assert told == []
    for _ in range(2):
        shared_sandbox()
    assert told == ["sandbox: tier rlimits, no isolation: programs read what this user reads, 1 program at a time"]
    use_sandbox(SandboxSettings(tier="rlimits", allow_unsafe=True, workers=1), told.append)  # open already: told again
    shared_sandbox()
    assert len(told) == 2


@pytest.mark.parametrize("tier", ["bubblewrap", "unshare", "landlock"])
def test_libraries_by_name_and_no_others(tier: str) -> None:
    source = """
        import os, sys
        import numpy
        from sub import x
        print(int(numpy.arange(4).dot(numpy.ones(4))), numpy.random.rand() == numpy.random.RandomState(0).rand(), x)
        try:
            print(len(os.listdir("/proc/self/task")))
        except OSError:
            print(1)  # not to be seen under Landlock
        try:
            import pydantic
        except ImportError:
            print("no other")
    """
    open_or_skip(tier, workers=1).close()
    settings = SandboxSettings(tier=tier, workers=1, libraries=("numpy",))  # type: ignore[arg-type]
    with open_by(settings) as sandbox:
        result = sandbox.run(python(source, files={"sub/__init__.py": b"x = 5"}))
        assert (result.status, result.stdout) == ("ok", b"6 True 5\n1\nno other\n"), result
        again = sandbox.run(Job(("python", "-c", "import numpy; print(numpy.arange(3).sum())")))
        assert again.stdout == b"3\n", again


@pytest.mark.parametrize("tier", ["bubblewrap", "bubblewrap-single", "unshare", "landlock"])
def test_a_library_below_what_programs_have_for_themselves(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs have a /tmp of their own, which would cover an environment that lies there."""
    open_or_skip(tier, workers=1).close()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "tmp_one.py").write_text("x = 41")
        monkeypatch.syspath_prepend(folder)
        with open_sandbox(tier=tier, libraries=("tmp_one",), workers=1) as sandbox:
            result = sandbox.run(python("import tmp_one; print(tmp_one.x + 1)"))
            assert (result.status, result.stdout) == ("ok", b"42\n"), result


def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(SandboxError, match="'no_such_library' is not installed here"):
        open_sandbox(libraries=("no_such_library",))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts its programs as somebody else")
def test_a_library_in_a_private_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "hidden_one.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(private))
    with pytest.raises(SandboxError, match=r"library at .*hidden_one.py: root starts programs as user nobody.*chmod"):
        open_sandbox(tier="rlimits", allow_unsafe=True, libraries=("hidden_one",), workers=1)


def test_a_library_that_cannot_be_imported_inside_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        Path(folder).chmod(0o755)
        (Path(folder) / "broken_one.py").write_text("import no_such_module_r1")
        monkeypatch.syspath_prepend(folder)
        with pytest.raises(SandboxError, match="library broken_one cannot be imported"):
            open_sandbox(tier="rlimits", allow_unsafe=True, libraries=("broken_one",), workers=1)

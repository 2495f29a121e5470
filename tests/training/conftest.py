"""Property tests draw the same cases every time and are not timed: a busy machine must not fail a build."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from .parity import in_doubles
from .rank_jobs import JOBS
from .ranks import Results, run_jobs

settings.register_profile("r1kit", deadline=None, derandomize=True)
settings.load_profile("r1kit")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under pytest-xdist one worker takes all tests of the two ranks: else each would run them for itself."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if "two_ranks" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group("two_ranks"))


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every job of rank_jobs.py gave in two processes, run once for the whole session."""
    return run_jobs(sorted(JOBS), tmp_path_factory.mktemp("ranks"), size=2)


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A comparison with another program as both compute, and with both in float64."""
    if request.param == "float32":
        yield request.param
        return
    with in_doubles(monkeypatch):
        yield request.param

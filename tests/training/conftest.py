"""Property tests draw the same cases every time and are not timed: a busy machine must not fail a build."""

from __future__ import annotations

import pytest
from hypothesis import settings

from .rank_jobs import JOBS
from .ranks import Results, run_jobs

settings.register_profile("r1kit", deadline=None, derandomize=True)
settings.load_profile("r1kit")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every job of rank_jobs.py gave in two processes, run once for the whole session."""
    return run_jobs(sorted(JOBS), tmp_path_factory.mktemp("ranks"), size=2)

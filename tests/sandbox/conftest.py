"""Sandboxes of every tier that this machine holds; a test for another tier is skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from r1kit.sandbox import TIERS, CellPool, SandboxError, open_sandbox

ISOLATED = [tier for tier in TIERS if tier != "rlimits"]
FORMS = [(tier, "private") for tier in TIERS] + [("bubblewrap", "shared")]


def open_or_skip(tier: str, isolation: str = "private", workers: int = 2) -> CellPool:
    try:
        return open_sandbox(tier=tier, isolation=isolation, workers=workers, allow_unsafe=True)
    except SandboxError as error:
        pytest.skip(f"no {tier} sandbox on this machine: {error}")


@pytest.fixture(scope="session", params=FORMS, ids=["-".join(form) for form in FORMS])
def every_form(request: pytest.FixtureRequest) -> Iterator[CellPool]:
    with open_or_skip(*request.param) as sandbox:
        yield sandbox


@pytest.fixture(
    scope="session", params=FORMS[:-2] + FORMS[-1:], ids=["-".join(form) for form in FORMS[:-2] + FORMS[-1:]]
)
def isolated(request: pytest.FixtureRequest) -> Iterator[CellPool]:
    """Every form but the last tier, which isolates nothing."""
    with open_or_skip(*request.param) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def bubblewrap() -> Iterator[CellPool]:
    with open_or_skip("bubblewrap") as sandbox:
        yield sandbox

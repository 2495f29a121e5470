"""The sandbox of this process: opened when a judge first needs one, by the settings of the recipe that is run."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING

from r1kit.sandbox.opening import open_sandbox
from r1kit.sandbox.pool import CellPool

if (
    TYPE_CHECKING
):  # a sandbox is used in processes that read no recipe, and reading settings takes longer than all of it
    from r1kit.config.sandbox import SandboxSettings

_settings: SandboxSettings | None = None
_opened: dict[SandboxSettings, CellPool] = {}
_lock = threading.Lock()


def use_sandbox(settings: SandboxSettings) -> None:
    """From now on `shared_sandbox` is one of these settings: a process that runs a recipe says so before it judges."""
    global _settings
    with _lock:
        _settings = settings


def shared_limits() -> dict[str, float | int]:
    """The limits that the settings put in the place of a problem's own, for `CodeProblem.with_limits`."""
    return _settings.limits.changes() if _settings else {}


def shared_sandbox() -> CellPool:
    """The sandbox that every judge of this process uses. SandboxError where this machine has none of these settings."""
    from r1kit.config.sandbox import SandboxLimits, SandboxSettings

    with _lock:
        # Limits are the jobs': sandboxes that differ in nothing else are one.
        key = (_settings or SandboxSettings()).model_copy(update={"limits": SandboxLimits()})
        if key not in _opened:
            _opened[key] = open_by(key)
            atexit.register(_opened[key].close)
        return _opened[key]


def close_shared() -> None:
    """Close what `shared_sandbox` opened; the next call opens another one."""
    with _lock:
        for pool in _opened.values():
            atexit.unregister(pool.close)
            pool.close()
        _opened.clear()


def open_by(settings: SandboxSettings) -> CellPool:
    """A sandbox of one's own by a recipe's settings, to be closed by the caller."""
    return open_sandbox(
        tier=None if settings.tier == "auto" else settings.tier,
        allow_unsafe=settings.allow_unsafe,
        workers=settings.workers,
        isolation=settings.isolation,
        libraries=settings.libraries,
    )

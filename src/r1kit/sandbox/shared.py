"""The sandbox of this process: opened when a judge first needs one, by the settings of the recipe that is run."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from r1kit.sandbox.opening import UNSAFE, open_sandbox
from r1kit.sandbox.pool import CellPool

if (
    TYPE_CHECKING
):  # a sandbox is used in processes that read no recipe, and reading settings takes longer than all of it
    from r1kit.config.sandbox import SandboxSettings

_settings: SandboxSettings | None = None
_opened: dict[SandboxSettings, CellPool] = {}
_tell: Callable[[str], None] | None = None
_lock = threading.Lock()


def use_sandbox(settings: SandboxSettings | None, tell: Callable[[str], None] | None = None) -> None:
    """From now on `shared_sandbox` is one of these settings: a process that runs a recipe says so before it judges.

    `tell` is called once, when a judge first needs the sandbox, with a line that says which it is.
    """
    global _settings, _tell
    with _lock:
        _settings, _tell = settings, tell


def shared_limits() -> dict[str, float | int]:
    """The limits that the settings put in the place of a problem's own, for `CodeProblem.with_limits`."""
    return _settings.limits.changes() if _settings else {}


def shared_sandbox() -> CellPool:
    """The sandbox that every judge of this process uses. SandboxError where this machine has none of these settings."""
    global _tell
    from r1kit.config.sandbox import SandboxLimits, SandboxSettings

    with _lock:
        # Limits are the jobs': sandboxes that differ in nothing else are one.
        key = (_settings or SandboxSettings()).model_copy(update={"limits": SandboxLimits()})
        if key not in _opened:
            _opened[key] = open_by(key)
            atexit.register(_opened[key].close)
        if _tell is not None:
            tell, _tell = _tell, None
            tell(described(_opened[key]))
        return _opened[key]


def described(pool: CellPool) -> str:
    """Which sandbox it is, in a line for a person."""
    kept = "no isolation: programs read what this user reads" if pool.tier == UNSAFE else f"isolation {pool.isolation}"
    offered = f", libraries {' '.join(pool.libraries.names)}" if pool.libraries.names else ""
    return f"sandbox: tier {pool.tier}, {kept}, {pool.workers} program{'s' * (pool.workers > 1)} at a time{offered}"


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

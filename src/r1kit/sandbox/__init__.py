"""Isolation of untrusted programs."""

from r1kit.sandbox.launch import TIERS
from r1kit.sandbox.opening import open_sandbox
from r1kit.sandbox.pool import CellPool
from r1kit.sandbox.protocol import Job, Limits, Result, Sandbox, SandboxError
from r1kit.sandbox.shared import close_shared, open_by, shared_limits, shared_sandbox, use_sandbox

__all__ = [
    "TIERS",
    "CellPool",
    "Job",
    "Limits",
    "Result",
    "Sandbox",
    "SandboxError",
    "close_shared",
    "open_by",
    "open_sandbox",
    "shared_limits",
    "shared_sandbox",
    "use_sandbox",
]

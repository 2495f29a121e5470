"""The first lines on the inside: takes the wire, enters what the tier asks for, becomes the supervisor."""

from __future__ import annotations

import os
import socket
from typing import Any

from r1kit.sandbox.inside import kernel, root, supervisor


def start(settings: dict[str, Any]) -> None:
    """Standard input is the wire; it moves out of the way, so that 0, 1 and 2 are nothing to anybody."""
    wire = socket.socket(fileno=os.dup(0))
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    if settings["enter_namespaces"]:
        root.enter(settings["shown"], settings["links"], settings["devices"])
    kernel.adopt_orphans()
    os.environ.clear()
    # Only now: an error up to here is the tier's own and belongs on standard error, where we read it.
    supervisor.serve(wire, settings)

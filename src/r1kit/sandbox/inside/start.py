"""The first lines on the inside: takes the wire, enters what the tier asks for, becomes the supervisor."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from r1kit.sandbox.inside import guard, kernel, root, supervisor, watch


def start(settings: dict[str, Any], owner: int) -> None:
    """Standard input is the wire; it moves out of the way, so that 0, 1 and 2 are nothing to anybody."""
    wire = socket.socket(fileno=os.dup(0))
    os.set_inheritable(owner, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may have ignored it: then nobody could wait
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    if settings["enter_namespaces"]:
        root.enter(settings["shown"], settings["links"], settings["devices"])
    kernel.adopt_orphans()
    os.environ.clear()
    if settings["host_box"]:
        _keep(wire, owner, settings["box"])
    # Only now: an error up to here is the tier's own and belongs on standard error, where we read it.
    supervisor.serve(wire, owner, settings)


def _keep(wire: socket.socket, owner: int, box: str) -> None:
    """Without a process namespace nothing ends with the supervisor. Stays behind as its parent, who outlives it, ends
    what it leaves and removes the box; returns in the supervisor.
    """
    process = os.fork()
    if not process:
        kernel.adopt_orphans()
        return
    wire.close()
    os.close(owner)
    os.waitpid(process, 0)
    watch.kill_descendants(os.getpid())
    if os.path.exists(box):
        guard.clean(box, mounted=False)
        os.rmdir(box)
    os._exit(0)

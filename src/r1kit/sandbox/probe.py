"""The program that a tier has to hold before it is used. It tries what an attacker tries first and replies in JSON.

It is sent inside as text. Arguments: a host file that has to be unreadable, a process id of the host that has to be out
of reach, the names of the environment that are ours.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys


def _refused(action: str, *arguments: object) -> bool:
    """True when the kernel says no."""
    try:
        if action == "read":
            with open(str(arguments[0]), "rb") as file:
                file.read(1)
        elif action == "list":
            os.listdir(str(arguments[0]))
        elif action == "write":
            with open(str(arguments[0]), "x"):
                pass
        elif action == "connect":
            with socket.socket() as sock:
                sock.settimeout(2)
                sock.connect(("127.0.0.1", 9))
        elif action == "signal":
            os.kill(int(str(arguments[0])), 0)
    except ConnectionRefusedError:
        return False  # there is a network to be refused by
    except OSError:
        return True
    return False


def main(secret: str, process: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    others = [name for name in os.listdir("/proc") if name.isdigit()] if not _refused("list", "/proc") else []
    home = os.path.dirname(secret)
    findings = {
        "reads host files": not _refused("read", secret) or not _refused("list", home),
        "reads /root or /home": any(not _refused("list", path) and os.listdir(path) for path in ("/root", "/home")),
        "writes outside its box": not all(
            _refused("write", f"{path}/r1kit-probe") for path in ("/usr", "/", "/dev", home)
        ),
        "has a network": not _refused("connect"),
        "sees other processes": len(others) > 6,
        "signals other processes": not _refused("signal", process),
        "makes namespaces": libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0,
        "has environment": bool(set(os.environ) - set(sys.argv[3].split(","))),
    }
    with open("probe", "w") as file:
        file.write("own directory")
    os.write(3, json.dumps([name for name, found in findings.items() if found]).encode())


main(sys.argv[1], sys.argv[2])

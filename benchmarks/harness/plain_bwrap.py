"""One `bwrap python3` per program: the plain way, which both sandbox benchmarks compare with.

All namespaces, a read-only system, a temporary file system with a size: what one writes without a pool.
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

NOBODY = 65534
SIZE = 64 << 20


def run_plainly(source: bytes, directory: str, stdin: bytes = b"") -> bytes:
    """Standard output of `source`. `directory`: where its file is written, one a thread. CalledProcessError where it
    ends badly.
    """
    program = Path(directory, f"{threading.get_ident()}.py")
    program.write_bytes(source)
    command = ["bwrap", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
    command += ["--symlink", "usr/bin", "/bin", "--dev", "/dev", "--size", str(SIZE)]
    command += ["--tmpfs", "/tmp", "--ro-bind", str(program), "/tmp/program.py", "--unshare-all", "--unshare-user"]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--chdir", "/tmp"]
    command += ["/usr/bin/python3", "-I", "-S", "program.py"]
    drop: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(command, input=stdin, capture_output=True, check=True, **drop)
    return bytes(done.stdout)

"""How a cell is started in each tier: which command, as which user, seeing which part of the system."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r1kit.sandbox.protocol import SandboxError

# Best first. "bubblewrap-single" starts one bubblewrap per program, where a host's policy refuses namespaces inside it.
TIERS = ("bubblewrap", "unshare", "bubblewrap-single", "landlock", "rlimits")
NOBODY = 65534
# All that an interpreter of ours is started with: the order of a set, and with it a verdict, is the same in every run.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_PACKAGE = "r1kit.sandbox"
# Sent inside as text, in the order in which they import each other.
_MODULES: tuple[str, ...] = (
    "frames",
    "bpf",
    "syscalls",
    "inside.kernel",
    "inside.watch",
    "inside.program",
    "inside.guard",
)
_MODULES += ("inside.zygote", "inside.supervisor", "inside.root", "inside.start")
_BOOT = """
import sys
sys.path.remove("")
import json, os, select, socket, types
owner = int(sys.argv[1])
def take(size):
    data = b""
    while len(data) < size:
        if owner in select.select([0, owner], [], [])[0]: sys.exit(3)
        part = os.read(0, size - len(data))
        if not part: sys.exit(3)
        data += part
    return data
order = json.loads(take(int.from_bytes(take(4), "big")))
for name, text in order["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    parent, _, leaf = name.rpartition(".")
    if parent: setattr(sys.modules[parent], leaf, module)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["r1kit.sandbox.inside.start"].start(order["settings"], owner)
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command to start and the first message it is sent."""

    command: tuple[str, ...]
    settings: Mapping[str, Any]
    single: bool  # the cell serves one program


def dropped_user() -> int | None:
    """Root starts its cells as nobody; anybody else as itself."""
    return NOBODY if os.geteuid() == 0 else None


def user_options() -> dict[str, Any]:
    user = dropped_user()
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


@functools.cache
def find_python() -> str:
    """An interpreter that the sandbox's user can start, this one first. SandboxError when there is none."""
    candidates = [
        getattr(sys, "_base_executable", sys.executable),
        shutil.which("python3", path="/usr/bin:/usr/local/bin"),
    ]
    check = "import ctypes, resource, sys; sys.exit(sys.version_info < (3, 10))"
    for candidate in filter(None, candidates):
        path = os.path.realpath(candidate)
        try:
            command = [path, "-I", "-S", "-c", check]
            done = subprocess.run(
                command, capture_output=True, cwd="/", env={}, timeout=60, check=False, **user_options()
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return path
    who = "user nobody, as which root starts it" if dropped_user() else "this user"
    raise SandboxError(
        f"no Python for the sandbox: none of {', '.join(filter(None, candidates))} can be started by {who}, is 3.10 or "
        "newer and has ctypes; install one under /usr (Debian: apt-get install python3)"
    )


@dataclass(frozen=True, slots=True)
class Libraries:
    """Installed Python libraries that programs may import, and what of the host they are made of."""

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def find_libraries(names: Sequence[str]) -> Libraries:
    """The named ones as they are installed for this interpreter. SandboxError for one that is not."""
    paths: list[str] = []
    for name in names:
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise SandboxError(f"library {name!r} is not installed here: install it, or leave it out of libraries")
        top = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        beside = top.parent / f"{name}.libs"  # where wheels keep the shared objects they bring along
        paths += [str(top), *([str(beside)] if beside.is_dir() else [])]
    _check_readable(paths)
    return Libraries(tuple(names), tuple(paths))


def _check_readable(paths: Sequence[str]) -> None:
    """Refuse libraries that lie where the cells' user may not look, such as an environment in a private directory."""
    if dropped_user() is None or not paths:
        return
    check = "import os, sys; print(*[p for p in sys.argv[1:] if not os.access(p, os.R_OK)][:1])"
    command = [find_python(), "-I", "-S", "-c", check, *paths]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env={}, timeout=60, check=False, **user_options()
    )
    if hidden := done.stdout.strip():
        raise SandboxError(
            f"library at {hidden}: root starts programs as user nobody, who may not read it; let others read the "
            "directories on the way (chmod o+rx), or install it elsewhere"
        )


def _system() -> tuple[list[str], dict[str, str]]:
    """What is shown read-only, and the links of the root directory."""
    shown = ["/usr"]
    links = {"/tmp": "box/tmp", "/dev/fd": "/proc/self/fd"}
    links |= {f"/dev/{name}": f"/proc/self/fd/{fd}" for fd, name in enumerate(("stdin", "stdout", "stderr"))}
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if os.path.islink(f"/{name}"):
            links[f"/{name}"] = os.readlink(f"/{name}").lstrip("/")
        elif os.path.isdir(f"/{name}"):
            shown.append(f"/{name}")
    shown += [path for path in ("/etc/alternatives", "/etc/ld.so.cache") if os.path.exists(path)]
    prefix = Path(find_python()).parent.parent
    if not prefix.is_relative_to("/usr"):
        shown += [str(prefix / name) for name in ("bin", "lib", "lib64") if (prefix / name).is_dir()]
    return shown, links


def _bubblewrap(shown: Mapping[str, str], links: dict[str, str], box_bytes: int | None) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed (no bwrap on PATH; Debian: apt-get install bubblewrap)")
    command = [program, "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--as-pid-1"]
    command += ["--new-session", "--chdir", "/"]
    for place, path in shown.items():
        command += ["--ro-bind", path, place]
    # Not --dev: for its terminals bubblewrap makes a second user namespace, without rights over the first.
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    for link, target in links.items():
        command += ["--symlink", target, link]
    command += ["--proc", "/proc", "--dir", "/dev/shm"]
    if box_bytes is None:
        # For the zygote, which makes namespaces; every program gives all of them up.
        command += ["--dir", "/box", "--cap-add", "ALL"]
    else:
        command += ["--perms", "0700", "--size", str(box_bytes), "--tmpfs", "/box"]
    return [*command, "--remount-ro", "/", "--"]


def plan(tier: str, *, isolation: str, box: str, box_bytes: int, libraries: Libraries) -> Launch:
    """The start of one cell. `box`: a directory of the host for the tiers without a file system of their own;
    `box_bytes`: the size of the file system where it is made before the program is known.
    """
    system, links = _system()
    namespaces = tier in ("bubblewrap", "unshare")
    own_root = namespaces or tier == "bubblewrap-single"
    # Under a root of their own libraries have a place of their own: theirs may lie below what is covered, such as /tmp.
    offered = {f"/libraries/{os.path.basename(path)}" if own_root else path: path for path in libraries.paths}
    shown = {**{path: path for path in system}, **offered}  # what programs see, and where it lies on the host
    settings = {
        "tier": tier,
        "private": namespaces and isolation == "private",
        "mounts_box": namespaces,
        "host_box": tier in ("landlock", "rlimits"),
        "box": box if tier in ("landlock", "rlimits") else "/box",
        "drop_bounding_set": namespaces,
        "enter_namespaces": tier == "unshare",
        "shown": shown,
        "readable": list(shown) + [link for link in links if link.startswith(("/bin", "/sbin", "/lib"))],
        "links": links,
        "devices": DEVICES,
        "protected": (),
        "libraries": libraries.names,
        "library_paths": list(offered),
    }
    python = [find_python(), "-s", "-S", "-c", _BOOT]  # not -I, which ignores the hash seed
    single = tier == "bubblewrap-single"
    if tier.startswith("bubblewrap"):
        python = _bubblewrap(shown, links, box_bytes if single else None) + python
    return Launch(tuple(python), settings, single)


@functools.cache
def _sources() -> tuple[tuple[str, str], ...]:
    here = Path(__file__).parent
    packages = (("r1kit", ""), (_PACKAGE, ""), (f"{_PACKAGE}.inside", ""))
    return packages + tuple(
        (f"{_PACKAGE}.{name}", (here / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")) for name in _MODULES
    )


def first_message(launch: Launch) -> dict[str, Any]:
    return {"modules": _sources(), "settings": dict(launch.settings)}

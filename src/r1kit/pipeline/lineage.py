"""Where a result comes from: inputs by content, code version, seed, libraries, machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import r1kit
from r1kit.config.data_path import expand
from r1kit.config.machine import cpu_flags, usable_cores
from r1kit.verifiers.user import source_file

PACKAGE = Path(r1kit.__file__).parent
LIBRARIES = (
    "r1kit",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "pyyaml",
    "zstandard",
)
# Rooms that do not change a number of a stage: a new report or command must not make a run unusable.
OUTSIDE = ("cli", "dashboard", "pipeline", "recipes", "serving")


def digest(value: Any) -> str:
    """Content hash of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()


@cache
def code_hashes() -> dict[str, str]:
    """Content hash of every source file that can change a result, by its path in the package."""
    files = (p for pattern in ("*.py", "*.cpp", "*.h") for p in PACKAGE.rglob(pattern))
    return {
        path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.relative_to(PACKAGE).parts[0] not in OUTSIDE
    }


def changed_code(before: Mapping[str, str]) -> list[str]:
    """Source files that differ from those of an earlier run."""
    now = code_hashes()
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def hash_directory(path: Path) -> str:
    """Content hash of a directory's files and their names."""
    parts = {file.relative_to(path).as_posix(): hash_file(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return digest(parts)


def hash_file(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_path(text: str) -> str | None:
    """Content hash of a file or directory as a recipe names it; None where there is none on this machine."""
    path = expand(text)
    return hash_directory(path) if path.is_dir() else hash_file(path) if path.is_file() else None


def hash_model(path: Path) -> str:
    """Content hash of a checkpoint's weights where they are one file, else of the directory; "" where there is none."""
    weights = path / "model.safetensors"
    return hash_file(weights) if weights.is_file() else hash_directory(path) if path.is_dir() else ""


def hash_functions(specs: Iterable[str]) -> dict[str, str]:
    """Content hash of the files that hold functions of the user's own, by import path."""
    files = {spec: source_file(spec) for spec in specs}
    return {spec: hash_file(file) if file and file.is_file() else "no file" for spec, file in files.items()}


def git_commit() -> dict[str, Any] | None:
    """Commit of the checkout the package lies in, and whether it was changed since; None without git."""
    root = PACKAGE.parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return {"commit": commit, "changed": bool(_git(root, "status", "--porcelain", "--", "src"))} if commit else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the run ran on."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "flags": sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"}),
        "python": platform.python_version(),
    }
    if device == "cuda":
        import torch

        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def memory_bytes() -> int | None:
    """Memory of the machine, or the control group's limit where that is lower."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def gpu_memory_bytes() -> int | None:
    """Memory of the smallest GPU that torch can use; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

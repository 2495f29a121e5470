"""C++ beside the Python that calls it: compiled once with the machine's own compiler, kept in the user's cache.

A build is kept under a hash of its text, the headers, the compiler and the processor. Nothing is compiled unless a
recipe asks for it; every compiled pass has a PyTorch form that is its fallback and its oracle.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from r1kit.config.errors import UserError

HEADERS = Path(__file__).parent
# No -ffast-math: a sum must not be regrouped by the length of its row or the address it starts at.
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-w", f"-I{HEADERS}")


class BuildError(UserError):
    """No compiler, or one that fails: what was asked for cannot be compiled here."""


def build(source: Path) -> ctypes.CDLL:
    """The library of one C++ file, from the cache or built now (a few seconds)."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError("no C++ compiler found; install g++ (or name one in CXX), or turn it off")
    headers = sorted({*HEADERS.glob("*.h"), *source.parent.glob("*.h")})
    texts = [path.read_text(encoding="utf-8") for path in (source, *headers)]
    key = "\0".join([*texts, _version(compiler), *FLAGS, platform.machine(), _processor()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1kit" / "native"
    path = folder / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / path.name
            command = [compiler, *FLAGS, str(source), "-o", str(built)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise BuildError(f"{compiler} could not build {source.name}:\n{ran.stderr[-2000:]}")
            os.replace(built, path)  # whole or not at all: several processes may build at once
    return ctypes.CDLL(str(path))


def turns(phase_PC: Tensor) -> Tensor:
    """Complex phases [P, K / 2] as [P, 2, K]: x' = x * turns[0] + partner(x) * turns[1] on interleaved pairs."""
    cosine, sine = phase_PC.real, phase_PC.imag
    return torch.stack([torch.stack([cosine, cosine], -1), torch.stack([-sine, sine], -1)], 1).flatten(2).contiguous()


def gradient_address(parameter: Tensor) -> int:
    """Where a parameter's gradient is added up; zeros where it has none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    if not parameter.grad.is_contiguous():
        raise ValueError("native: a gradient is not contiguous")
    return parameter.grad.data_ptr()


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout


@cache
def _processor() -> str:
    """What -march=native looks at: another processor needs another build."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

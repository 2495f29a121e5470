"""Programming languages, one row each: how a source becomes something to run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from r1kit.sandbox.protocol import MIB, Limits

COMPILE_LIMITS = Limits(cpu_seconds=30.0, memory_bytes=1024 * MIB, output_bytes=32 * MIB, disk_bytes=128 * MIB)


class LanguageError(ValueError):
    """No such language, or its compiler is not installed here; the message says which."""


@dataclass(frozen=True, slots=True)
class Language:
    """A row. `compile`: arguments that turn `file` into "program" ((): the source runs as it is); `run`: arguments
    that run it; the first argument of each is looked up in PATH. `fences`: info strings of its code blocks.
    `time_factor`: what a contest's time limit, made for C++, is stretched by.
    """

    name: str
    file: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    fences: tuple[str, ...] = ()
    time_factor: float = 1.0


_ROWS = (
    Language("python", "main.py", ("python", "main.py"), fences=("python", "py", "python3"), time_factor=5.0),
    Language(
        "cpp",
        "main.cpp",
        ("./program",),
        ("g++", "-O2", "-std=c++17", "-w", "-o", "program", "main.cpp"),
        ("cpp", "c++", "cxx", "cc"),
    ),
    Language("c", "main.c", ("./program",), ("gcc", "-O2", "-std=c17", "-w", "-o", "program", "main.c", "-lm"), ("c",)),
)
LANGUAGES: dict[str, Language] = {row.name: row for row in _ROWS}


def language_named(name: str) -> Language:
    if name not in LANGUAGES:
        raise LanguageError(f"language is {name!r}: one of {', '.join(sorted(LANGUAGES))}")
    return LANGUAGES[name]


def register_language(row: Language) -> None:
    """Add a language; its name must be new."""
    if row.name in LANGUAGES:
        raise LanguageError(f"language {row.name!r} exists already")
    LANGUAGES[row.name] = row


@lru_cache(maxsize=32)
def tool(name: str) -> tuple[str, str]:
    """Path and version of a compiler. LanguageError where it is not installed. "python" is the sandbox's own."""
    path = shutil.which(name)
    if path is None:
        raise LanguageError(f"{name} is not installed here: install it, or leave out problems that need it")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    return path, done.stdout.partition("\n")[0].strip()

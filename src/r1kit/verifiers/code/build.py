"""From a source to something that runs, compiled inside the sandbox, once per text.

The cache is keyed by source, command and compiler version, lives in a private directory of this process and keeps the
most recently used programs up to a total size. Nothing in it is ever run outside a sandbox.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from r1kit.sandbox.protocol import MIB, Job, Limits, Result, Sandbox
from r1kit.verifiers.code.languages import COMPILE_LIMITS, Language, LanguageError, language_named, tool
from r1kit.verifiers.code.libraries import library_files
from r1kit.verifiers.code.report import met_limit

RETRIES = 1
_KILLED = b"Killed signal terminated program"  # gcc, of one of its parts


@dataclass(frozen=True, slots=True)
class Program:
    """Something to run: the command and what it needs beside it."""

    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def job(self, limits: Limits, stdin: bytes = b"", arguments: tuple[str, ...] = (), **files: bytes) -> Job:
        return Job((*self.command, *arguments), {**self.files, **files}, self.mounts, stdin, limits)


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Why there is no program: the source's own fault ("unparsable", "over_limit"), or ours."""

    reason: Literal["unparsable", "over_limit", "sandbox_failed", "voter_failed"]
    detail: str


def run_job(sandbox: Sandbox, job: Job) -> Result:
    """Run `job`; where the sandbox itself failed, try again."""
    result = sandbox.run(job)
    for _ in range(RETRIES):
        if result.status != "sandbox_failed":
            break
        result = sandbox.run(job)
    return result


class BuildCache:
    """Compiled programs by content. Safe to share between threads; two threads that want one program compile once."""

    def __init__(self, directory: Path | None = None, max_bytes: int = 512 * MIB) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="r1kit-programs-")) if directory is None else directory
        self.directory.mkdir(parents=True, exist_ok=True)
        if directory is None:
            weakref.finalize(self, _remove, self.directory, os.getpid())
        self.max_bytes, self.compilations = max_bytes, 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._failures: OrderedDict[str, BuildFailure] = OrderedDict()
        self._lock = threading.Lock()
        self._building: dict[str, threading.Lock] = {}

    def build(self, source: str, language: str, sandbox: Sandbox) -> Program | BuildFailure:
        """The program of `source`; a failure of the source is remembered, one of ours is not."""
        row, text = language_named(language), source.encode("utf-8", "replace")
        if not row.compile:
            try:
                command = row.run if row.run[0] == "python" else (tool(row.run[0])[0], *row.run[1:])
            except LanguageError as error:
                return BuildFailure("voter_failed", str(error))
            libraries = library_files(source) if row.name == "python" else {}
            return Program(command, {**libraries, row.file: text})
        try:
            path, version = tool(row.compile[0])
        except LanguageError as error:
            return BuildFailure("voter_failed", str(error))
        command = (path, *row.compile[1:])
        key = hashlib.sha256("\0".join((version, *command, "")).encode() + text).hexdigest()
        with self._lock:
            turn = self._building.setdefault(key, threading.Lock())
        with turn:
            found = self._find(key) or self._compile(key, command, text, row, sandbox)
        with self._lock:
            self._building.pop(key, None)
        return Program(row.run, mounts={"program": found}) if isinstance(found, Path) else found

    def _find(self, key: str) -> Path | BuildFailure | None:
        with self._lock:
            if key in self._failures:
                return self._failures[key]
            if key in self._sizes:
                self._sizes.move_to_end(key)
                return self.directory / key
        return None

    def _compile(
        self, key: str, command: tuple[str, ...], text: bytes, row: Language, sandbox: Sandbox
    ) -> Path | BuildFailure:
        job = Job(command, {row.file: text}, limits=COMPILE_LIMITS, collect=("program",))
        for _ in range(4):
            result = run_job(sandbox, job)
            # A part of the compiler that is killed from outside reads as an error of the source.
            lost = result.status == "failed" and _KILLED in result.stderr
            if not lost:
                break
        with self._lock:
            self.compilations += 1
        message = (result.stderr or result.stdout).decode("utf-8", "replace")[:4000] or result.detail
        if result.status == "sandbox_failed":
            return BuildFailure("sandbox_failed", result.detail)
        if result.status != "ok" or "program" not in result.collected:
            own = result.status in ("ok", "failed") and not lost and not met_limit(message)
            failure = BuildFailure("unparsable" if own else "over_limit", message)
            with self._lock:
                self._failures[key] = failure
                while len(self._failures) > 4096:
                    self._failures.popitem(last=False)
            return failure
        return self._keep(key, result.collected["program"])

    def _keep(self, key: str, binary: bytes) -> Path:
        path = self.directory / key
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(binary)
        part.chmod(0o555)
        part.replace(path)
        with self._lock:
            self._sizes[key] = len(binary)
            while sum(self._sizes.values()) > self.max_bytes and len(self._sizes) > 1:
                old, _ = self._sizes.popitem(last=False)
                (self.directory / old).unlink(missing_ok=True)
        return path


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child holds a copy of the cache, not the directory
        shutil.rmtree(directory, ignore_errors=True)


_shared: BuildCache | None = None
_shared_lock = threading.Lock()


def shared_cache() -> BuildCache:
    """The cache of this process, made at first use."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = BuildCache()
        return _shared

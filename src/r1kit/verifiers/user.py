"""A user's own functions: loaded by import path, called with a guard that turns every failure into an error verdict.

`module:function` names what Python can import, `path/to/file.py:function` a file, from the working directory. The
code is the user's and trusted: it runs in this process, without limits. A verifier takes a problem and the text of a
response and returns True or False, a number from 0 to 1, or a `Verdict`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from numbers import Real
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from r1kit.config.errors import ConfigError
from r1kit.config.suggest import nearest
from r1kit.records import Problem, Verdict

_log = logging.getLogger(__name__)


class UserFunctionError(Exception):
    """A user's function raised, or returned what it may not; told once already, with the user's traceback."""


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `spec` names. Raises ConfigError that says what was looked for and what is there."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"{spec!r} names no function: expected module:function or path/to/file.py:function")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        # A module that the user's module misses is the user's own failure, told as such below.
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{spec}: no module {error.name!r}: install it, set PYTHONPATH, or name a file, such as judge.py:{name}"
            ) from None
        raise ConfigError(f"{spec}: importing it failed:\n{_traceback(error)}") from None
    except Exception as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{spec}: importing it failed:\n{_traceback(error)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"{spec}: {place} has no function {name!r}{nearest(name, known)}")
    return function


def source_file(spec: str) -> Path | None:
    """The file that holds the function's code, so that a run can note its content; None where there is none."""
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError):  # a parent package is missing: `load_function` says so
        return None
    return Path(found.origin) if found and found.has_location and found.origin else None


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path} in {Path.cwd()}: name your function's file from there")
    path = path.resolve()
    key = hashlib.blake2b(str(path).encode() + path.read_bytes(), digest_size=8).hexdigest()
    name = f"_r1kit_user_{path.stem}_{key}"
    if name not in sys.modules:
        # Registered before it runs, as `import` does: dataclasses and typing look their module up.
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = str(path)
        try:
            _FreshLoader(name, str(path)).exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


class _FreshLoader(SourceFileLoader):
    """Compiles the file as it is now: a cached .pyc goes by the file's second and size, and may be of older text."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class UserFunction:
    """A user's function behind a guard: what it raises, and what it may not return, is told once and counted."""

    def __init__(self, spec: str) -> None:
        self.spec, self.errors = spec, 0
        self._function = load_function(spec)
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns. Raises UserFunctionError where it raises."""
        try:
            return self._function(*arguments)
        except (Exception, SystemExit) as error:
            raise self.failure(f"raised {type(error).__name__}", _traceback(error)) from None

    def failure(self, what: str, detail: str = "") -> UserFunctionError:
        """The error to raise, counted, and told where it is the first of this function."""
        with self._lock:
            self.errors += 1
            first = self.errors == 1
        if first:
            _log.error(
                "%s %s. What it judges has no verdict and is not trained; further errors are counted, not shown.%s",
                self.spec,
                what,
                f"\n{detail}" if detail else "",
            )
        return UserFunctionError(f"{self.spec} {what}")


class UserVerifier:
    """A user's `function(problem, response)` as a verifier: always a Verdict, never an exception."""

    def __init__(self, spec: str) -> None:
        self.function = UserFunction(spec)

    def __call__(self, problem: Problem, response: str) -> Verdict:
        """The verdict of one response; "error" (voter_failed) where the function fails. Its seconds are the call's."""
        voter, started = self.function.spec, time.perf_counter()
        try:
            found = self._verdict(self.function(problem, response))
        except UserFunctionError:
            return Verdict("error", None, "voter_failed", voter=voter, seconds=time.perf_counter() - started)
        if isinstance(found, Verdict):
            return found
        reason = "correct" if found == 1 else "wrong"
        return Verdict.scored(found, reason, voter=voter, seconds=time.perf_counter() - started)

    def _verdict(self, found: Any) -> Verdict | float:
        if isinstance(found, Verdict):
            return found
        number = finite(found)
        if number is not None and 0.0 <= number <= 1.0:
            return number
        raise self.function.failure(
            f"returned {shown(found)}: return True or False, a number from 0 to 1, or an r1kit.records.Verdict"
        )


def finite(value: Any) -> float | None:
    """A number of the user's as a finite float, else None: no number, nan, or an integer that no float can hold."""
    try:
        number = float(value) if isinstance(value, bool | np.bool_ | Real) else math.nan
    except Exception:  # OverflowError, or whatever a class of the user's raises
        return None
    return number if math.isfinite(number) else None


def shown(value: Any) -> str:
    """What was returned, for a message; the type alone where it has no repr, such as an integer of 5,000 digits."""
    try:
        return f"{value!r:.200}"
    except Exception:
        return f"something of type {type(value).__name__}"


def _traceback(error: BaseException) -> str:
    """The traceback from the user's first line on, without the frames of this file and of the import system."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = {__file__, importlib.__file__}
    kept = [f for f in frames if f.filename not in ours and not f.filename.startswith("<frozen importlib")]
    lines = traceback.format_list(kept) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()

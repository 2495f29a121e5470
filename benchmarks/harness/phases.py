"""Where the time goes, without touching the code that is measured: functions are wrapped during a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class PhaseClock:
    """Seconds by phase. Phases may nest: time counts for the innermost one only, so they never overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            current = self._stack[-1]
            self.seconds[current] = self.seconds.get(current, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def wrapped(self, owner: Any, attribute: str, name: str) -> Iterator[None]:
        """Count calls of `owner.attribute` (of an object, class or module) as phase `name` in the context."""
        original: Callable[..., Any] = getattr(owner, attribute)
        own = attribute in vars(owner)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            with self.phase(name):
                return original(*arguments, **keywords)

        setattr(owner, attribute, timed)
        try:
            yield
        finally:
            if own:
                setattr(owner, attribute, original)
            else:
                delattr(owner, attribute)

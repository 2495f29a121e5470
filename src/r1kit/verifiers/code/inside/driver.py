"""Runs in the sandbox, in a process of its own: a problem's own test program, with stand-ins for the candidate.

The test program is the problem's (trusted to be honest, not to be careful); the candidate's code never comes here, only
what its calls returned, as plain data. The program is run from the start in rounds: a call whose answer is not known
yet is noted and yields a stand-in, the judge has the notes answered in the candidate's process, and the next round
replays them. Assertions are marked by `__assertion__(line)` blocks (the judge rewrites them so), so that in a first
round all calls of all assertions are noted at once.

Values of the test program's own reach the candidate as arguments of the entry point, of the candidate's classes, and in
attributes that are set: its inputs. They do not reach what the candidate returned, unless the problem says so
(`trust_objects`): `f(1).startswith("x")` is asked of the string that came back, and an object in its place, which would
learn the "x" and say yes, has no such method.

The line written to file descriptor 3:
{"calls": [...], "pending": bool, "checks": [[line, status, message], ...], "end": text}
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import random
import sys
from typing import Any

import wire

# Where a stand-in comes from: the entry point (where that is a method, its class and the instances of it, too), another
# class of the candidate's that the test program names, an object that the test program made of such a class (or reached
# from one), what the candidate returned.
ENTRY, NAMED, MADE, RETURNED = "entry", "named", "made", "returned"
_NO_DATA = "the candidate returned an object that is no data"


class Pending(BaseException):
    """A value that is not known in this round was asked for."""


class Unsupported(BaseException):
    """The test program hands the candidate something that cannot be sent as data."""


class Untrusted(BaseException):
    """The test program would have an object of the candidate's judge."""


class FirstFailure(BaseException):
    """Nothing behind the first failure matters."""


class Run:
    """One round: the calls it makes, the answers it has, the checks it has come past."""

    def __init__(self, known: list[Any], answers: list[Any], stop: bool, trust_objects: bool) -> None:
        self.known, self.answers, self.stop, self.trust_objects = known, answers, stop, trust_objects
        self.calls: list[Any] = []
        self.checks: list[Any] = []
        self.pending = False
        self.entry_is_class = False
        self.classes: dict[str, type] = {}

    def is_data_name(self, name: str) -> bool:
        """Whether values that come back as data have an attribute of that name."""
        return any(hasattr(kind, name) for kind in (*wire.BUILTIN_TYPES.values(), range, *self.classes.values()))

    def ask(
        self, verb: str, target: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], origin: str = RETURNED
    ) -> Any:
        try:
            wired = wire.encode([list(args), kwargs], self.classes, self.number)
        except wire.WireError as error:
            raise Unsupported(str(error)) from None
        call, index = [verb, target, wired], len(self.calls)
        self.calls.append(call)
        if self.pending or index >= len(self.answers) or self.known[index] != call:
            self.pending = True
            return StandIn(self, ["ref", index], origin, known=False)
        kind, *rest = self.answers[index]
        if kind == "value":
            return wire.decode(rest[0], self.classes, types=False)
        if kind == "raised":
            raise _raised(*rest)
        return StandIn(self, ["ref", index], origin)

    def number(self, value: Any) -> int | None:
        if type(value) is StandIn:
            kind, number = object.__getattribute__(value, "_target")
            if kind == "ref":
                return number
            raise wire.WireError(f"{number} of the candidate cannot be handed over as a value")
        return None


def _raised(name: str, message: str) -> Exception:
    """The built-in exception of that name. StopIteration is not among them: it would end the test program's own loops
    as if they had come through.
    """
    cls = getattr(builtins, name, None)
    if isinstance(cls, type) and issubclass(cls, Exception) and cls is not StopIteration:
        return cls(message)
    return RuntimeError(f"{name}: {message}")


class StandIn:
    """Something in the candidate's process: it can be called, its attributes read and set, it can be handed back in a
    call; it has no value here, so nothing it is compared with is ever equal.
    """

    __slots__ = ("_known", "_origin", "_run", "_target")
    __hash__ = None  # type: ignore[assignment]

    _run: Run
    _target: list[Any]
    _origin: str
    _known: bool

    def __init__(self, run: Run, target: list[Any], origin: str, known: bool = True) -> None:
        for name, value in (("_run", run), ("_target", target), ("_origin", origin), ("_known", known)):
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (args or kwargs) and self._origin not in (ENTRY, NAMED):
            _hand_over(self)
        origin = RETURNED
        if self._target[0] == "name":
            origin = MADE if self._origin == NAMED else ENTRY if self._run.entry_is_class else RETURNED
        return self._run.ask("call", self._target, args, kwargs, origin)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        origin = RETURNED if self._origin == NAMED else self._origin
        if origin == RETURNED and self._known and self._run.is_data_name(name) and not self._run.trust_objects:
            raise TypeError(_NO_DATA)
        return self._run.ask("get", self._target, (name,), {}, origin)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._origin == RETURNED:
            _hand_over(self)
        self._run.ask("set", self._target, (name, value), {})


def _hand_over(target: StandIn) -> None:
    """A value is about to reach `target`. Returns where that is allowed."""
    if target._run.trust_objects:
        return
    if target._origin == RETURNED and not target._known:
        raise Pending
    raise Untrusted("values are handed to an object of the candidate's, which would judge itself")


def _no_value(self: StandIn, *_: Any) -> Any:
    if object.__getattribute__(self, "_known"):
        raise TypeError(_NO_DATA)
    raise Pending


_OPERATIONS = """
    lt le eq ne gt ge bool len iter next contains getitem str repr format int float index complex abs neg pos round
    add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow and rand or ror xor rxor lshift
    rshift invert copy deepcopy reduce_ex enter
"""
for _name in _OPERATIONS.split():
    setattr(StandIn, f"__{_name}__", _no_value)


class Assertion:
    """Around one assertion: notes how it ended."""

    def __init__(self, run: Run, line: int) -> None:
        self.run, self.line = run, line

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if kind is None:
            self.run.checks.append([self.line, "passed", ""])
        elif issubclass(kind, Pending):
            self.run.checks.append([self.line, "pending", ""])
        elif issubclass(kind, Exception):
            self.run.checks.append([self.line, "failed", f"{kind.__name__}: {error}"[:300]])
            if self.run.stop and not self.run.pending:
                raise FirstFailure
        else:
            return False
        return True


def main() -> None:
    task = json.load(sys.stdin)
    sys.setrecursionlimit(task["recursion_limit"])
    run = Run(task["known"], task["answers"], task["stop"], task["trust_objects"])
    entry = task["entry_point"].split(".")[0].removesuffix("()")
    run.entry_is_class = task["entry_point"].startswith(f"{entry}()")
    space: dict[str, Any] = {"__name__": "tests", "__assertion__": lambda line: Assertion(run, line)}
    try:
        for name in task["names"]:
            module = name in sys.stdlib_module_names
            origin = ENTRY if name == entry else NAMED
            space[name] = importlib.import_module(name) if module else StandIn(run, ["name", name], origin)
        # The problem's own text, in a sandbox: nothing of a model's answer is run here.
        exec(compile(task["prelude"], "<prelude>", "exec"), space)
        run.classes = {c: space[c] for c in task["classes"]}
        space["candidate"] = StandIn(run, ["entry", ""], ENTRY)
        random.seed(0)
        exec(compile(task["program"], "<tests>", "exec"), space)
        end = "finished"
    except Pending:
        end = "pending"
    except FirstFailure:
        end = "failed"
    except Unsupported as error:
        end = f"unsupported: {error}"
    except Untrusted as error:
        end = f"untrusted: {error}"
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"[:300]
    report = {"calls": run.calls, "pending": run.pending, "checks": run.checks, "end": end}
    data = json.dumps(report).encode() + b"\n"
    while data:
        data = data[os.write(3, data) :]


if __name__ == "__main__":
    main()

"""Runs in the sandbox, beside the candidate: load its source, make the calls asked for, write what they return to
file descriptor 3, one JSON line each, as it comes.

Nothing here is trusted by the reader and nothing here is secret: no expected value exists in this process. A candidate
that tampers with this file's frames, modules or descriptors changes only its own answers.

Lines: ["ready"], when the problem's prelude has run and nothing of the candidate's has; ["loaded"]; then one for each
call: ["value", wire], ["object"] (no data, usable by number in later calls) or ["raised", type, message]. In the place
of either of the first two, ["unparsable", message] or ["not loaded", type, message].
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

import wire

REPLY = 3


def main() -> None:
    task = json.load(sys.stdin)
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    sys.setrecursionlimit(task["recursion_limit"])
    for name in ("prelude", "source"):
        try:
            code = compile(task[name], f"<{name}>", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            send(["unparsable", str(error)])
            return
        try:
            # This process exists to run untrusted code; the sandbox around it is what makes that harmless.
            exec(code, module.__dict__)
        except BaseException as error:
            send(["not loaded", type(error).__name__, _text(error)])
            return
        send(["ready" if name == "prelude" else "loaded"])
    classes = {c: getattr(module, c) for c in task["classes"] if isinstance(getattr(module, c, None), type)}
    results: list[Any] = []
    for call in task["calls"]:
        result = None
        try:
            result = make(call, module, task["entry_point"], results, classes)
            line = ["value", wire.encode(result, classes)]
        except wire.WireError:
            line = ["object"]
        except BaseException as error:
            line = ["raised", type(error).__name__, _text(error)]
        results.append(result)
        send(line)
        if line[0] == "raised" and task["stop"]:
            return


def make(call: Any, module: Any, entry_point: str, results: list[Any], classes: dict[str, type]) -> Any:
    """One operation on the candidate: call a function, read or set an attribute."""
    verb, target, wired = call
    kind, *where = target
    if kind == "entry":
        subject = find(module, entry_point)
    else:
        subject = getattr(module, where[0]) if kind == "name" else results[where[0]]
    args, kwargs = wire.decode(wired, classes, results.__getitem__)
    if verb == "get":
        return getattr(subject, args[0])
    if verb == "set":
        return setattr(subject, *args)
    return subject(*args, **kwargs)


def find(module: Any, path: str) -> Any:
    """`f`, or `Solution().f`: a fresh instance for every call, as the sites that use this form do it."""
    subject = module
    for part in path.split("."):
        subject = getattr(subject, part.removesuffix("()"))
        if part.endswith("()"):
            subject = subject()
    return subject


def _text(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:
        return ""


def send(line: list[Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(REPLY, data) :]


if __name__ == "__main__":
    main()
    os._exit(0)

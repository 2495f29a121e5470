"""Values as JSON between processes that do not trust each other: data only, never objects with behaviour.

A value is `{"root": item, "heap": [node, ...]}`. An item is a JSON scalar (None, bool, int, str, finite float) or
`[i]`, which points at heap node i. A node is `[tag, part, ...]`. Because containers live in a flat heap, nesting costs
no recursion on either side, shared and cyclic values (linked lists, graphs) keep their shape, and True, 1 and 1.0, or
a list and a tuple, stay different things.

`decode` reads what an untrusted program wrote. It builds builtin types and instances of `classes` (the problem's own
records, such as a list node) and nothing else, and refuses what would cost the reader more than its length: tuples so
deep that hashing them would overflow, keys that cost more to hash, all together, than `MAX_HASHING`, and hashed
collections beyond `hashed_limit` entries (keys chosen to collide make a set quadratic).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MAX_DEPTH = 400
MAX_HASHING = 5_000_000  # parts visited by hashing in one decode: Python hashes a tuple anew at every use as a key
MAX_PLAIN_INT = 1 << 62
BUILTIN_TYPES: dict[str, Any] = {
    t.__name__: t for t in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, object, type)
}
_MUTABLE = ("list", "dict", "set", "object")
_IMMUTABLE = ("tuple", "frozenset")


class WireError(ValueError):
    """The value cannot be sent as data, or what came is not such a value."""


def encode(
    value: Any, classes: Iterable[str] = (), reference: Callable[[Any], int | None] | None = None
) -> dict[str, Any]:
    """`value` in wire form. `classes`: names of classes whose instances go as records of their attributes.
    `reference(x)`: a number to send in the place of x, or None. WireError where a part of `value` is no data.
    """
    return _Encoder(frozenset(classes), reference).run(value)


class _Encoder:
    def __init__(self, classes: frozenset[str], reference: Callable[[Any], int | None] | None) -> None:
        self.classes, self.reference = classes, reference
        self.heap: list[list[Any]] = []
        self.places: dict[int, int | None] = {}
        self.alive: list[Any] = []

    def run(self, value: Any) -> dict[str, Any]:
        stack = [] if _is_scalar(value) else [(value, False)]
        while stack:
            x, opened = stack.pop()
            if id(x) in self.places and not opened:
                continue
            self.alive.append(x)  # an id means something only while its object lives
            if opened:
                self.close(x)
                continue
            kind, parts = self.split(x)
            if kind in _MUTABLE:
                self.places[id(x)] = len(self.heap)
                self.heap.append([kind, parts])
            elif kind in _IMMUTABLE:
                # Its place is given when its parts have theirs; meeting it before that is a cycle of immutables.
                stack.append((x, True))
                self.places[id(x)] = None
            else:
                self.places[id(x)] = len(self.heap)
                self.heap.append([kind, *parts])
                continue
            stack.extend((part, False) for part in reversed(parts) if not _is_scalar(part))
        for node in self.heap:
            if node[0] in _MUTABLE:
                node[1:] = [self.item(part) for part in node[1]]
        return {"root": self.item(value), "heap": self.heap}

    def close(self, x: Any) -> None:
        kind, parts = self.split(x)
        node = [kind, *(self.item(part) for part in parts)]
        self.places[id(x)] = len(self.heap)
        self.heap.append(node)

    def item(self, x: Any) -> Any:
        if _is_scalar(x):
            return x
        place = self.places.get(id(x))
        if place is None:
            raise WireError("a value contains itself through tuples only")
        return [place]

    def split(self, x: Any) -> tuple[str, list[Any]]:
        """The tag of `x` and its parts, for one level."""
        number = self.reference(x) if self.reference else None
        if number is not None:
            return "ref", [number]
        if isinstance(x, type):
            if x in BUILTIN_TYPES.values():
                return "type", [x.__name__]
            raise WireError("a class is no data")
        name = type(x).__name__
        if name in self.classes:
            parts = [part for pair in vars(x).items() for part in pair]
            self.alive.append(parts)
            return "object", [name, *parts]
        for base, kind in ((list, "list"), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
            if isinstance(x, base):
                return kind, list(x)
        if isinstance(x, dict):
            return "dict", [part for pair in x.items() for part in pair]
        if isinstance(x, Iterator):
            # It equals nothing but keeps its items: `list(...)` of it gives there what it gives here.
            items = list(x)
            self.alive.append(items)
            return "iterator", [encode(items, self.classes, self.reference)]
        return _scalar_node(x)


def _is_scalar(x: Any) -> bool:
    kind = type(x)
    if kind is int:
        return -MAX_PLAIN_INT < x < MAX_PLAIN_INT
    return x is None or kind is bool or kind is str or (kind is float and math.isfinite(x))


def _scalar_node(x: Any) -> tuple[str, list[Any]]:
    """Scalars that JSON has no word for, and subclasses of scalars, which go as their base."""
    if isinstance(x, bool | int):
        return "int", [hex(int(x))]
    if isinstance(x, float):
        return "float", [repr(float(x))]
    if isinstance(x, str):
        return "str", [str.__str__(x)]
    if isinstance(x, bytes | bytearray):
        return "bytes", [bytes(x).hex()]
    if isinstance(x, complex):
        return "complex", [repr(x.real), repr(x.imag)]
    if isinstance(x, range):
        return "range", [x.start, x.stop, x.step]
    if type(x).__module__ == "numpy" and getattr(x, "shape", None) == ():
        plain = x.tolist()
        return ("int", [hex(plain)]) if type(plain) in (int, bool) else ("float", [repr(float(plain))])
    raise WireError(f"an object of type {type(x).__name__} is no data")


def decode(
    wire: Any,
    classes: Mapping[str, type] | None = None,
    reference: Callable[[int], Any] | None = None,
    hashed_limit: int | None = None,
    types: bool = True,
) -> Any:
    """The value of `wire`. `classes`: name -> class, for records; `reference(number)`: the object behind a number;
    `types`: builtin types may be values, which can be called (`bool` would say yes to what it is given).
    WireError on anything else than a well-formed value within the limits of this module.
    """
    try:
        return _Decoder(wire, classes or {}, reference, hashed_limit, types).run()
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise WireError(f"not a value: {type(error).__name__}: {error}"[:200]) from None


class _Decoder:
    def __init__(
        self,
        wire: Any,
        classes: Mapping[str, Any],
        reference: Callable[[int], Any] | None,
        hashed_limit: int | None,
        types: bool,
    ) -> None:
        self.root, self.heap = wire["root"], wire["heap"]
        self.classes, self.reference, self.hashed_limit, self.types = classes, reference, hashed_limit, types
        self.values: list[Any] = [None] * len(self.heap)
        self.weights = [(0, 1)] * len(self.heap)  # depth and unshared size of what hashing a node would visit
        self.hashing = 0

    def run(self) -> Any:
        for i, (kind, *parts) in enumerate(self.heap):
            self.values[i] = self.make(i, kind, parts)
        for i, (kind, *parts) in enumerate(self.heap):
            if kind in _MUTABLE:
                self.fill(self.values[i], kind, parts)
        return self.item(self.root)

    def item(self, x: Any, before: int | None = None) -> Any:
        if type(x) is not list:
            if not (x is None or type(x) in (bool, int, str, float)):
                raise WireError("an item is neither a scalar nor a place")
            return x
        (place,) = x
        if type(place) is not int or not 0 <= place < len(self.heap):
            raise WireError("a place outside the heap")
        if before is not None and self.heap[place][0] not in _MUTABLE and place >= before:
            raise WireError("a part stands behind its whole")
        return self.values[place]

    def make(self, i: int, kind: Any, parts: list[Any]) -> Any:
        if kind in ("list", "set", "dict"):
            return BUILTIN_TYPES[kind]()
        if kind == "object":
            cls = self.classes[parts[0]]
            return cls.__new__(cls)
        if kind in _IMMUTABLE:
            inner = [self.weights[part[0]] for part in parts if type(part) is list]
            depth, size = 1 + max((d for d, _ in inner), default=0), 1 + len(parts) + sum(s for _, s in inner)
            if depth > MAX_DEPTH or size > MAX_HASHING:
                raise WireError("tuples nested or shared beyond the limit")
            self.weights[i] = depth, size
            if kind == "frozenset":
                self.spend(parts)
                self.weights[i] = depth, 1  # it keeps its hash
            self.check_hashed(kind, parts)
            return BUILTIN_TYPES[kind](self.item(part, before=i) for part in parts)
        if kind == "iterator":
            return iter(decode(parts[0], self.classes, self.reference, self.hashed_limit, self.types))
        if kind == "ref":
            if self.reference is None:
                raise WireError("a reference to nothing")
            return self.reference(parts[0])
        if kind == "type" and not self.types:
            raise WireError("a type is no answer")
        if kind == "int":
            self.weights[i] = 0, 1 + len(parts[0]) // 8
        return _MAKE[kind](*parts)

    def spend(self, keys: list[Any]) -> None:
        """Hashing `keys` once more."""
        self.hashing += sum(self.weights[key[0]][1] if type(key) is list else 1 for key in keys)
        if self.hashing > MAX_HASHING:
            raise WireError("keys that cost too much to hash")

    def fill(self, value: Any, kind: str, parts: list[Any]) -> None:
        self.check_hashed(kind, parts)
        if kind == "list":
            value.extend(map(self.item, parts))
        elif kind == "set":
            self.spend(parts)
            value.update(map(self.item, parts))
        else:
            names, items = (parts[0::2], parts[1::2]) if kind == "dict" else (parts[1::2], parts[2::2])
            if len(names) != len(items):
                raise WireError("a key without a value")
            if kind == "dict":
                self.spend(names)
                value.update(zip(map(self.item, names), map(self.item, items), strict=True))
            else:
                for name, x in zip(names, items, strict=True):
                    self.set_field(value, name, self.item(x))

    def set_field(self, record: Any, name: Any, value: Any) -> None:
        """A field of a record. What its class does stays as it is: a field of a method's name would stand in for it."""
        kept = next((vars(c)[name] for c in type(record).__mro__ if name in vars(c)), None)
        if type(name) is not str or name[:2] == "__" or callable(kept) or hasattr(type(kept), "__get__"):
            raise WireError(f"a record of {type(record).__name__} has no field {name!r}")
        vars(record)[name] = value

    def check_hashed(self, kind: str, parts: list[Any]) -> None:
        entries = {"set": len(parts), "frozenset": len(parts), "dict": len(parts) // 2}.get(kind, 0)
        if self.hashed_limit is not None and entries > self.hashed_limit:
            raise WireError(f"a {kind} of {entries} entries, at most {self.hashed_limit} can be right")


def _long_int(text: Any) -> int:
    if type(text) is not str:
        raise WireError("an int node holds no text")
    return int(text, 16)


_MAKE: dict[str, Callable[..., Any]] = {
    "int": _long_int,
    "float": lambda text: float(text[:400]),
    "str": lambda text: str(text),
    "bytes": bytes.fromhex,
    "complex": lambda real, imag: complex(float(real[:400]), float(imag[:400])),
    "range": lambda start, stop, step: range(start, stop, step),
    "type": lambda name: BUILTIN_TYPES[name],
}

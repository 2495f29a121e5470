"""Why this matters: every value a candidate returns crosses here; a type lost on the way is a false verdict, and a
reader that can be stalled or crashed by what it reads is a way to end a run.

Exercised: exact return of data, shared and cyclic values, records, refusal of what is no data, hostile input.
Not exercised: the processes around it (test_calls, test_hacks).
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.verifiers.code.inside import wire

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda x: st.tuples(x, x) | st.frozensets(x, max_size=3), max_leaves=8)
VALUES = st.recursive(
    HASHABLE,
    lambda x: (
        st.lists(x, max_size=4)
        | st.dictionaries(HASHABLE, x, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.tuples(x)
    ),
    max_leaves=16,
)


class Node:
    def __init__(self, val: Any = 0, next: Node | None = None) -> None:
        self.val, self.next = val, next


def there_and_back(value: Any, **options: Any) -> Any:
    return wire.decode(json.loads(json.dumps(wire.encode(value), allow_nan=False)), **options)


def typed(value: Any) -> Any:
    """`value` with every type spelled out: == alone takes True for 1."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(v) for v in value]
    if isinstance(value, dict):
        return "dict", [(typed(k), typed(v)) for k, v in value.items()]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(map(repr, map(typed, value)))
    return type(value).__name__, repr(value)


@given(VALUES)
def test_values_come_back_as_they_went(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert typed(back) == typed(value)


def test_values_that_json_has_no_word_for() -> None:
    assert math.isnan(there_and_back(math.nan))
    value = [math.inf, -math.inf, 10**5000, -(1 << 63), range(3, 9, 2), int, "\ud800", b"\xff"]
    assert there_and_back(value) == value


def test_subclasses_arrive_as_their_base() -> None:
    class Mine(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    back = there_and_back([Mine(3), type("Text", (str,), {})("a"), type("Items", (list,), {})([1])])
    assert [type(x) for x in back] == [int, str, list]
    assert back == [3, "a", [1]]
    assert back[0] != 4


def test_sharing_and_cycles_keep_their_shape() -> None:
    inner: list[Any] = [1]
    outer = [inner, inner]
    outer.append(outer)
    back = there_and_back(outer)
    assert back[0] is back[1]
    assert back[2] is back


def test_records_of_known_classes_and_no_others() -> None:
    chain = None
    for i in range(20_000):  # deeper than any recursion limit
        chain = Node(i, chain)
    sent = wire.encode(chain, ["Node"])
    back = wire.decode(sent, {"Node": Node})
    length = 0
    while back is not None:
        length, back = length + 1, back.next
    assert length == 20_000
    with pytest.raises(wire.WireError):
        wire.encode(Node(1))
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(Node(1), ["Node"]))


@pytest.mark.parametrize("value", [object(), len, lambda: 0, Node, [object()], {"a": print}, json])
def test_behaviour_is_not_data(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(value)


def test_iterators_arrive_with_their_items() -> None:
    assert list(there_and_back(x * x for x in range(4))) == [0, 1, 4, 9]
    assert there_and_back(map(str, [1])) != ["1"]


HOSTILE = [
    None,
    7,
    [],
    {},
    {"root": 1},
    {"root": [0], "heap": []},
    {"root": [0], "heap": "list"},
    {"root": [-1], "heap": [["list"]]},
    {"root": [0, 0], "heap": [["list"]]},
    {"root": {"a": 1}, "heap": []},
    {"root": [True], "heap": [["list"], ["list"]]},
    {"root": [0], "heap": [["object", "os"]]},
    {"root": [0], "heap": [["ref", 0]]},
    {"root": [0], "heap": [["type", "eval"]]},
    {"root": [0], "heap": [[["list"], 1]]},
    {"root": [0], "heap": [["tuple", [1]], ["tuple", [0]]]},
    {"root": [0], "heap": [["tuple", [0]]]},
    {"root": [0], "heap": [["set", [1]], ["list"]]},
    {"root": [0], "heap": [["dict", 1]]},
    {"root": [0], "heap": [["dict", [1], 1], ["dict"]]},
    {"root": [0], "heap": [["int", 3]]},
    {"root": [0], "heap": [["int", "zz"]]},
    {"root": [0], "heap": [["float", []]]},
    {"root": [0], "heap": [["bytes", "f"]]},
    {"root": [0], "heap": [["range", [0], 1, 1]]},
    {"root": [0], "heap": [["unknown"]]},
    {"root": [0], "heap": [[]]},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_what_is_no_value_is_refused(hostile: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(hostile)


def doubled(tag: str, times: int) -> dict[str, Any]:
    heap: list[Any] = [[tag, 1]]
    for i in range(times):
        heap.append([tag, [i], [i]])
    return {"root": [times], "heap": heap}


def test_values_that_cost_more_than_their_length_are_refused() -> None:
    start = time.process_time()
    for hostile in (
        doubled("tuple", 40),  # hashing it would visit 2 ** 40 parts
        {
            "root": [99_999],
            "heap": [["tuple"], *(["tuple", [i]] for i in range(99_999))],
        },  # hashing it would overflow C
    ):
        with pytest.raises(wire.WireError):
            wire.decode(hostile)
    prime = (1 << 61) - 1  # all hash to 0
    colliding = {"root": [200_000], "heap": [["int", hex(i * prime)] for i in range(200_000)]}
    colliding["heap"].append(["set", *([i] for i in range(200_000))])
    with pytest.raises(wire.WireError):
        wire.decode(colliding, hashed_limit=100)
    assert time.process_time() - start < 5


def test_keys_may_cost_only_so_much_all_together() -> None:
    """One tuple of a hundred thousand parts as the key of a hundred thousand entries: Python hashes it every time."""
    part = {"root": [2], "heap": [["tuple", *range(100_000)], ["list"]]}
    for tag, entries in (("dict", [x for i in range(50_000) for x in ([0], i)]), ("set", [[0]] * 50_000)):
        hostile = {**part, "heap": [*part["heap"], [tag, *entries]]}
        start = time.process_time()
        with pytest.raises(wire.WireError, match="cost too much to hash"):
            wire.decode(hostile)
        assert time.process_time() - start < 2
    long_number = {"root": [1], "heap": [["int", hex(1 << 4_000_000)], ["set", *([[0]] * 50_000)]]}
    with pytest.raises(wire.WireError, match="cost too much to hash"):
        wire.decode(long_number)
    honest = {(i, str(i)): i for i in range(50_000)}
    assert there_and_back(honest) == honest


def test_shared_lists_cost_nothing_until_compared_with_something_finite() -> None:
    assert wire.decode(doubled("list", 60)) != [[1], [1]]

"""Why this matters: every problem is declared solvable, and every blind rate computed, by this search. It
is compared with a slow enumeration that shares no code with it (all orders, all bracketings, all operators,
exact fractions).

Not exercised: speed beyond a coarse bound for six numbers.
"""

from __future__ import annotations

import random
import time
from functools import cache

import pytest

from r1kit.tasks.search import (
    Node,
    expression_counts,
    expressions,
    join,
    members,
    random_expression,
    reachable,
    reductions,
    render,
    splits,
    witness,
    working,
)
from r1kit.verifiers import parse_expression


@cache
def slow_values(numbers: tuple[int, ...], limit: int) -> frozenset[int]:
    """Every value by taking two numbers out, putting a result back, in every order."""
    if len(numbers) == 1:
        return frozenset(n for n in numbers if n <= limit)
    found: set[int] = set()
    for i in range(len(numbers)):
        for j in range(len(numbers)):
            if i == j:
                continue
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            a, b = numbers[i], numbers[j]
            results = [a + b, a - b, a * b] + ([a // b] if b and a % b == 0 else [])
            for value in results:
                if 0 <= value <= limit:
                    found |= slow_values(tuple(sorted((*rest, value))), limit)
    return frozenset(found)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_reachable_equals_a_slow_enumeration(size: int) -> None:
    rng = random.Random(size)
    for _ in range(12 if size < 5 else 3):
        numbers = tuple(sorted(rng.randint(1, 15) for _ in range(size)))
        assert set(members(reachable(numbers, 99))) == slow_values(numbers, 99), numbers


def test_every_witness_proves_its_target() -> None:
    for numbers in [(3, 5, 6), (1, 1, 1), (2, 7, 7, 13), (4, 4, 4, 4), (1, 5, 9, 12, 15), (1, 2, 3, 4, 5, 6)]:
        for target in members(reachable(numbers, 99))[:40]:
            found = witness(numbers, target, 99)
            assert found is not None
            parsed = parse_expression(render(found))
            assert (parsed.value, tuple(sorted(parsed.numbers))) == (target, numbers)


def test_no_witness_where_there_is_none() -> None:
    assert witness((1, 1, 1), 7, 99) is None
    assert witness((1, 1, 1), 2, 99) is not None


@pytest.mark.parametrize("numbers", [(3, 5, 6), (4, 4, 4), (2, 2, 5), (1, 2, 3, 4), (3, 3, 7, 7), (2, 2, 2, 2)])
def test_counts_and_lists_agree(numbers: tuple[int, ...]) -> None:
    listed = expressions(numbers, 99)
    counts = expression_counts(numbers, 99)
    assert len({render(node) for node in listed}) == len(listed) == counts.total()
    assert {v: sum(n.value == v for n in listed) for v in counts} == dict(counts)
    assert sorted(counts) == members(reachable(numbers, 99))
    for node in listed:
        parsed = parse_expression(render(node))
        assert (parsed.value, tuple(sorted(parsed.numbers))) == (node.value, numbers)


def test_one_text_for_one_meaning() -> None:
    """No two listed expressions differ only by the order around + or *."""

    def meaning(node: Node) -> object:
        if not node.op:
            return node.value
        sides = tuple(meaning(child) for child in node.children())
        return (node.op, frozenset(sides) if len(set(sides)) == 2 else sides) if node.op in "+*" else (node.op, sides)

    listed = expressions((2, 3, 5, 7), 99)
    assert len({meaning(node) for node in listed}) == len(listed)


def test_working_is_written_step_by_step() -> None:
    tree = join("*", join("+", Node(4), Node(5)) or Node(0), join("-", Node(8), Node(6)) or Node(0))
    assert tree is not None
    assert working(tree) == "(8-6)*(4+5)=2*(4+5)=2*9=18"
    assert [step.value for step in reductions(tree)] == [18, 18, 18]
    three = join("-", join("+", Node(3), Node(6)) or Node(0), Node(5))
    assert three is not None
    assert working(three) == "(3+6)-5=9-5=4"


@pytest.mark.parametrize(
    ("op", "a", "b", "text"),
    [
        ("+", 6, 3, "3+6"),
        ("*", 6, 3, "3*6"),
        ("-", 3, 6, "6-3"),
        ("/", 3, 6, "6/3"),
        ("/", 0, 6, "0/6"),
        ("/", 4, 6, None),
        ("/", 0, 0, None),
    ],
)
def test_join(op: str, a: int, b: int, text: str | None) -> None:
    made = join(op, Node(a), Node(b))
    assert (None if made is None else render(made)) == text


def test_splits_are_unordered_and_distinct() -> None:
    assert splits((1, 2)) == (((1,), (2,)),)
    assert splits((3, 3, 5)) == (((3,), (3, 5)), ((5,), (3, 3)))
    assert len(splits((1, 2, 3, 4))) == 7


def test_random_expressions_reach_every_listed_one() -> None:
    rng = random.Random(0)
    listed = {render(node) for node in expressions((3, 5, 6), 99)}
    drawn = {render(random_expression((3, 5, 6), 99, rng)) for _ in range(3000)}
    assert drawn == listed


def test_six_numbers_are_searched_in_reasonable_time() -> None:
    started = time.process_time()
    assert len(members(reachable((4, 7, 9, 11, 13, 15), 99))) == 100
    assert time.process_time() - started < 5

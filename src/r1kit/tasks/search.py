"""Exhaustive search over what a multiset of numbers can make.

The world is TinyZero's countdown with tidy intermediates: every value on the way is an integer from 0 to
`max_value`, division is exact, each number is used exactly once. Expressions are counted once per meaning
of the text: for + and * the larger subtree stands first (two numbers: the smaller first), for - and / the
larger value does.

Values of a multiset are kept as one Python integer, bit v set where v can be made: that makes the search
exact and still fast for six numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """An expression tree. A leaf has no `op` and no children; `value` is its number."""

    value: int
    op: str = ""
    left: Node | None = None
    right: Node | None = None
    size: int = 1

    def children(self) -> tuple[Node, Node]:
        if self.left is None or self.right is None:
            raise ValueError(f"the number {self.value} has no operands")
        return self.left, self.right


def join(op: str, a: Node, b: Node) -> Node | None:
    """`a op b` in canonical order; None where the value would not be an integer >= 0."""
    if op in "+*":
        first, second = (a, b) if _rank(a, b) else (b, a)
        value = a.value + b.value if op == "+" else a.value * b.value
        return Node(value, op, first, second, a.size + b.size)
    first, second = (a, b) if a.value > b.value or (a.value == b.value and _rank(a, b)) else (b, a)
    if op == "-":
        return Node(first.value - second.value, op, first, second, a.size + b.size)
    if second.value == 0:  # 0 divided by a number is 0, whichever side it came from
        return Node(0, op, second, first, a.size + b.size) if first.value else None
    quotient, rest = divmod(first.value, second.value)
    return None if rest else Node(quotient, op, first, second, a.size + b.size)


def _rank(a: Node, b: Node) -> bool:
    """True where `a` stands before `b`: larger subtree, then smaller value, then (on a tie) the text."""
    if a.size != b.size:
        return a.size > b.size
    return a.value < b.value or (a.value == b.value and (a.size == 1 or render(a) <= render(b)))


def render(node: Node, *, inner: bool = False) -> str:
    """The expression as text; every compound part but the whole is in brackets."""
    if not node.op:
        return str(node.value)
    left, right = node.children()
    text = f"{render(left, inner=True)}{node.op}{render(right, inner=True)}"
    return f"({text})" if inner else text


def reductions(node: Node) -> Iterator[Node]:
    """The tree after each step of working it out, innermost leftmost first, down to a single number."""
    while node.op:
        node = _reduce(node)
        yield node


def _reduce(node: Node) -> Node:
    left, right = node.children()
    if left.op:
        return Node(node.value, node.op, _reduce(left), right, node.size)
    if right.op:
        return Node(node.value, node.op, left, _reduce(right), node.size)
    return Node(node.value)


def working(node: Node) -> str:
    """Expression, every step and the value: `(3+6)-5=9-5=4`."""
    return "=".join([render(node), *(render(step) for step in reductions(node))])


@lru_cache(maxsize=1 << 16)
def splits(numbers: Numbers) -> tuple[tuple[Numbers, Numbers], ...]:
    """The ways to part a sorted multiset in two non-empty ones, each unordered pair once."""
    found: set[tuple[Numbers, Numbers]] = set()
    for mask in range(1, 1 << (len(numbers) - 1)):  # the last number stays on the right: each pair once
        left = tuple(n for i, n in enumerate(numbers) if mask >> i & 1)
        right = tuple(n for i, n in enumerate(numbers) if not mask >> i & 1)
        found.add((left, right) if (len(left), left) <= (len(right), right) else (right, left))
    return tuple(sorted(found))


def members(bits: int) -> list[int]:
    """The values of a bit set, ascending."""
    return [v for v in range(bits.bit_length()) if bits >> v & 1]


@lru_cache(maxsize=1 << 17)
def reachable(numbers: Numbers, max_value: int) -> int:
    """Bit set of every value that an expression over the sorted multiset can take (all numbers used)."""
    if len(numbers) == 1:
        return 1 << numbers[0] if numbers[0] <= max_value else 0
    mask, found = (1 << (max_value + 1)) - 1, 0
    for left, right in splits(numbers):
        a_bits, b_bits = reachable(left, max_value), reachable(right, max_value)
        a_values, b_values = members(a_bits), members(b_bits)
        for a in a_values:
            found |= b_bits << a | b_bits >> a  # a + b, b - a
        for b in b_values:
            found |= a_bits >> b  # a - b
        for a in a_values:
            for b in b_values:
                if a * b > max_value:
                    break
                found |= 1 << a * b
            for b in b_values:
                if b and a % b == 0:
                    found |= 1 << a // b
                if a and b % a == 0:
                    found |= 1 << b // a
        found &= mask
    return found


def witness(numbers: Numbers, target: int, max_value: int) -> Node | None:
    """An expression over the sorted multiset that equals `target`; None is a proof that there is none."""
    if not reachable(numbers, max_value) >> target & 1:
        return None
    if len(numbers) == 1:
        return Node(numbers[0])
    for left, right in splits(numbers):
        b_values = members(reachable(right, max_value))
        for a in members(reachable(left, max_value)):
            for b in b_values:
                for op in "+-*/":
                    node = join(op, Node(a, size=len(left)), Node(b, size=len(right)))
                    if node is not None and node.value == target:
                        return _rebuild(op, (left, a), (right, b), max_value)
    raise AssertionError(f"{target} is reachable from {numbers} and no split makes it")


def _rebuild(op: str, a: tuple[Numbers, int], b: tuple[Numbers, int], max_value: int) -> Node | None:
    left, right = witness(*a, max_value), witness(*b, max_value)
    return join(op, left, right) if left is not None and right is not None else None


@lru_cache(maxsize=4096)
def expressions(numbers: Numbers, max_value: int) -> tuple[Node, ...]:
    """Every distinct expression over the sorted multiset: about 30 of three numbers, hundreds of four."""
    if len(numbers) == 1:
        return (Node(numbers[0]),) if numbers[0] <= max_value else ()
    found: dict[str, Node] = {}
    for left, right in splits(numbers):
        for a in expressions(left, max_value):
            for b in expressions(right, max_value):
                for node in (join(op, a, b) for op in "+-*/"):
                    if node is not None and node.value <= max_value:
                        found.setdefault(render(node), node)
    return tuple(found.values())


@lru_cache(maxsize=1 << 14)
def expression_counts(numbers: Numbers, max_value: int) -> Counter[int]:
    """How many distinct expressions have each value: the size of the search, without listing it."""
    if len(numbers) == 1:
        return Counter({numbers[0]: 1} if numbers[0] <= max_value else {})
    counts: Counter[int] = Counter()
    for left, right in splits(numbers):
        a_counts, b_counts = expression_counts(left, max_value), expression_counts(right, max_value)
        for a, a_count in a_counts.items():
            for b, b_count in b_counts.items():
                if left == right and a > b:
                    continue  # equal halves: each unordered pair of expressions once
                same = left == right and a == b
                ways = a_count * (a_count + 1) // 2 if same else a_count * b_count
                for op in "+-*/":
                    node = join(op, Node(a), Node(b))
                    if node is not None and node.value <= max_value:
                        counts[node.value] += ways
    return counts


def random_expression(numbers: Numbers, max_value: int, rng: random.Random) -> Node:
    """A random expression by merging two random parts until one is left; dead ends start over.

    Not exactly uniform over expressions (that needs their list, see `expressions`), but every one can come
    up.
    """
    while True:
        parts = [Node(n) for n in numbers]
        while len(parts) > 1:
            a = parts.pop(rng.randrange(len(parts)))
            b = parts.pop(rng.randrange(len(parts)))
            options = [n for n in (join(op, a, b) for op in "+-*/") if n is not None and n.value <= max_value]
            if not options:
                break
            parts.append(rng.choice(options))
        else:
            return parts[0]

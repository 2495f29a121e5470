"""Multiplication documents: facts, guesses and traces over training pairs (shares: see `tasks.corpus`).

A trace works a product out by the distributive law along one of several routes, and may work it out again
by another route and compare: `12*7=10*7+2*7=70+14=84`, then `check 12*7=20*7-8*7=140-56=84?84 yes`. Where
the two disagree the verdict is no and the next attempt is compared with the last one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from r1kit.tasks.corpus_shape import Shape
from r1kit.tasks.multiplication import Multiplication
from r1kit.tasks.templates import multiplication_prompt

# A factor is rounded up (`87*9=90*9-3*9`) only where that is a small step.
ROUND_UP_WITHIN = 4


@dataclass(frozen=True, slots=True)
class Route:
    """One way to work out a product: signed partial products that sum to it, the first one positive."""

    head: str
    terms: tuple[tuple[int, int, int], ...]  # (sign, x, y)

    @property
    def products(self) -> str:
        return _signed([(sign, f"{x}*{y}") for sign, x, y in self.terms])


def _signed(terms: list[tuple[int, str]]) -> str:
    (_, first), *rest = terms
    return first + "".join(f"{'+' if sign > 0 else '-'}{text}" for sign, text in rest)


def place_values(number: int) -> list[int]:
    """The non-zero place values of a number: 305 -> [300, 5]."""
    digits = str(number)
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]


def _partitions(number: int) -> list[list[tuple[int, int]]]:
    """The signed ways to write a factor of two digits or more: by place value, and rounded up to a ten."""
    ways = []
    if len(places := place_values(number)) > 1:
        ways.append([(1, part) for part in places])
    missing = -number % 10
    if number > 10 and 0 < missing <= ROUND_UP_WITHIN:
        ways.append([(1, number + missing), (-1, missing)])
    return ways


class MultiplicationWriter:
    """Writes documents; every draw comes from `rng` in one fixed order."""

    def __init__(self, task: Multiplication, corpus: Any, rng: random.Random) -> None:
        self.task, self.corpus, self.rng = task, corpus, rng
        self.shape = Shape(corpus, task.template, rng)
        self.routes = lru_cache(maxsize=1 << 14)(self._routes)

    # --- documents ---

    def facts(self) -> str:
        """Lines of the products, sums and differences that stand inside traces."""
        lines: list[str] = []
        wanted = self.rng.randint(*self.corpus.fact_lines)
        while len(lines) < wanted:
            route = self.rng.choice(self.routes(*self.task.draw("train", self.rng)))
            lines += self._steps(route)
        self.rng.shuffle(lines)
        return "\n".join(lines[:wanted])  # no line break at the end: see countdown's

    def guess(self) -> str:
        """A question and a number, right now and then."""
        (a, b), question = self._question()
        product = a * b
        if self.rng.random() >= self.corpus.guess_right:
            product += self.rng.choice((-1, 1)) * self.rng.randint(1, max(2, product // 4))
        return question + self.shape.guess(str(product))

    def trace(self) -> str:
        """A question, the product worked out once or until two ways agree, and the answer come to."""
        rng, corpus, shape = self.rng, self.corpus, self.shape
        (a, b), question = self._question()
        routes, repeats = list(self.routes(a, b)), rng.random() < corpus.repeat_share
        rng.shuffle(routes)
        text, value = self._attempt(routes[0])
        if rng.random() >= corpus.check_share:
            return question + shape.close(text, str(value))
        written = [f"{text}\n"]
        for attempt in range(1, 1 + shape.budget()):
            route = rng.choice(routes) if repeats else routes[attempt % len(routes)]
            text, again = self._attempt(route)
            yes = shape.verdict(again == value)
            opening = "check " if attempt == 1 else shape.retry()
            written.append(f"{opening}{text}?{value} yes" if yes else f"{opening}{text}?{value} no\n")
            value = again
            if yes:
                break
        return question + shape.close("".join(written), str(value))

    # --- parts ---

    def _question(self) -> tuple[tuple[int, int], str]:
        pair = self.task.draw("train", self.rng)
        return pair, self.shape.question(multiplication_prompt("compact", *pair))

    def _routes(self, a: int, b: int) -> tuple[Route, ...]:
        """Every route for a * b whose partial products belong to no test family (never empty)."""
        found = []
        for x, y in ((a, b), (b, a)):
            left, right = _partitions(x), _partitions(y)
            splits = [[(s, p, y) for s, p in way] for way in left] + [[(s, x, p) for s, p in way] for way in right]
            if left and right and len(left[0]) == 2 and len(right[0]) == 2:
                splits.append([(s * t, p, q) for s, p in left[0] for t, q in right[0]])
            found += [Route(f"{x}*{y}", tuple(terms)) for terms in splits if self._allowed(terms)]
        return tuple(found) or (Route(f"{a}*{b}", ((1, a, b),)),)

    def _allowed(self, terms: list[tuple[int, int, int]]) -> bool:
        return not any(self.task.holds_out(x, y) for _, x, y in terms)

    def _attempt(self, route: Route) -> tuple[str, int]:
        """The route written out, now and then with one slip, and the value it ends in."""
        count = 2 * len(route.terms) - 1  # the partial products, then the sums
        slip_at = self.rng.randrange(count) if self.rng.random() < self.corpus.route_slip else -1
        values = [self._slip(x * y, slip_at == i) for i, (_, x, y) in enumerate(route.terms)]
        signs = [sign for sign, _, _ in route.terms]
        texts = [route.head, route.products] if len(route.terms) > 1 else [route.head]
        texts.append(_signed([(s, str(v)) for s, v in zip(signs, values, strict=True)]))
        for i in range(1, len(values)):
            total = self._slip(max(0, values[0] + signs[i] * values[i]), slip_at == len(route.terms) + i - 1)
            values[0] = total
            rest = [(signs[j], str(values[j])) for j in range(i + 1, len(values))]
            texts.append(_signed([(1, str(total)), *rest]))
        return "=".join(texts), values[0]

    def _slip(self, value: int, slips: bool) -> int:
        """`value`, or a near miss: off by one to three in one of its places."""
        if not slips:
            return value
        off = self.rng.choice((-3, -2, -1, 1, 2, 3)) * 10 ** self.rng.randrange(len(str(value)))
        return value + off if value + off >= 0 else value - off

    def _steps(self, route: Route) -> list[str]:
        """The single facts a route is made of: its partial products and its running sums."""
        lines = [f"{x}*{y}={x * y}" for _, x, y in route.terms]
        total = route.terms[0][1] * route.terms[0][2]
        for sign, x, y in route.terms[1:]:
            following = total + sign * x * y
            lines.append(f"{total}{'+' if sign > 0 else '-'}{x * y}={following}")
            total = following
        return lines

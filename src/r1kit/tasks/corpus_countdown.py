"""Countdown documents: facts, guesses and search traces over training multisets (shares: see
`tasks.corpus`)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle
from typing import Any, NamedTuple

from r1kit.tasks.corpus_shape import Shape
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.search import Node, Numbers, expressions, random_expression, render, working
from r1kit.tasks.templates import countdown_prompt

# Up to three numbers all expressions of a multiset are listed once; beyond, they are drawn as they are
# needed.
LISTED_UP_TO = 3
# How many random expressions a near-target draw chooses among where they are not listed.
NEAR_DRAWS = 6
# A trace that avoids repeats looks this often for an expression it has not tried.
FRESH_TRIES = 8


class Candidate(NamedTuple):
    """One expression ready to be written: `(3+6)-5`, its working `(3+6)-5=9-5=4`, its value."""

    text: str
    working: str
    value: int
    node: Node


def _candidate(node: Node) -> Candidate:
    return Candidate(render(node), working(node), node.value, node)


class CountdownWriter:
    """Writes documents; every draw comes from `rng` in one fixed order."""

    def __init__(self, task: Countdown, corpus: Any, rng: random.Random) -> None:
        self.task, self.corpus, self.rng = task, corpus, rng
        self.shape = Shape(corpus, task.template, rng)
        self.draw_numbers = task.sampler("train")
        self.fact_tables = _fact_tables(task.low, task.high, task.max_value)
        # The weight of a value that is i - max_value away from the target.
        self.near = [2 ** (-abs(i - task.max_value) / corpus.near_scale) for i in range(2 * task.max_value + 1)]
        # Bounded caches: a listable range fits whole, a wide one is redrawn.
        self.targets = lru_cache(maxsize=1 << 15)(task.targets)
        self.listed = lru_cache(maxsize=1 << 12)(self._listed)
        self.values = lru_cache(maxsize=1 << 12)(lambda numbers: [c.value for c in self.listed(numbers)])

    def _listed(self, numbers: Numbers) -> list[Candidate]:
        return [_candidate(node) for node in expressions(numbers, self.task.max_value)]

    def _near(self, target: int) -> list[float]:
        """Weights of the values from 0 on: the nearer to the target, the higher."""
        return self.near[self.task.max_value - target :]

    # --- documents ---

    def facts(self) -> str:
        """Lines of arithmetic as it stands inside attempts.

        No line break at the end: it would teach that a text may stop after any line, and so a search before its answer.
        """
        rng, lines = self.rng, []
        for _ in range(rng.randint(*self.corpus.fact_lines)):
            small, any_size = self.fact_tables[int(rng.random() * 4)]
            table = small if rng.random() < self.corpus.fact_small else any_size
            lines.append(table[int(rng.random() * len(table))])
        return "\n".join(lines)

    def guess(self) -> str:
        """A question and an expression, right now and then."""
        numbers, target, question = self._question()
        right = self.rng.random() < self.corpus.guess_right
        found = self._right(numbers, target) if right else self._draw(numbers, target, near=False)
        return question + self.shape.guess(found.text)

    def trace(self) -> str:
        """A question, attempts each with its verdict, and the answer the trace comes to."""
        shape = self.shape
        numbers, target, question = self._question()
        candidates = self._candidates(numbers, target)
        written, answer = [], ""
        for attempt in range(shape.budget()):
            found = next(candidates)
            answer = found.text
            written.append(shape.retry() if attempt else "")
            if self._attempt(found, target, written) and self._confirmed(found, target, written):
                break
        return question + shape.close("".join(written), answer)

    # --- parts ---

    def _candidates(self, numbers: Numbers, target: int) -> Iterator[Candidate]:
        """What a trace tries, one after the other: in the order of the list, or drawn, with or without repeats."""
        rng, corpus = self.rng, self.corpus
        orderly = rng.random() < corpus.orderly_share
        near, repeats = rng.random() < corpus.near_share, rng.random() < corpus.repeat_share
        if orderly and len(numbers) <= LISTED_UP_TO:
            pool = self.listed(numbers)
            start = int(rng.random() * len(pool))
            yield from cycle(pool[start:] + pool[:start])
        tried: set[str] = set()
        while True:
            found = self._draw(numbers, target, near=near)
            for _ in range(FRESH_TRIES):
                if repeats or found.text not in tried:
                    break
                found = self._draw(numbers, target, near=near)
            tried.add(found.text)
            yield found

    def _question(self) -> tuple[Numbers, int, str]:
        numbers = self.draw_numbers(self.rng)
        targets = self.targets(numbers)
        target = targets[int(self.rng.random() * len(targets))]
        return numbers, target, self.shape.question(countdown_prompt("compact", numbers, target))

    def _attempt(self, found: Candidate, target: int, written: list[str]) -> bool:
        """Write one attempt with its verdict; True where the verdict is yes."""
        text, value = found.working, found.value
        if self.rng.random() < self.corpus.slip:
            text, value = slipped(found.node, self.task.max_value, self.rng)
        yes = self.shape.verdict(value == target)
        written.append(f"{text}?{target} yes" if yes else f"{text}?{target} no\n")
        return yes

    def _confirmed(self, found: Candidate, target: int, written: list[str]) -> bool:
        """Now and then work a success out again; False where the second look says no."""
        if self.rng.random() >= self.corpus.recheck:
            return True
        written.append("\ncheck ")
        return self._attempt(found, target, written)

    def _draw(self, numbers: Numbers, target: int, *, near: bool) -> Candidate:
        rng, limit = self.rng, self.task.max_value
        if len(numbers) <= LISTED_UP_TO:
            pool = self.listed(numbers)
            if not near:
                return pool[int(rng.random() * len(pool))]
            near_target = self._near(target)
            return rng.choices(pool, [near_target[value] for value in self.values(numbers)])[0]
        nodes = [random_expression(numbers, limit, rng) for _ in range(NEAR_DRAWS if near else 1)]
        near_target = self._near(target)
        return _candidate(rng.choices(nodes, [near_target[node.value] for node in nodes])[0])

    def _right(self, numbers: Numbers, target: int) -> Candidate:
        if len(numbers) <= LISTED_UP_TO:
            right = [c for c in self.listed(numbers) if c.value == target]
            return right[int(self.rng.random() * len(right))]
        return _candidate(self.task.solution(numbers, target))


def slipped(node: Node, max_value: int, rng: random.Random) -> tuple[str, int]:
    """The working of `node` with one step off by 1 to 3, later steps carried on from the wrong value, and
    its end.

    Where the wrong value would break a later step (a division, a negative difference), the last step slips
    instead.
    """
    steps = node.size - 1
    for at in (rng.randrange(steps), steps - 1):
        texts, current = [render(node)], node
        for step in range(steps):
            off = rng.choice((-3, -2, -1, 1, 2, 3)) if step == at else 0
            following = _worked_once(current, off, max_value)
            if following is None:
                break
            current = following
            texts.append(render(current))
        if not current.op:
            return "=".join(texts), current.value
    wrong = node.value + 1 if node.value < max_value else node.value - 1
    return f"{working(node).rpartition('=')[0]}={wrong}", wrong


def _worked_once(node: Node, off: int, max_value: int) -> Node | None:
    """`node` with its innermost leftmost step worked out from its numbers, the result moved by `off`."""
    left, right = node.children()
    if left.op or right.op:
        part = _worked_once(left if left.op else right, off, max_value)
        if part is None:
            return None
        left, right = (part, right) if left.op else (left, part)
        return Node(node.value, node.op, left, right, node.size)
    value = _apply(node.op, left.value, right.value)
    return Node(value + off) if value is not None and 0 <= value + off <= max_value else None


def _apply(op: str, a: int, b: int) -> int | None:
    if op == "/":
        return a // b if b and a % b == 0 else None
    return a + b if op == "+" else a - b if op == "-" else a * b


def _fact_tables(low: int, high: int, max_value: int) -> list[tuple[list[str], list[str]]]:
    """For each operator the fact lines with two given numbers, and those with an intermediate on one side."""
    tables = []
    for op in "+-*/":
        lines: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for a in range(max_value + 1):
            for b in range(low, high + 1):
                for x, y in ((a, b), (b, a)):
                    value = _apply(op, x, y)
                    if value is None or not 0 <= value <= max_value:
                        continue
                    small = low <= a <= high
                    # Two given numbers stand in one order only under + and *, as in an attempt.
                    if not (small and op in "+*" and x > y):
                        lines[small][f"{x}{op}{y}={value}"] = None
        tables.append((list(lines[True]), list(lines[False])))
    return tables

"""Countdown: make a target from three to six numbers, each used exactly once, with + - * /.

Problems are made, not collected: for a multiset of numbers every target that the exhaustive search of
`tasks.search` reaches is a problem, and the expression found is kept in `metadata["witness"]`. The split is
by multiset, so a held-out problem shares its numbers with no training problem, whatever its target.

The search keeps intermediates to integers from 0 to `max_value`; the verifier does not: any exact rational
way counts.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from r1kit.records import Problem, Verdict
from r1kit.tasks.behaviour import countdown_statistics
from r1kit.tasks.search import Node, Numbers, expression_counts, members, reachable, render, witness
from r1kit.tasks.split import check_split, distinct, in_test
from r1kit.tasks.templates import check_template, countdown_prompt, published_tinyzero, thinking_opened
from r1kit.verifiers import find_answer, judge_expression, judge_format

# Above this many multisets they are drawn at random instead of listed: numbers from 1..99 four at a time
# make 4 million.
ENUMERATE_UP_TO = 60_000
# How many problems are drawn then, where the settings do not say.
DRAWN = {"train": 8192, "test": 1024}


class Countdown:
    """The countdown task.

    `settings` attributes: numbers [fewest, most] in 3..6; low, high (range of the numbers); max_value
    (largest intermediate and target); template; test_share in (0, 1) (share of multisets held out); seed
    (salt of the split and of the order); train_problems, test_problems (at most so many problems, None: all
    there are).
    """

    name = "countdown"

    def __init__(self, settings: Any) -> None:
        self.fewest, self.most = (int(n) for n in settings.numbers)
        self.low, self.high, self.max_value = int(settings.low), int(settings.high), int(settings.max_value)
        self.template = check_template(settings.template)
        self.test_share, self.seed = float(settings.test_share), int(settings.seed)
        self._caps: Mapping[str, int | None] = {
            "train": settings.train_problems,
            "test": settings.test_problems,
        }
        self._problems: dict[str, Sequence[Problem]] = {}
        _check(3 <= self.fewest <= self.most <= 6, f"numbers is {settings.numbers}", "[fewest, most] within 3..6")
        _check(1 <= self.low <= self.high, f"low, high are {self.low}, {self.high}", "1 <= low <= high")
        _check(self.max_value >= self.high, f"max_value is {self.max_value}", f"at least high, {self.high}")
        _check(0 < self.test_share < 1, f"test_share is {self.test_share}", "a share between 0 and 1")

    # --- problems ---

    @cached_property
    def listable(self) -> bool:
        """True where all multisets are listed; else they are drawn at random."""
        span = self.high - self.low + 1
        total = sum(math.comb(span + n - 1, n) for n in range(self.fewest, self.most + 1))
        return total <= ENUMERATE_UP_TO

    def holds_out(self, numbers: Sequence[int]) -> bool:
        """True where this multiset belongs to the test split."""
        return in_test(family(numbers), self.test_share, self.seed)

    def multisets(self, split: str) -> list[Numbers]:
        """Every multiset of a split, ascending (only where `listable`)."""
        test = check_split(split)
        if not self.listable:
            raise ValueError("countdown: too many multisets to list; narrow task.low..high or task.numbers")
        span = range(self.low, self.high + 1)
        found = (c for n in range(self.fewest, self.most + 1) for c in itertools.combinations_with_replacement(span, n))
        return [c for c in found if self.holds_out(c) == test]

    def targets(self, numbers: Numbers) -> list[int]:
        """The targets 1..max_value that a sorted multiset reaches, ascending; never empty.

        Two numbers always leave a positive one within bounds: their difference, or 1 where they are equal.
        """
        return members(reachable(numbers, self.max_value) & ~1)

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split in a fixed random order, at most as many as the settings cap.

        One problem for every (multiset, reachable target); where the multisets cannot be listed, one random
        target for each random multiset (`DRAWN` says how many where the settings do not).
        """
        check_split(split)
        if split not in self._problems:
            self._problems[split] = tuple(self._make(n, t, split) for n, t in self._pairs(split))
        return self._problems[split]

    def _pairs(self, split: str) -> list[tuple[Numbers, int]]:
        cap, rng = self._caps[split], random.Random(f"countdown/{split}/{self.seed}")
        if self.listable:
            pairs = [(numbers, target) for numbers in self.multisets(split) for target in self.targets(numbers)]
            rng.shuffle(pairs)
            return pairs if cap is None else pairs[:cap]
        draws = ((numbers, rng.choice(self.targets(numbers))) for numbers in self._random_multisets(split, rng))
        return distinct(draws, cap or DRAWN[split])

    def _random_multisets(self, split: str, rng: random.Random) -> Iterator[Numbers]:
        test = check_split(split)
        while True:
            size = rng.randint(self.fewest, self.most)
            numbers = tuple(sorted(rng.randint(self.low, self.high) for _ in range(size)))
            if self.holds_out(numbers) == test:
                yield numbers

    def sampler(self, split: str) -> Callable[[random.Random], Numbers]:
        """A function that draws a random multiset of a split (for the corpus)."""
        if self.listable:
            listed = self.multisets(split)
            return lambda rng: listed[int(rng.random() * len(listed))]
        return lambda rng: next(self._random_multisets(split, rng))

    def _make(self, numbers: Numbers, target: int, split: str) -> Problem:
        prompt = countdown_prompt(self.template, numbers, target)
        return Problem(
            id=f"countdown-{family(numbers).replace(',', '.')}-{target}",
            prompt=prompt.messages,
            prefill=prompt.prefill,
            task=self.name,
            payload={"numbers": list(numbers), "target": target},
            family=family(numbers),
            split=split,
            metadata={"witness": render(self.solution(numbers, target)), "template": self.template},
        )

    def solution(self, numbers: Numbers, target: int) -> Node:
        """An expression over a sorted multiset that makes `target`; ValueError where there is none."""
        found = witness(numbers, target, self.max_value)
        if found is None:
            raise ValueError(f"countdown: {target} cannot be made from {numbers}")
        return found

    # --- judging ---

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        """Verdicts "accuracy" (exact value, each number once) and "format" (the think/answer shape)."""
        opened = thinking_opened(problem)
        answer = find_answer(response, opened=opened, anywhere=published_tinyzero(self.template))
        numbers, target = problem.payload["numbers"], problem.payload["target"]
        accuracy = Verdict.scored(0, "no_answer") if answer is None else judge_expression(answer, numbers, target)
        return {"accuracy": accuracy, "format": judge_format(response, opened=opened)}

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        """Behaviour of one response; see `tasks.behaviour`."""
        return countdown_statistics(response, problem.payload["numbers"], problem.payload["target"])

    def blind_rate(self, problem: Problem) -> float:
        """The chance that one uniformly random expression (canonical, tidy intermediates) hits the target.

        Exact: the count of expressions with the target's value over the count of all, from a table over
        values.
        """
        counts = expression_counts(tuple(sorted(problem.payload["numbers"])), self.max_value)
        return counts[problem.payload["target"]] / counts.total()


def family(numbers: Sequence[int]) -> str:
    """The name of a multiset: its numbers ascending, `3,5,6`."""
    return ",".join(map(str, sorted(numbers)))


def _check(ok: bool, found: str, expected: str) -> None:
    if not ok:
        raise ValueError(f"task.{found}: expected {expected}")

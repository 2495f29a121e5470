"""Multiplication: the product of two numbers of a given length (TinyZero's second task).

A family is an unordered pair of factors; the split is by family. Pairs with a round factor (a multiple of
ten) are always training problems: the working of other products is made of them (`12*34=12*30+12*4`), and
nothing of the test split may stand in the pretraining text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from r1kit.records import Problem, Verdict
from r1kit.tasks.behaviour import multiplication_statistics
from r1kit.tasks.split import check_split, distinct, in_test
from r1kit.tasks.templates import check_template, multiplication_prompt, published_tinyzero, thinking_opened
from r1kit.verifiers import find_answer, judge_format, judge_integer

# Above this many pairs they are drawn at random instead of listed (3 by 3 digits make 810,000).
ENUMERATE_UP_TO = 60_000
# How many problems are drawn then, where the settings do not say (TinyZero: 32,768 and 4,096).
DRAWN = {"train": 32_768, "test": 4096}


class Multiplication:
    """The multiplication task.

    `settings` attributes: digits_a, digits_b (length of the factors, 1..6, not both 1; one-digit factors
    are 2..9); template; test_share in (0, 1) (share of families held out); seed (salt of the split and of
    the order); train_problems, test_problems (at most so many problems, None: all there are).
    """

    name = "multiplication"

    def __init__(self, settings: Any) -> None:
        self.digits = (int(settings.digits_a), int(settings.digits_b))
        self.template = check_template(settings.template)
        self.test_share, self.seed = float(settings.test_share), int(settings.seed)
        self._caps: Mapping[str, int | None] = {
            "train": settings.train_problems,
            "test": settings.test_problems,
        }
        self._problems: dict[str, Sequence[Problem]] = {}
        if not all(1 <= d <= 6 for d in self.digits) or self.digits == (1, 1):
            raise ValueError(f"task.digits_a, digits_b are {self.digits}: expected 1..6 each, not both 1")
        if not 0 < self.test_share < 1:
            raise ValueError(f"task.test_share is {self.test_share}: expected a share between 0 and 1")

    @cached_property
    def ranges(self) -> tuple[range, range]:
        """The factors a and b are drawn from."""
        a, b = (range(2 if d == 1 else 10 ** (d - 1), 10**d) for d in self.digits)
        return a, b

    def holds_out(self, a: int, b: int) -> bool:
        """True where a * b, either way round, belongs to the test split."""
        if a % 10 == 0 or b % 10 == 0 or sorted((len(str(a)), len(str(b)))) != sorted(self.digits):
            return False
        return min(a, b) > 1 and in_test(family(a, b), self.test_share, self.seed)

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split in a fixed random order, at most as many as the settings cap."""
        check_split(split)
        if split not in self._problems:
            self._problems[split] = tuple(self._make(a, b, split) for a, b in self._pairs(split))
        return self._problems[split]

    def _pairs(self, split: str) -> list[tuple[int, int]]:
        cap, rng = self._caps[split], random.Random(f"multiplication/{split}/{self.seed}")
        test, (first, second) = check_split(split), self.ranges
        if len(first) * len(second) <= ENUMERATE_UP_TO:
            pairs = [(a, b) for a in first for b in second if self.holds_out(a, b) == test]
            rng.shuffle(pairs)
            return pairs if cap is None else pairs[:cap]
        return distinct(self._random_pairs(split, rng), cap or DRAWN[split])

    def _random_pairs(self, split: str, rng: random.Random) -> Iterator[tuple[int, int]]:
        test, (first, second) = check_split(split), self.ranges
        while True:
            a, b = rng.choice(first), rng.choice(second)
            if self.holds_out(a, b) == test:
                yield a, b

    def draw(self, split: str, rng: random.Random) -> tuple[int, int]:
        """A random pair of factors of a split (for the corpus)."""
        return next(self._random_pairs(split, rng))

    def _make(self, a: int, b: int, split: str) -> Problem:
        prompt = multiplication_prompt(self.template, a, b)
        return Problem(
            id=f"multiplication-{a}x{b}",
            prompt=prompt.messages,
            prefill=prompt.prefill,
            task=self.name,
            payload={"a": a, "b": b, "product": a * b},
            family=family(a, b),
            split=split,
            metadata={"witness": str(a * b), "template": self.template},
        )

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        """Verdicts "accuracy" (the product in plain digits) and "format" (the think/answer shape)."""
        opened = thinking_opened(problem)
        answer = find_answer(response, opened=opened, anywhere=published_tinyzero(self.template))
        gold = problem.payload["product"]
        accuracy = Verdict.scored(0, "no_answer") if answer is None else judge_integer(answer, gold)
        return {"accuracy": accuracy, "format": judge_format(response, opened=opened)}

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        """Behaviour of one response; see `tasks.behaviour`."""
        return multiplication_statistics(response, problem.payload["a"], problem.payload["b"])

    def blind_rate(self, problem: Problem) -> float:
        """The chance that a uniformly random product of the task's factors is right: about 0.

        Exact where the factors are short; counted over all pairs (a, b) of the task.
        """
        first, second = self.ranges
        product = problem.payload["product"]
        hits = sum(1 for a in first if product % a == 0 and product // a in second)
        return hits / (len(first) * len(second))


def family(a: int, b: int) -> str:
    """The name of an unordered pair of factors, `12*34`."""
    return f"{min(a, b)}*{max(a, b)}"

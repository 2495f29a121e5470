"""Why this matters: loops are how a collapsing policy looks, and texts that repeat are exactly those on which a
careless detector is quadratic. Exercised: definitions against slow searches on random sequences, both scripts, time.

Not exercised: paraphrase, which repeats without repeating a word.
"""

from __future__ import annotations

import random
import time

import pytest

from r1kit.verifiers.repetition import find_loop, judge_loop, judge_repetition, longest_repeat, ngram_repetition, units


def test_ngrams_by_hand() -> None:
    assert ngram_repetition("abcabc", 3) == pytest.approx(1 - 3 / 4)  # abc bca cab abc
    assert ngram_repetition("aaaa", 2) == pytest.approx(1 - 1 / 3)
    assert ngram_repetition("abcdef", 3) == 0
    assert ngram_repetition("ab", 3) == 0
    with pytest.raises(ValueError, match="n is 0"):
        ngram_repetition("ab", 0)


def test_units_of_both_scripts() -> None:
    assert units("So 我们 use Python代码.") == ["so", "我", "们", "use", "python", "代", "码", "."]


def slow_repeat(items: list[int]) -> int:
    for length in range(len(items) // 2, 0, -1):
        first: dict[tuple[int, ...], int] = {}
        for i in range(len(items) - length + 1):
            key = tuple(items[i : i + length])
            if i >= first.setdefault(key, i) + length:
                return length
    return 0


def slow_loop(items: list[int], repeats: float, length: int) -> int:
    """The length of the longest periodic end."""
    for start in range(len(items)):
        tail = items[start:]
        for period in range(1, int(len(tail) / repeats) + 1):
            if len(tail) >= length and all(tail[i] == tail[i + period] for i in range(len(tail) - period)):
                return len(tail)
    return 0


def test_against_slow_searches() -> None:
    rng = random.Random(0)
    for _ in range(600):
        items = [rng.randint(0, 2) for _ in range(rng.randint(0, 18))]
        span, loop = longest_repeat(items), find_loop(items, repeats=2, length=3)
        assert (span.length if span else 0) == slow_repeat(items), items
        assert (loop.length if loop else 0) == slow_loop(items, 2, 3), items
        if span:
            assert items[span.first :][: span.length] == items[span.again :][: span.length]
            assert span.first + span.length <= span.again
        if loop:
            tail = items[-loop.length :]
            assert tail[: -loop.period] == tail[loop.period :]


@pytest.mark.parametrize(
    "text",
    [
        "Let me think. " + "wait, " * 40,
        "We start. " + "So the answer is five but I should check it again. " * 4,
        "首先，" + "让我再想一想，" * 6,
        "Cut in the middle. " + "so we add two and two and get four, " * 5 + "so we add",
    ],
)
def test_loops_are_found(text: str) -> None:
    verdict = judge_loop(text)
    assert (verdict.score, verdict.reason) == (0, "wrong")
    assert verdict.extracted


@pytest.mark.parametrize(
    "text",
    [
        "no no no, that is not how it goes, and the rest of this sentence says something else.",
        "1 2 3 1 2 3 1 2 3 1 2 3 1 2 3 and then it went on",
        "ha ha ha",
        "All words of this sentence differ, so it cannot be a loop at any period whatsoever.",
    ],
)
def test_no_loops(text: str) -> None:
    assert judge_loop(text).correct


def test_scores() -> None:
    assert judge_repetition("one two three four five").correct
    verdict = judge_repetition("one two three " * 10)
    assert verdict.score == pytest.approx(3 / 28)
    assert judge_repetition(" \n").reason == "no_answer"
    assert judge_loop("").reason == "no_answer"


@pytest.mark.parametrize(
    "items", [[1] * 60_000, [1, 2] * 30_000, list(range(60_000)), [1] * 30_000 + [2] + [1] * 29_999]
)
def test_time_is_linear(items: list[int]) -> None:
    started = time.process_time()
    find_loop(items)
    longest_repeat(items)
    assert time.process_time() - started < 3

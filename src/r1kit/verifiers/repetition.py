"""Repetition: how much of a text was said before, and whether it ends in a loop.

Units are words, and single letters where a script writes without spaces, so one definition serves English and
Chinese. Everything is linear in the number of units: the loop at the end by the failure function of Knuth, Morris and
Pratt over the reversed text, the longest repeated span by a suffix automaton.
"""

from __future__ import annotations

import re
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from r1kit.records import Verdict
from r1kit.verifiers.scripts import RANGES

_SINGLE = "".join(RANGES[name] for name in ("han", "kana", "thai", "lao", "khmer", "myanmar"))
_UNIT = re.compile(rf"[{_SINGLE}]|[^\s{_SINGLE}]+")


def units(text: str) -> list[str]:
    """Words in small letters, punctuation attached as written; single letters of scripts without spaces."""
    return _UNIT.findall(text.lower())


def ngram_repetition(items: Sequence[Hashable], n: int = 3) -> float:
    """1 - distinct / all n-grams, in [0, 1); 0 where there are fewer than n items (Open-R1's repetition penalty)."""
    if n < 1:
        raise ValueError(f"n is {n}: expected at least 1")
    total = len(items) - n + 1
    return 1 - len(set(zip(*(items[i:] for i in range(n)), strict=False))) / total if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Loop:
    """A periodic end: the last `length` items repeat with period `period`, `length / period` times."""

    period: int
    length: int

    @property
    def repeats(self) -> float:
        return self.length / self.period


def find_loop(items: Sequence[Hashable], *, repeats: float = 3.0, length: int = 12) -> Loop | None:
    """The longest periodic end with at least so many repeats and items; None where there is none.

    "na na na na" has period 1; a paragraph said over and over has the paragraph's length as its period.
    """
    reverse = list(reversed(items))
    failure = [0] * len(reverse)
    best = None
    matched = 0
    for i in range(1, len(reverse)):
        while matched and reverse[i] != reverse[matched]:
            matched = failure[matched - 1]
        if reverse[i] == reverse[matched]:
            matched += 1
        failure[i] = matched
        period = i + 1 - matched
        if i + 1 >= length and i + 1 >= repeats * period:
            best = Loop(period, i + 1)
    return best


@dataclass(frozen=True, slots=True)
class Span:
    """The items from `first` and those from `again`, `length` of them, are the same and do not overlap."""

    first: int
    again: int
    length: int


def longest_repeat(items: Sequence[Hashable]) -> Span | None:
    """The longest run of items that occurs twice without overlap; None where no item occurs twice.

    A suffix automaton, extended by the first and the last place where each of its states ends: time and memory are
    linear, about a hundred times the size of the list.
    """
    links, lengths, firsts = _suffix_automaton(items)
    lasts = list(firsts)
    best: Span | None = None
    for state in sorted(range(1, len(lengths)), key=lengths.__getitem__, reverse=True):
        link = links[state]
        if link > 0:
            lasts[link] = max(lasts[link], lasts[state])
        length = min(lengths[state], lasts[state] - firsts[state])
        if length > (best.length if best else 0):
            best = Span(firsts[state] - length + 1, lasts[state] - length + 1, length)
    return best


def _suffix_automaton(items: Sequence[Hashable]) -> tuple[list[int], list[int], list[int]]:
    """Suffix links, longest lengths and first end positions of the states (Blumer et al. 1985)."""
    nexts: list[dict[Hashable, int]] = [{}]
    links, lengths, firsts, last = [-1], [0], [-1], 0
    for position, item in enumerate(items):
        current = len(nexts)
        nexts.append({})
        lengths.append(lengths[last] + 1)
        firsts.append(position)
        links.append(0)
        state = last
        while state >= 0 and item not in nexts[state]:
            nexts[state][item] = current
            state = links[state]
        if state >= 0:
            target = nexts[state][item]
            if lengths[state] + 1 == lengths[target]:
                links[current] = target
            else:
                clone = len(nexts)
                nexts.append(dict(nexts[target]))
                lengths.append(lengths[state] + 1)
                firsts.append(firsts[target])
                links.append(links[target])
                while state >= 0 and nexts[state].get(item) == target:
                    nexts[state][item] = clone
                    state = links[state]
                links[target] = links[current] = clone
        last = current
    return links, lengths, firsts


def judge_repetition(text: str, *, n: int = 3) -> Verdict:
    """Score: the share of distinct n-grams among all, 1 where nothing is said twice."""
    started = time.perf_counter()
    items = units(text)
    if not items:
        return Verdict.scored(0, "no_answer", voter="repetition")
    score = 1 - ngram_repetition(items, n)
    reason, seconds = "correct" if score == 1 else "wrong", time.perf_counter() - started
    return Verdict.scored(score, reason, normal_form=f"{len(items)} units", voter="repetition", seconds=seconds)


def judge_loop(text: str, *, repeats: float = 3.0, length: int = 12) -> Verdict:
    """Score 0 where `text` ends in a loop of at least so many repeats and units, else 1; the loop is quoted."""
    started = time.perf_counter()
    items = units(text)
    loop = find_loop(items, repeats=repeats, length=length)
    seconds = time.perf_counter() - started
    if not items:
        return Verdict.scored(0, "no_answer", voter="loop")
    if loop is None:
        return Verdict.scored(1, "correct", voter="loop", seconds=seconds)
    quoted = " ".join(items[-loop.period :])[:200]
    form = f"period {loop.period}, {loop.repeats:.1f} times"
    return Verdict.scored(0, "wrong", extracted=quoted, normal_form=form, voter="loop", seconds=seconds)

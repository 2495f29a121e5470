"""Why this matters: a verdict must not depend on how an answer is typeset, and must depend on every digit. Exercised:
rewrites of MATH golds that keep the value, digit changes that do not, and every gold against itself through the parser
(a space is added, so that equality of strings does not decide).

Not exercised: rewrites by a computer algebra system; voters other than the exact tier.
"""

from __future__ import annotations

import random

import pytest

from r1kit.verifiers.math import decide, judge_math
from r1kit.verifiers.math.limits import MathError
from r1kit.verifiers.math.policy import DEFAULT_POLICY
from r1kit.verifiers.math.reading import read

from .data import golds
from .rewrites import REWRITES, perturbed

SETS = [("math/train", "answer"), ("math/test", "answer"), ("chmath_2024/test", "answer"), ("cmath/test", "answer")]


def _readable(name: str) -> list[str]:
    """Golds that the exact tier reads; the share that it does not is bounded below."""
    found = []
    for gold in golds(name):
        try:
            read(gold, DEFAULT_POLICY.reading)
        except MathError:
            continue
        found.append(gold)
    return found


@pytest.mark.parametrize(("name", "key"), SETS)
def test_every_gold_equals_itself(name: str, key: str) -> None:
    unread = []
    for gold in filter(None, golds(name, key)):
        decision = decide(f" {gold} ", gold)
        assert decision.kind == "yes", (gold, decision)
        try:
            read(gold, DEFAULT_POLICY.reading)
        except MathError:
            unread.append(gold)
    assert len(unread) <= 0.002 * len(golds(name, key)), unread


def test_ten_thousand_rewrites_keep_their_verdict() -> None:
    rng = random.Random(20260101)
    pool = _readable("math/train") + _readable("math/test")
    wrong, by_kind = [], dict.fromkeys((f.__name__ for f in REWRITES), 0)
    while sum(by_kind.values()) < 10_000:
        rewrite = rng.choice(REWRITES)
        for gold in rng.sample(pool, 50):
            text = rewrite(gold, rng)
            if text != gold:
                by_kind[rewrite.__name__] += 1
                if not judge_math(text, gold, voters=()).correct:
                    wrong.append((rewrite.__name__, gold, text))
                break
    assert min(by_kind.values()) >= 100, by_kind
    assert not wrong, (len(wrong), wrong[:20])


def test_every_digit_that_changes_the_value_flips_the_verdict() -> None:
    rng = random.Random(20260102)
    pool = _readable("math/train") + _readable("math/test")
    kept = []
    for _ in range(5_000):
        gold = rng.choice(pool)
        changed = perturbed(gold, rng)
        if changed is not None and judge_math(changed, gold, voters=()).correct:
            kept.append((gold, changed))
    assert not kept, (len(kept), kept[:20])

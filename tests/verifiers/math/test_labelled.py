"""Why this matters: the verifier is the reward. A false positive is a hack that training will find, a false negative is
a right answer punished. `labelled.jsonl` holds pairs of our own making, both ways, for every policy; adversarial ones
among them. Exercised: `judge_math` as users call it, and its exact tier alone.

Not exercised: whole responses (test_extraction), limits (test_limits), the pool (test_voter_pool).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields

import pytest

from r1kit.verifiers.math import MathPolicy, decide, judge_math

from .data import labelled

PAIRS = labelled()


# What the exact tier leaves to a model judge, or gets wrong: strict, so that a mended gap is noticed.
GAPS = [p["id"] for p in PAIRS if p.get("gap")]
SYMBOLIC_ONLY = re.compile(r"\\sum|\\int|\\lim|\\choose|frac\{\\text")


def _case(pair: dict) -> object:
    marks = [pytest.mark.xfail(strict=True, reason="a known gap")] if pair.get("gap") else []
    return pytest.param(pair, id=str(pair["id"]), marks=marks)


@pytest.mark.parametrize("pair", [_case(p) for p in PAIRS])
def test_every_labelled_pair_is_judged_as_labelled(pair: dict) -> None:
    verdict = judge_math(pair["prediction"], pair["gold"], MathPolicy.from_dict(pair["policy"]), voters=())
    if SYMBOLIC_ONLY.search(pair["gold"] + pair["prediction"]):
        assert verdict.outcome != "score" or verdict.correct == pair["label"], verdict
        return
    assert verdict.outcome == "score" or not pair["label"], verdict
    assert verdict.correct == pair["label"], verdict


def test_what_the_exact_tier_leaves_open_math_verify_decides() -> None:
    pytest.importorskip("math_verify")
    left = [
        p for p in PAIRS if judge_math(p["prediction"], p["gold"], voters=()).outcome == "error" and not p["policy"]
    ]
    assert len(left) >= 5
    for pair in left:
        verdict = judge_math(pair["prediction"], pair["gold"])
        assert verdict.correct == pair["label"], (pair, verdict)


def test_the_set_is_large_and_has_both_directions_of_every_policy() -> None:
    assert len(PAIRS) >= 400
    assert len(GAPS) <= 0.01 * len(PAIRS)
    assert all(p["label"] for p in PAIRS if p.get("gap")), "a gap may refuse what is right, never accept what is wrong"
    directions = Counter((name, value, p["label"]) for p in PAIRS for name, value in p["policy"].items())
    covered = {f.name for f in fields(MathPolicy)} - {"answer", "strict"}  # those two are extraction's: test_extraction
    for name in covered:
        values = {value for n, value, _ in directions if n == name}
        assert values, f"no pair sets {name}"
        labels = {label for n, _, label in directions if n == name}
        assert labels == {True, False}, f"{name} lacks a direction"
    defaults = Counter(p["label"] for p in PAIRS if not p["policy"])
    assert min(defaults.values()) >= 200


def test_no_gold_differs_from_itself() -> None:
    for pair in PAIRS:
        decision = decide(pair["gold"] + " ", pair["gold"], MathPolicy.from_dict(pair["policy"]))
        assert decision.kind == "yes" or "frac{4}{2}" in pair["gold"], pair


def test_a_gold_out_of_reach_is_compared_by_its_spelling() -> None:
    right = judge_math(r"$\mathbb{Z} / 8 \mathbb{Z}$", r"\mathbb{Z}_8")
    assert (right.score, right.voter) == (1.0, "spelling")
    assert judge_math(r"\mathbb{Z}_4", r"\mathbb{Z}_8").reason == "wrong"
    assert judge_math(r"\frac{1}{2", r"\frac{1}{2", voters=()).voter == "exact"  # the same string, and cut off
    assert judge_math(r"$\frac{1}{2$", r"\frac{1}{2", voters=()).reason == "gold_invalid"


def test_a_judge_of_words_may_know_that_two_notations_mean_the_same() -> None:
    judge = type("Judge", (), {"name": "judge", "judge": lambda self, gold, prediction: "yes"})()
    verdict = judge_math("C_8", r"\mathbb{Z}_8", voters=[judge])
    assert (verdict.score, verdict.voter) == (1.0, "judge")

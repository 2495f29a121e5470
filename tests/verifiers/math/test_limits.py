"""Why this matters: a policy under RL writes whatever a sampler can write. No text may hang the verifier, exhaust
memory, raise, or turn its failure into a verdict about the answer. Exercised: towers, factorials, nesting, length,
floods, random text, with the exact tier alone; the gold's own excess is a skip, not the candidate's fault.

Not exercised: the limits of worker processes (test_voter_pool).
"""

from __future__ import annotations

import random
import re
import time

import pytest

from r1kit.verifiers.math import MathPolicy, PolicyError, decide, judge_math, verify_math

from .data import labelled

BOMBS = {
    "tower": "9^{9^{9^9}}",
    "tall tower": "2^{" * 30 + "2" + "}" * 30,
    "factorial": "100000000!",
    "factorials": "((9!)!)!",
    "many factorials": "5" + "!" * 300,
    "parentheses": "(" * 3000 + "1" + ")" * 3000,
    "open parentheses": "(" * 3000,
    "digits": "1" * 100_000,
    "decimal": "0." + "3" * 100_000,
    "megabyte": "a" * 1_000_000,
    "boxes": r"\boxed{" * 20_000,
    "closed boxes": r"\boxed{1}" * 20_000,
    "fractions": r"\frac{" * 500 + "1" + "}{2}" * 500,
    "bare fractions": r"\frac" * 2_000,
    "roots": r"\sqrt" * 2_000 + "2",
    "signs": "-" * 3_000 + "1",
    "signs in turn": "-+" * 1_500 + "1",
    "plus-minus": r"\pm" * 1_000 + "1",
    "powers": "1" + "^2" * 500,
    "expansion": "(a+b+c+d+e+f+g+h)^{64}",
    "nested expansion": "((((x+y)^{9})^{9})^{9})^{9}",
    "huge exponent": "10^{10000000}",
    "exponent notation": "1e99999999",
    "binomial": r"\binom{10000000}{5000000}",
    "dollars": "$" * 20_001,
    "bars": "|" * 1_001,
    "subscripts": "x_" * 500 + "1",
    "list": ",".join("1" * 5_000),
    "lists in lists": "(1," * 60 + "2" + ")" * 60,
    "set": r"\{" + ",".join(str(i) for i in range(150)) + r"\}",
    "matrices": r"\begin{pmatrix}" * 60,
    "logarithms": r"\log_2" * 400 + "2",
    "text": r"\text{" * 3_000 + "}" * 3_000,
    "answers": "Answer: 1\n" * 20_000,
    "phrases": "the answer is " * 20_000,
    "formulas": "$1$ or " * 20_000,
    "numbers": "1 or " * 50_000,
    "chinese": "答案是" * 20_000,
    "nul": "\x00\x02\x04" * 500,
}


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_no_text_takes_long_or_counts_as_right(bomb: str) -> None:
    text = BOMBS[bomb]
    for judge in (judge_math, verify_math):
        start = time.process_time()
        verdict = judge(text, "42", voters=())
        assert time.process_time() - start < 2.0
        assert verdict.outcome in ("score", "error")
        assert not verdict.correct
    assert not judge_math("42", text, voters=()).correct


@pytest.mark.parametrize("bomb", ["tower", "factorial", "parentheses", "digits", "huge exponent", "megabyte"])
def test_equal_strings_are_equal_whatever_they_cost(bomb: str) -> None:
    assert decide(BOMBS[bomb], BOMBS[bomb]).kind == "yes"


def test_two_long_numbers_that_differ_in_one_digit_differ() -> None:
    assert decide("1" * 100_000, "1" * 99_999 + "2").kind == "no"
    assert judge_math("1" * 100_000, "1" * 100_000, voters=()).correct


def test_excess_of_the_candidate_scores_zero_and_of_the_gold_does_not() -> None:
    assert judge_math("9^{9^{9^9}}", "42", voters=()).reason == "over_limit"
    verdict = judge_math("42", "9^{9^{9^9}}", voters=())
    assert (verdict.outcome, verdict.score) == ("skip", None) or verdict.outcome == "score"
    assert judge_math("42", "", voters=()).reason == "gold_invalid"
    assert judge_math("42", r"\undefinedmacro{x}", voters=()).outcome != "score"


def test_random_text_raises_nothing() -> None:
    rng = random.Random(7)
    pairs = labelled()
    pieces = [p for row in pairs for p in re.findall(r"\\[A-Za-z]+|\d+|.", f"{row['gold']} {row['prediction']}")]
    for _ in range(3_000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 14)))
        other = str(rng.choice(pairs)["gold"])
        assert decide(text, other).kind in ("yes", "no", "unparsable", "over_limit", "unknown", "gold_unread")
        assert decide(other, text).kind in ("yes", "no", "unparsable", "over_limit", "unknown", "gold_unread")
        assert decide(text, text).kind == "yes"


def test_model_text_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("os.system", lambda *a: called.append(a))
    for text in ("__import__('os').system('x')", "eval('42')", "exec('1')", "().__class__.__base__", "gold", "answer"):
        assert not judge_math(text, "42", voters=()).correct
    assert not called


def test_a_policy_with_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PolicyError, match=r"no field 'percents' \(did you mean \"percent\"\?\)"):
        MathPolicy.from_dict({"percents": "scale"})
    with pytest.raises(PolicyError, match="percent is 'half', expected one of scale, strip, either"):
        MathPolicy.from_dict({"percent": "half"})
    with pytest.raises(PolicyError, match="strict is 1, expected a value of type bool"):
        MathPolicy.from_dict({"strict": 1})
    with pytest.raises(PolicyError, match="significant_digits is 0"):
        MathPolicy(significant_digits=0)
    assert MathPolicy.from_dict({}) == MathPolicy()


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        (r"(0,1]", r"(0,1)"),
        (r"x\in(0,1]", r"x\in(0,1)"),
        (r"\neq 5", "5"),
        (r"\le 5", "5"),
        (r"> 5", "5"),
        (r"\not= 5", "5"),
        (r"\forall 5", "5"),
        (r"5 \mod 7", "5"),
        (r"42\\41", "42"),
        ("almost 5", "5"),
    ],
)
def test_what_a_parser_may_drop_decides(prediction: str, gold: str) -> None:
    assert judge_math(prediction, gold).score == 0

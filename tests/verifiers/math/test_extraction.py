"""Why this matters: extraction decides what is judged at all. Taking an answer out of the thought, or the right one of
two, is how a policy is paid for nothing. Exercised: every form of the recipes, thoughts, hedges, strict formats.

Not exercised: whether the answer is right (test_labelled).
"""

from __future__ import annotations

import pytest

from r1kit.verifiers.math import MathPolicy, extract, verify_math

ANY = MathPolicy()
FOUND = [
    (r"So $\boxed{42}$.", "42", "boxed"),
    (r"So $\boxed{\frac{1}{\sqrt{2}}}$ is it.", r"\frac{1}{\sqrt{2}}", "boxed"),
    (r"\boxed{1} no, wait: \boxed{2}", "2", "boxed"),
    (r"\boxed{1}, \boxed{2}", "1, 2", "boxed"),
    (r"$\boxed{1}$ and $\boxed{2}$", "1, 2", "boxed"),
    (r"\boxed{41} or \boxed{42}", "41 or 42", "boxed"),
    (r"\boxed{\text{a } \{1, 2\}}", r"\text{a } \{1, 2\}", "boxed"),
    (r"\fbox{7}", "7", "boxed"),
    (r"\boxed 7 done", "7", "boxed"),
    (r"\boxed{The answer is \boxed{7}}", "7", "boxed"),
    ("We get 6.\n#### 1,234", "1,234", "hashes"),
    ("Work\nAnswer: 42", "42", "line"),
    ("Work\n**Answer:** $42$", "$42$", "line"),
    ("Answer: 1\nAnswer: 2", "2", "line"),
    ("<think>x</think><answer> 42 </answer>", "42", "tag"),
    (r"<think>x</think><answer>It is \boxed{42}</answer>", "42", "tag"),
    ("So the answer is 42. Thanks.", "42", "phrase"),
    ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$", "phrase"),
    ("所以答案是42。", "42", "phrase"),
    ("答案为：$x=3$", "$x=3$", "phrase"),
    ("综上，故选B。", "B", "phrase"),
    ("It must be 41 or 42", "41 or 42", "number"),
    ("First 5, then 7 apples.", "7", "number"),
    ("We find $x = 5$, as wanted.", "x = 5", "formula"),
    ("The roots are $1$ and $2$.", "1, 2", "formula"),
]
# 42 beside another value, wherever it stands: more than one final value is no answer.
HEDGED = [
    r"\boxed{41} or possibly the answer is \boxed{42}",
    r"\boxed{41}; alternatively \boxed{42}",
    r"\boxed{41}. It could also be \boxed{42}.",
    r"\boxed{41}, or if zero counts, \boxed{42}",
    "\\boxed{41}\n\nAlternatively,\n\n\\boxed{42}",
    r"\boxed{42} (maybe \boxed{41})",
    r"\boxed{42} or maybe 41",
    r"\boxed{42}, or 41 if zero is excluded",
    r"\boxed{42}. Wait, it is 41.",
    r"41 or \boxed{42}",
    r"\boxed{41}，也可能是\boxed{42}",
    "$41$ or maybe $42$",
    "$41$, or possibly $\\boxed{42}$",
    "The answer is 42. Or maybe 41.",
    "The answer is 42. However, 41 is also plausible.",
    "The answer is 42. Actually, it is 41.",
    "The answer is 41. Or maybe the answer is 42.",
    "The answer is 41 or the answer is 42",
    "The wrong answer is 42.",
    "Answer: 42\nOr maybe 41.",
    "#### 42 or 41",
    "It could be 41, 42",
    "It might be 41 or it might be 42.",
    "Maybe 41? Maybe 42?",
    "I'm torn between 41 and 42.",
    "It is at least 42",
    "so x > 42",
    "42 or more",
    "答案是42，或者41",
    "答案是41，也可能是42",
    "答案不是42，而是41",
    "答案是至少42",
]
# One final value: the others are taken back, said again, or no answer.
CORRECTED = [
    r"\boxed{41}. Wait, that is wrong: \boxed{42}",
    r"\boxed{41}? Let me recheck. Maybe I slipped. So \boxed{42}.",
    r"First we try \boxed{41} but that is incorrect; maybe the parity matters. The right value is \boxed{42}",
    r"(a) \boxed{41} (b) \boxed{42}",
    r"\boxed{42} or equivalently \boxed{42.0}",
    r"\boxed{42}, or $42$",
    r"\boxed{42}. Alternatively, we could count 41 of them and add one.",
    r"The answer is 42, i.e. $6\cdot 7$.",
    "The answer is 42 (not 41).",
    "The answer is 42 because 41 is odd.",
    "The answer is 41. Wait, the answer is 42.",
    "答案是42，因为6乘7等于42。",
    "答案不是41，而是42",
    "答：小明有42个苹果。",
    "答案为四十二。",
    "答案是42！",
    "<think>41 or 42?</think><answer>The answer is 42.</answer>",
    "**Final Answer**\n\n42",
    r"\boxed{\text{The answer is } 42}",
]
NOT_FOUND = [
    "",
    "I do not know.",
    "<think>The answer is 42",
    r"<think>\boxed{42}",
    "<think>42</think>",
    "<answer>41</answer><answer>42</answer>",
    "<answer>42",
    r"\boxed{",
    r"\boxed{42",
    r"\boxed{}",
]


@pytest.mark.parametrize(("response", "text", "where"), FOUND)
def test_the_final_answer_is_found(response: str, text: str, where: str) -> None:
    found = extract(response, ANY)
    assert found is not None
    assert (found.text, found.where) == (text, where)


@pytest.mark.parametrize("response", HEDGED)
def test_a_hedge_is_wrong_although_one_of_its_values_is_right(response: str) -> None:
    assert verify_math(response, "42", voters=()).score == 0


@pytest.mark.parametrize("response", CORRECTED)
def test_the_last_word_counts(response: str) -> None:
    assert verify_math(response, "42", voters=()).correct


def test_a_policy_may_let_the_last_of_several_values_count() -> None:
    last = MathPolicy(hedges="last")
    assert verify_math(r"\boxed{41} or maybe \boxed{42}", "42", last, voters=()).correct
    assert not verify_math(r"\boxed{42} or maybe \boxed{41}", "42", last, voters=()).correct
    assert verify_math(r"\boxed{41} or maybe \boxed{42}", "42", MathPolicy(boxes="last"), voters=()).correct
    assert verify_math(r"$\boxed{\pi} \approx \boxed{3.14}$", r"\pi", voters=()).correct


@pytest.mark.parametrize("response", NOT_FOUND)
def test_no_answer_where_there_is_none(response: str) -> None:
    assert extract(response, ANY) is None
    assert verify_math(response, "42", voters=()).reason == "no_answer"


def test_only_what_follows_the_thought_counts() -> None:
    inside = r"<think>Is it \boxed{42}? Yes.</think> I will not say."
    assert verify_math(inside, "42", voters=()).reason == "no_answer"
    assert verify_math(r"\boxed{42}</think> then \boxed{41}", "42", opened=True, voters=()).reason == "wrong"
    assert verify_math(r"\boxed{41}</think> then \boxed{42}", "42", opened=True, voters=()).correct
    assert verify_math(r"so \boxed{42}", "42", opened=True, voters=()).reason == "no_answer"


def test_a_strict_format_lets_nothing_follow_the_answer() -> None:
    strict = MathPolicy(answer="tag", strict=True)
    assert verify_math("<think>a</think><answer>42</answer>\n", "42", strict, voters=()).correct
    assert verify_math("<think>a</think><answer>42</answer> sure", "42", strict, voters=()).reason == "no_answer"
    boxed = MathPolicy(answer="boxed", strict=True)
    assert verify_math(r"So $\boxed{42}$.", "42", boxed, voters=()).correct
    assert verify_math(r"So $\boxed{42}$, or 43.", "42", boxed, voters=()).reason == "no_answer"
    line = MathPolicy(answer="line", strict=True)
    assert verify_math("x\nAnswer: 42", "42", line, voters=()).correct
    assert verify_math("Answer: 42\nOr not.", "42", line, voters=()).reason == "no_answer"


@pytest.mark.parametrize(
    ("kind", "right", "others"),
    [
        ("boxed", r"\boxed{42}", ["#### 42", "Answer: 42", "<answer>42</answer>", "The answer is 42"]),
        ("hashes", "#### 42", [r"\boxed{42}", "Answer: 42", "<answer>42</answer>", "The answer is 42"]),
        ("line", "Answer: 42", [r"\boxed{42}", "#### 42", "<answer>42</answer>", "The answer is 42"]),
        ("tag", "<answer>42</answer>", [r"\boxed{42}", "#### 42", "Answer: 42", "The answer is 42"]),
    ],
)
def test_a_policy_may_name_the_one_place_that_counts(kind: str, right: str, others: list[str]) -> None:
    policy = MathPolicy(answer=kind)
    assert verify_math(right, "42", policy, voters=()).correct
    for other in others:
        assert verify_math(other, "42", policy, voters=()).reason == "no_answer", other


def test_what_was_extracted_is_reported() -> None:
    verdict = verify_math(r"So $\boxed{\frac{2}{4}}$", r"\frac12", voters=())
    assert verdict.extracted == r"\frac{2}{4}"
    assert verdict.normal_form == "1/2"
    assert verdict.voter == "exact"
    assert verdict.seconds > 0

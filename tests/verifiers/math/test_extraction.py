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
    ("The roots are $1$ and $2$.", "$1$ and $2$", "phrase"),
    ("We get $1$ and $2$.", "1, 2", "formula"),
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

"""Why this matters: on GPQA and MMLU extraction is the whole verdict. Reading "A or C" as A pays for hedging; missing
"答案是C" punishes a right answer. Every form of commitment is listed with the letter it stands for, both languages, and
the forms that name none or several.

Not exercised: whether a model's reasoning supports the letter; extraction from an unfinished thought (see test_tags).
"""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from r1kit.verifiers.choice import LETTERS, find_choice, judge_choice, permute_options

from .data_rows import data_rows

ENGLISH = """C|c|(C)|C.|**C**|C) Paris|C. Paris is the capital.|Answer: C|answer: c|ANSWER: (C)|**Answer:** C
**Answer: C**|Final Answer: **C**|The final answer is $\\boxed{C}$.|\\boxed{\\text{C}}
\\boxed{\\text{(C)}}|\\boxed{C. Paris}|\\boxed{(C) 12}|\\boxed{\\mathrm{C}}
\\boxed{\\textbf{(C)}\\ 12}|\\boxed{c}|The answer is C.|The correct answer is (C).|Answer: $C$
Answer: "C"|The correct option is C because it fits|the best answer is option C
So the answer is: C) 5|The answer is **C**|Thus, the correct choice is C
Therefore option C is correct.|(C) is the correct answer|C is correct.|My answer: C
Answer: Option C|The answer is option (C)|I choose C|I would go with C.
The right answer would be C|The answer must be (C)|The answer is C, not A.
Option A is incorrect. Option C is correct.|Answer : C"""
CHINESE = """答案是C|答案：C|答案为C。|正确答案是（C）|故选C|故选：C.|选C|因此，本题选择C项。|所以应选C
最终答案：\\boxed{C}|C选项正确的|选项C是正确的|【答案】C|答案选C|正确选项为 C|Ｃ|答案：（Ｃ）
答案应该是C|我选C|选择C|正确的选项是C|Answer：C"""
SEVERAL = """A or C|The answer is A or C|Answer: A, C|Answer: A/C|Answer: A and C|either A or C
The answer is either A or C|答案是A或C|\\boxed{A} \\boxed{C}|\\boxed{A,C}|\\boxed{AC}
The answer is A. The answer is C.|选AC|答案：A、C|A, C|correct answer is A) 5 or C) 6
\\boxed{A}. Answer: C"""
NONE = (
    """The answer is a prime number|The answer is not A|I don't know||The answer is A good one|Answer: E|选项A错误|42"""
)


def cases(text: str) -> list[str]:
    return re.split(r"[|\n]", text)


@pytest.mark.parametrize("text", cases(ENGLISH) + cases(CHINESE) + ["Explanation.\n\nC", "**Final Answer**\n\n(C)"])
def test_commitments(text: str) -> None:
    assert judge_choice(text, "C").correct
    assert judge_choice(text, "A").reason == "wrong"


@pytest.mark.parametrize("text", cases(SEVERAL))
def test_several_letters_are_wrong(text: str) -> None:
    choice = find_choice(text)
    assert choice is not None
    assert choice.letters == "AC"
    assert not judge_choice(text, "A").correct
    assert not judge_choice(text, "C").correct


@pytest.mark.parametrize("text", cases(NONE))
def test_no_letter(text: str) -> None:
    assert judge_choice(text, "A").reason == "no_answer"


def test_going_through_the_options_is_no_answer_to_any() -> None:
    assert not any(judge_choice("A) too small\nB) too big\nC) odd\nD) even", gold).correct for gold in "ABCD")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A. Wait, no. The answer is C.",
        "答案是A。不对，答案是C。",
        "I thought the answer is A, but the answer is C",
        "Answer: A\nLet me re-check.\nFinal answer: C",
    ],
)
def test_a_change_of_mind_that_says_so(text: str) -> None:
    assert judge_choice(text, "C").correct
    assert not judge_choice(text, "A").correct


@pytest.mark.parametrize(
    "text",
    [
        "选项A：太小；选项B：太大；选项D：不是整数。答案是C",
        "选项：\nA. 苹果\nB. 香蕉\nC. 梨\n\n正确选项：C",
        "Option A: too small. Option B: too big.\nAnswer: C",
        "A) no\nB) no\nC) yes\n\nAnswer: C",
        "A is wrong because it is odd, B is wrong too.\n\\boxed{C}",
    ],
)
def test_discussing_the_options_commits_to_none_of_them(text: str) -> None:
    assert judge_choice(text, "C").correct


def test_golds_of_several_letters() -> None:
    assert judge_choice("答案：ABD", "ABD").correct
    assert judge_choice("Answer: B, D and A", "ABD").correct
    assert not judge_choice("Answer: A or B", "AB").correct
    assert not judge_choice("Answer: A", "AB").correct
    assert not judge_choice("ABCD", "ABD").correct


def test_the_text_of_an_option_counts_as_its_letter() -> None:
    texts = ["$12$", "13", "Paris", "None of these"]
    assert judge_choice("The answer is Paris.", "C", texts=texts).correct
    assert judge_choice("\\boxed{12}", "A", texts=texts).correct
    assert judge_choice("none of these", "D", texts=texts).correct
    assert judge_choice("London", "C", texts=texts).reason == "no_answer"
    # A text that two options share decides nothing.
    assert judge_choice("\\boxed{1}", "A", texts=["1", "1", "2"]).reason == "no_answer"


@pytest.mark.parametrize("gold", ["", "E", "F", "?"])
def test_a_gold_that_is_no_option_is_a_skip(gold: str) -> None:
    assert judge_choice("A", gold).reason == "gold_invalid"


def test_permutations_are_seeded_bijections() -> None:
    texts = ["w", "x", "y", "z"]
    places: Counter[str] = Counter()
    for problem in range(400):
        shown = permute_options(texts, 0, seed=1, key=f"p{problem}")
        assert sorted(shown.texts) == texts
        assert [texts[shown.source_index(letter)] for letter in LETTERS[:4]] == list(shown.texts)
        assert shown.texts[LETTERS.index(shown.gold)] == "w"
        assert shown == permute_options(texts, 0, seed=1, key=f"p{problem}")
        places[shown.gold] += 1
    assert set(places) == set("ABCD")
    assert min(places.values()) > 60  # of 400, in four places
    assert any(
        permute_options(texts, 0, seed=2, key=f"p{i}") != permute_options(texts, 0, seed=1, key=f"p{i}")
        for i in range(5)
    )
    assert shown.render().splitlines()[0] == f"A) {shown.texts[0]}"
    with pytest.raises(ValueError, match="gold is 4"):
        permute_options(texts, 4, seed=0, key="p")


@pytest.mark.parametrize(
    "text",
    [
        *("the answer is " * 9000, "\\boxed{" * 20000, "A" * 100_000, "answer" + "(" * 50_000, "选择" * 50_000),
        *("A or " * 30_000, "\n" * 100_000, "final answer is A or " * 2000, "( " * 50_000, "answer is option " * 5000),
    ],
)
def test_pathological_text_is_cheap(text: str) -> None:
    started = time.process_time()
    find_choice(text)
    assert time.process_time() - started < 1


def test_aqua_rationales_commit_to_their_letter() -> None:
    """People wrote these; where a rationale names a letter after "answer", it is found and is the gold."""
    found = Counter[str]()
    for row in data_rows("aqua/test.jsonl.gz"):
        if re.search(r"answer\s*(?:is)?\s*[:=]?\s*\(?[A-E]\)?\s*\.?\s*\Z", row["rationale"], re.IGNORECASE):
            found[judge_choice(row["rationale"], row["correct"], options=5).reason] += 1
    assert found["correct"] > 50
    assert found["correct"] / found.total() > 0.95

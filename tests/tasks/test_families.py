"""Why this matters: a held-out question that nearly equals a training question measures memory, and nobody sees it.

Not exercised: paraphrases; they share words, not runs of words, and no normal form finds them.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.tasks.families import families, near_form, plain

CAR = "A car drives {} km in {} hours. What is its average speed in kilometres per hour?"


def same(first: str, second: str, *, near: bool = True) -> bool:
    one, other = families([first, second], near=near)
    return one == other


def test_white_space_case_and_width_never_make_another_question() -> None:
    assert same("What is 1+1?", " what  IS １+1?", near=False)


def test_numbers_of_an_exercise_in_words_do_not_matter() -> None:
    assert same(CAR.format("60", "2"), CAR.format("1,250.5", "10"))
    assert not same(CAR.format("60", "2"), CAR.format("80", "2"), near=False)


def test_scripts_without_spaces_are_read_letter_by_letter() -> None:
    first = "小明有{}个苹果，他又从市场上买了{}个苹果回家，请问小明现在一共有多少个苹果？"
    assert same(first.format(3, 4), first.format(30, 17))
    assert not same(first.format(3, 4), "一列火车每小时行驶3公里，请问这列火车五个小时以后离开车站多远？")


def test_numbers_of_a_formula_do_matter() -> None:
    assert not same("12*34=", "56*78=")
    assert not same("Compute 17 + 4.", "Compute 18 + 4.")
    assert not same("计算 3 加 4", "计算 5 加 4")


def test_a_word_more_in_a_long_question_is_nearly_the_same() -> None:
    long = (
        "Natalia sold clips to some of her friends in April and then she sold half as many clips in May because it "
        "rained on most of the days and nobody went out to the market where she has her stand between the baker and "
        "the florist so how many clips did she sell altogether in those two months of spring"
    )
    assert same(long, f"{long} please")
    assert not same(long, long.replace("clips", "books").replace("sold", "borrowed").replace("month", "week"))


def test_other_exercises_with_a_common_beginning_stay_apart() -> None:
    start = "In the triangle ABC the angle at A is a right angle and the side AB is 3 long. "
    assert not same(
        start + "What is the length of the median from B?",
        start + "Find the radius of the circle that touches all three of the sides.",
    )


def test_a_chain_of_near_questions_is_one_family() -> None:
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(60)]
    chain = [" ".join(words[i : i + 50]) for i in range(4)]
    assert len(set(families(chain, near=True))) == 1


@given(st.lists(st.text(min_size=0, max_size=120), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_questions_changes_no_family(questions: list[str], rng: random.Random) -> None:
    shuffled = [*questions]
    rng.shuffle(shuffled)
    by_question = dict(zip(questions, families(questions, near=True), strict=True))
    assert dict(zip(shuffled, families(shuffled, near=True), strict=True)) == by_question
    for first in questions:
        for second in questions:
            if near_form(first) == near_form(second) or plain(first) == plain(second):
                assert by_question[first] == by_question[second]

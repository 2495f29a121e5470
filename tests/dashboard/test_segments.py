"""Why this matters: the colours of a response are what a reader believes about it, and its text is hostile.

Does not exercise: the verifiers that decide rewards.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.dashboard.segments import mark_response

RESPONSE = "<think>(3+6)-5=9-5=4?13 no\nwait (4*4)-3=16-3=13?13 yes</think><answer>(4*4)-3</answer>"


def joined(text: str, **rest: object) -> str:
    return "".join(piece[1] for region in mark_response(text, **rest) for piece in region.pieces)


def marks(text: str, **rest: object) -> list[tuple[str, str]]:
    return [(m, t) for region in mark_response(text, **rest) for m, t, _ in region.pieces if m]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="<>/thinkaswer=?13 yesno\n+-*()é\U0001f600", max_size=200))
def test_the_pieces_join_to_the_text(text):
    assert joined(text) == text


def test_regions_follow_the_tags():
    regions = mark_response(RESPONSE)
    assert [region.kind for region in regions] == ["think", "answer"]
    assert regions[1].pieces[1] == ("", "(4*4)-3", "")


def test_a_prompt_that_opened_the_think_block():
    assert [r.kind for r in mark_response("so</think>x", opened=True)] == ["think", ""]


def test_true_verdicts_and_words():
    assert [m for m, _ in marks(RESPONSE) if m not in ("tag", "work")] == ["no", "word", "yes"]


@pytest.mark.parametrize(
    ("text", "target", "mark"),
    [
        ("3+6=9?13 yes", None, "false-yes"),
        ("3+6=9?9 no", None, "false-no"),
        ("3+6=9?9 yes", 13, "false-yes"),  # the written target is not the problem's
        ("3+6=9?13 no", 13, "no"),
    ],
)
def test_a_verdict_is_true_of_the_value_before_it(text, target, mark):
    assert marks(text, target=target)[-1][0] == mark


def test_a_slip_says_which_equation_fails():
    ((region),) = mark_response("(3+6)-5=9-5=3?13 no")
    mark, text, remark = region.pieces[0]
    assert (mark, text) == ("slip", "(3+6)-5=9-5=3?13")
    assert remark == "9-5 is 4, not 3"


@pytest.mark.parametrize("text", ["27/2=13.5", "x2=4", "1.5=3/2", "a b c", "version 3"])
def test_what_is_no_chain_of_integers_is_left_alone(text):
    assert marks(text) == []


@pytest.mark.parametrize("unit", ["1", "1 ", "1=", "(", "-1+", "1= ", " ", "<think>"])
def test_hostile_text_costs_but_its_length(unit):
    text = unit * (12_000 // len(unit))
    start = time.process_time()
    assert joined(text) == text
    assert time.process_time() - start < 2

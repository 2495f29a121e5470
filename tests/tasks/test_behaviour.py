"""Why this matters: "search emerges" is a claim about these counts. Each is checked on hand-written
responses in the tiny format and in prose.

Not exercised: prose in general; the prose readers are measurements, not verdicts.
"""

from __future__ import annotations

import time

import pytest

from r1kit.tasks.behaviour import countdown_statistics, find_attempts, multiplication_statistics

NUMBERS, TARGET = [3, 4, 4], 13
RIGHT = "(4*4)-3=16-3=13?13 yes"
WRONG = "(4+4)-3=8-3=5?13 no\n"


def stats(thinking: str) -> dict[str, float]:
    return countdown_statistics(f"<think>{thinking}</think><answer>(4*4)-3</answer>", NUMBERS, TARGET)


def test_one_attempt() -> None:
    assert stats(RIGHT) == {
        "attempts": 1,
        "verification": 1,
        "arithmetic_right": 1,
        "numbers_right": 1,
        "repeats": 0,
        "backtracking": 0,
        "verdict_right": 1,
    }


def test_a_search() -> None:
    found = stats(f"{WRONG}wait {WRONG}(3+4)+4=7+4=11?13 no\n{RIGHT}\ncheck {RIGHT}")
    assert found["attempts"] == 5
    assert found["backtracking"] == 1
    assert found["repeats"] == pytest.approx(2 / 5)
    assert found["verdict_right"] == found["arithmetic_right"] == found["numbers_right"] == 1


@pytest.mark.parametrize(
    ("thinking", "key", "value"),
    [
        (WRONG, "backtracking", 0),  # rejected, but nothing follows
        (f"{RIGHT}\ncheck {RIGHT}", "backtracking", 0),
        ("(4+4)-3=8-3=5?13 yes", "verdict_right", 0),
        ("(4*4)-3=16-3=13?13 no\n", "verdict_right", 0),
        ("(4*4)-3=16-3=13?12 no\n", "verdict_right", 0),  # it is the problem's target that decides
        ("(4*4)-3=17-3=14?13 no\n", "arithmetic_right", 0),
        ("(4*4)-3=16-3=14?13 no\n", "arithmetic_right", 0),
        ("(4/3)*4=16/3?13 no\n", "arithmetic_right", 1),
        ("(4*5)-3=20-3=17?13 no\n", "numbers_right", 0),
        ("(4*4)-=16-3=13?13 yes", "arithmetic_right", 0),
        ("(4*4)-3=16-3=13", "verification", 0),
    ],
)
def test_single_readings(thinking: str, key: str, value: float) -> None:
    assert stats(thinking)[key] == value


def test_absent_where_there_is_nothing_to_measure() -> None:
    assert countdown_statistics("A:(4*4)-3", NUMBERS, TARGET) == {
        "attempts": 0,
        "verification": 0,
        "backtracking": 0,
    }
    assert "verdict_right" not in stats("(4*4)-3=16-3=13")


def test_the_answer_block_is_no_attempt() -> None:
    assert countdown_statistics("<think>x</think><answer>4*4-3=13</answer>", NUMBERS, TARGET)["attempts"] == 0


def test_prose() -> None:
    text = """Let me try a few things.
First, 4 + 4 - 3 = 5. That is too small.
- (4 + 3) * 4 = 28, which is not 13.
Then 4 * 4 = 16 and 4 * 4 - 3 = 13. Let me check: 4 * 4 - 3 = 13, which is what we want.</think>
<answer> 4 * 4 - 3 </answer>"""
    found = countdown_statistics(text, NUMBERS, TARGET)
    assert found["attempts"] == 4
    assert found["backtracking"] == found["verification"] == 1
    assert found["arithmetic_right"] == found["numbers_right"] == 1
    assert "verdict_right" not in found


def test_prose_step_by_step_counts_equation_lines() -> None:
    found = countdown_statistics("4 * 4 = 16\n16 - 3 = 13", NUMBERS, TARGET)
    assert found["attempts"] == 2


def test_multiplication() -> None:
    first = "12*34=10*34+2*34=340+68=418"
    second = "34*12=30*12+4*12=360+48=408?418 no"
    text = f"<think>{first}\ncheck {second}\n12*34=408?408 yes</think>"
    found = multiplication_statistics(text, 12, 34)
    assert found["attempts"] == 3
    assert found["backtracking"] == found["verification"] == 1
    assert found["verdict_right"] == 1
    assert found["arithmetic_right"] == pytest.approx(2 / 3)
    assert found["numbers_right"] == 1
    assert multiplication_statistics("12*34=409?408 yes", 12, 34)["verdict_right"] == 0


def test_garbage_is_cheap() -> None:
    started = time.process_time()
    for text in ("1" * 100_000, "(" * 100_000 + "=", "=1" * 50_000, "1=" * 50_000, "- " * 50_000):
        countdown_statistics(text, NUMBERS, TARGET)
    assert time.process_time() - started < 2
    assert find_attempts("") == []

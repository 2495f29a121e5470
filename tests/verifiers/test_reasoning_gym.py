"""Why this matters: reasoning-gym's questions are good and some of its scorers are not; a policy trained against those
learns to write `6 + 6 + 6 + 6`. Exercised: shapes of answers by hand; for every kind that is used, its own gold scores
1 and nonsense 0; every kind of the installed package is either used or denied; the broken scorers are still broken.

Not exercised: kinds that are denied; whether the questions are any good. What needs the package is skipped without it.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest

from r1kit.verifiers.puzzles import UnparsableAnswer, read_grid, read_list, read_number
from r1kit.verifiers.reasoning_gym import CHECKS, DENIED, judge_entry, load_entries

from .data_rows import data_rows

# Generators that take seconds are left to the slow test.
SLOW = {"arc_agi", "futoshiki", "group_anagrams", "puzzle24", "zebra_puzzles", "rearc", "knight_swap"}
NONSENSE = [
    "banana",
    "6 + 6 + 6 + 6",
    "[[",
    "{}",
    "[]",
    "__import__('os')",
    "9" * 1000,
    "(" * 5000,
    "1/0",
    "$\\frac{1}{0}$",
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-1,234.50", Fraction(-2469, 2)),
        ("$\\dfrac{3}{6}$", Fraction(1, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("0x1F", 31),
        ("1.5e3", 1500),
        ("7.", 7),
        (".5", Fraction(1, 2)),
    ],
)
def test_numbers(text: str, value: Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize("text", ["", ".", "-", "e5", "1,23", "1/0", "1e9999", "twelve", "1 2", "٣", "9" * 500, "1+1"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(UnparsableAnswer):
        read_number(text)


def test_lists_and_grids() -> None:
    assert read_list("['-1.0', \"b\"]") == read_list("-1.0, b") == read_list("-1.0 b") == ["-1.0", "b"]
    assert (
        read_grid("1 2\n3 4")
        == read_grid("[[1, 2], [3, 4]]")
        == read_grid("[[1 2]\n [3 4]]")
        == [["1", "2"], ["3", "4"]]
    )


def entry(dataset: str, answer: str, **facts: Any) -> dict[str, Any]:
    return {"dataset": dataset, "answer": answer, "facts": facts}


QUEENS = [["_"] * 4 for _ in range(4)]
COLORS = {"vertices": [0, 1, 2], "edges": [[0, 1], [1, 2]], "color_options": [1, 2]}
GRID = [["*", "O", "X"], ["X", "O", "#"], ["O", "O", "O"]]


ANAGRAMS = entry("group_anagrams", "", solution=[["ab", "ba"], ["c"]])
PARTITIONS = entry("palindrome_partitioning", "", solution=[["a", "a"], ["aa"]])
SORTING = entry("number_sorting", "", original_numbers=["3", "-1.50", "2"], direction="ascending")
HALF = entry("fraction_simplification", "", simplified_numerator=1, simplified_denominator=2)
POURS = '["fill B", "pour B->A", "empty A", "pour B->A", "fill B", "pour B->A"]'


@pytest.mark.parametrize(
    ("payload", "right", "wrong"),
    [
        (
            entry("puzzle24", "", numbers=[5, 6, 1, 6]),
            ["5*6*1-6", "6*(5*1)-6"],
            ["6 + 6 + 6 + 6", "5*6-6", "24", "5*6*1-6=24"],
        ),
        (entry("countdown", "", numbers=[2, 3, 5], target=11), ["2*3+5"], ["3+3+5", "22/2", "2*3+5 # yes"]),
        (
            entry("n_queens", "", puzzle=[["_", "Q", "_", "_"], *QUEENS[1:]]),
            ["_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _"],
            ["_ _ Q _\nQ _ _ _\n_ _ _ Q\n_ Q _ _", "Q _ _ _\n_ Q _ _\n_ _ Q _\n_ _ _ Q", "_ Q _ _"],
        ),
        (
            entry("graph_color", "None", puzzle=COLORS),
            ['{"0": 1, "1": 2, "2": 1}'],
            ['{"0": 1, "1": 1, "2": 2}', "{}", '{"0": 3, "1": 2, "2": 1}', '{"0": true, "1": 2, "2": 1}'],
        ),
        (
            entry("jugs", "", puzzle={"jug_capacities": [3, 5], "target": 4}),
            [POURS],
            ['["fill B"]', '["fill A", "pour A->A"]', "[]", '["fill C"]', '["fill"]', "[1]"],
        ),
        (
            entry("shortest_path", "right down right", matrix=GRID),
            ["right down right", "Right, down, right"],
            ["right right down", "right down down right up", "infeasible", "down"],
        ),
        (entry("shortest_path", "infeasible", matrix=GRID), ["infeasible"], ["right down right", "infeasible right"]),
        (
            entry("prime_factorization", "", factors=[2, 2, 3]),
            ["2 × 3 × 2", "2*2*3"],
            ["12", "4 × 3", "2 × 2", "2.5 × 2"],
        ),
        (entry("palindrome_generation", "", letters=["a", "b", "a"]), ["aba"], ["bab", "aab", "a"]),
        (ANAGRAMS, ['[["c"], ["ba", "ab"]]'], ['[["c"]]', '[["ab"], ["ba"], ["c"]]', "[3]"]),
        (PARTITIONS, ['[["aa"], ["a", "a"]]'], ['[["aa"]]']),
        (SORTING, ["['-1.5', '2', '3']"], ["3, 2, -1.5", "e5"]),
        (
            entry("number_format", "10.0000001", formatted_candidates=["10.0", "1,000"]),
            ["10", "1e1"],
            ["1000", "10.1"],
        ),
        (entry("kakurasu", "", row_sums=[1, 2], col_sums=[1, 2]), ["1 0\n0 1"], ["0 1\n1 0", "1 0", "2 0\n0 1"]),
        (HALF, ["1/2", "$\\frac{1}{2}$"], ["2/4", "0.5"]),
        (entry("complex_arithmetic", "-2.0 - 4.0i"), ["-2-4i", "-2.0 - 4.0i"], ["-2+4i", "2-4i", "-2", "1.2.3"]),
        (entry("complex_arithmetic", "0.0 + 1.0i"), ["i", "1i", "0+i"], ["-i", "1"]),
        (entry("game_of_life_halting", "False"), ["False", "false."], ["True", "anything"]),
        (entry("spiral_matrix", "1 2 3"), ["1 2 3", "[1, 2, 3]"], ["1 2", "3 2 1"]),
        (entry("futoshiki", "1 < 2\n∧   ∨\n2   1"), ["1 < 2\n2   1", "1 2\n2 1"], ["2 1\n1 2", "1 2\n2 1 ok"]),
    ],
)
def test_checks_by_hand(payload: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for answer in right:
        assert judge_entry(answer, payload).correct, answer
    for answer in (*wrong, *NONSENSE):
        verdict = judge_entry(answer, payload)
        assert (verdict.outcome, verdict.score) == ("score", 0.0), answer


def test_outcomes() -> None:
    payload = entry("gcd", "4")
    assert judge_entry(" ", payload).reason == "no_answer"
    assert judge_entry("4 apples", payload).reason == "unparsable"
    assert judge_entry("4" * 30_000, payload).reason == "over_limit"
    assert judge_entry("4", entry("sokoban", "U")).reason == "gold_invalid"
    assert judge_entry("4", entry("no_such_kind", "U")).reason == "gold_invalid"
    assert judge_entry("4", {"dataset": "gcd"}).reason == "gold_invalid"
    assert judge_entry("4*6", entry("puzzle24", "")).reason == "gold_invalid"  # the numbers are missing
    with pytest.raises(ValueError, match="denied"):
        next(load_entries("sokoban", size=1, seed=0))


def golds_and_nonsense(names: set[str]) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is optional")
    for name in sorted(names):
        for question in load_entries(name, size=4, seed=3):
            payload = question["payload"]
            if payload["answer"] != "None":
                assert judge_entry(payload["answer"], payload).correct, (name, payload)
            for answer in NONSENSE:
                verdict = judge_entry(answer, payload)
                assert (verdict.outcome, verdict.score) == ("score", 0.0), (name, answer)


def test_golds_score_1_and_nonsense_0() -> None:
    golds_and_nonsense(set(CHECKS) - SLOW)


@pytest.mark.slow
def test_golds_score_1_and_nonsense_0_where_questions_are_slow() -> None:
    golds_and_nonsense(set(CHECKS) & SLOW)


def test_every_kind_is_used_or_denied() -> None:
    factory = pytest.importorskip("reasoning_gym.factory", reason="reasoning-gym is optional")
    known = set(CHECKS) | set(DENIED)
    assert not set(CHECKS) & set(DENIED)
    assert set(factory.DATASETS) <= known


def test_the_scorers_we_do_not_use_are_as_broken_as_said() -> None:
    gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is optional")
    halting = gym.create_dataset("game_of_life_halting", size=3, seed=1)
    theirs = [halting.score_answer("anything", entry) for entry in halting]
    assert theirs.count(1.0) > 0
    ours = [judge_entry("anything", q["payload"]) for q in load_entries("game_of_life_halting", size=3, seed=1)]
    assert not any(verdict.correct for verdict in ours)


def test_against_published_scores() -> None:
    """Answers of R1 with the scores reasoning-gym gave them: where both judge, they agree but for known defects."""
    known = {"game_of_life_halting", "decimal_arithmetic", "binary_matrix", "simple_geometry", "caesar_cipher"}
    agree = differ = 0
    for row in data_rows("results/reasoning_gym_r1.jsonl.gz"):
        if row["task"] not in CHECKS or row["task"] in known:
            continue
        for answer, score in zip(row["answers"], row["scores"], strict=True):
            verdict = judge_entry(answer or "", entry(row["task"], row["expected"]))
            if verdict.outcome == "score":
                agree += verdict.correct == (score == 1)
                differ += verdict.correct != (score == 1)
    assert agree > 4500
    assert differ < 0.01 * agree


@pytest.mark.parametrize(
    "answer", ["1," * 9999, "[" * 19_999, "{" * 19_999, "1/" * 9999, "1 " * 9999, "9" * 19_999, "× " * 9999]
)
def test_pathological_answers_are_cheap(answer: str) -> None:
    started = time.process_time()
    for name in CHECKS:
        judge_entry(answer, entry(name, "1", numbers=[1], target=1, factors=[1], letters=["a"], solution=[]))
    assert time.process_time() - started < 5

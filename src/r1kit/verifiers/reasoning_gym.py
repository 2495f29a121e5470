"""reasoning-gym's questions behind our own checks.

reasoning-gym (an optional package) writes questions of some hundred kinds. Its scorers are not used: measured at
0.1.25, `puzzle24` gives full marks to `6 + 6 + 6 + 6` whatever the numbers, `game_of_life_halting` to any text, seven
run the model's answer as Python, and many pay a little for nonsense. Every kind is either in `CHECKS`, with a check of
`puzzles`, or in `DENIED`, with the reason. The payload of a problem is plain JSON: judging needs no reasoning-gym.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from r1kit.records import Verdict
from r1kit.verifiers import puzzles
from r1kit.verifiers.puzzles import Check, UnparsableAnswer

MAX_CHARS = 20_000
_TROUBLE = (KeyError, TypeError, ValueError, IndexError, StopIteration, RecursionError)


def _table(groups: Mapping[Check, str]) -> dict[str, Check]:
    return {name: check for check, names in groups.items() for name in names.split()}


CHECKS: Mapping[str, Check] = _table(
    {
        puzzles.text: "ab acre base_conversion calendar_arithmetic caesar_cipher circuit_logic color_cube_rotation"
        " course_schedule family_relationships figlet_font game_of_life_halting isomorphic_strings letter_jumble"
        " mahjong_puzzle modulo_grid needle_haystack ransom_note spell_backward syllogism time_intervals tsumego"
        " zebra_puzzles",
        puzzles.cased_text: "bf emoji_mystery string_insertion string_manipulation",
        puzzles.number: "aiw basic_arithmetic binary_alternation bitwise_arithmetic chain_sum coin_flip count_bits"
        " count_primes decimal_arithmetic decimal_chain_sum dice gcd gsm_symbolic largest_island lcm leg_counting"
        " letter_counting maze number_sequence products rectangle_count rotten_oranges self_reference"
        " simple_equations simple_geometry",
        puzzles.items: "number_filtering spiral_matrix string_splitting string_synthesis word_sequence_reversal"
        " word_sorting",
        puzzles.numbers: "list_functions",
        puzzles.number_sorting: "number_sorting",
        puzzles.number_format: "number_format",
        puzzles.grid: "arc_1d arc_agi binary_matrix game_of_life manipulate_matrix mini_sudoku rearc rotate_matrix"
        " sudoku",
        puzzles.number_grid: "futoshiki pool_matrix",
        puzzles.complex_number: "complex_arithmetic",
        puzzles.lowest_terms: "fraction_simplification",
        puzzles.countdown: "countdown",
        puzzles.puzzle24: "puzzle24",
        puzzles.prime_factors: "prime_factorization",
        puzzles.palindrome: "palindrome_generation",
        puzzles.anagram_groups: "group_anagrams",
        puzzles.palindrome_partitions: "palindrome_partitioning",
        puzzles.graph_color: "graph_color",
        puzzles.jugs: "jugs",
        puzzles.n_queens: "n_queens",
        puzzles.shortest_path: "shortest_path",
        puzzles.path_star: "path_star",
        puzzles.kakurasu: "kakurasu",
        puzzles.knights_knaves: "knights_knaves",
    }
)

_CAS = "the answer is a formula: judge it with the mathematics verifier"
_NO_GOLD = "reasoning-gym gives no answer, and its scorer pays for nonsense"
_SEVERAL = "several answers are right and no check of them is written here"
_ROUNDED = "the answer is rounded, and what counts as near is not in the problem"
DENIED: Mapping[str, str] = {
    **dict.fromkeys(("intermediate_integration", "simple_integration", "polynomial_multiplication"), _CAS),
    **dict.fromkeys(("boxnet", "propositional_logic", "rubiks_cube", "rush_hour"), _NO_GOLD),
    **dict.fromkeys(("cryptarithm", "knight_swap", "quantum_lock", "sentence_reordering", "sokoban"), _SEVERAL),
    **dict.fromkeys(("survo", "tower_of_hanoi", "word_ladder"), _SEVERAL),
    **dict.fromkeys(("advanced_geometry", "polynomial_equations", "power_function"), _ROUNDED),
    "codeio": "its questions differ from run to run under one seed",
    "composite": "a mixture: name the kinds it is to be made of",
}
# What the checks read of an entry's metadata; the rest stays behind.
_FACTS = (
    *(
        "numbers",
        "target",
        "factors",
        "letters",
        "solution",
        "puzzle",
        "matrix",
        "row_sums",
        "col_sums",
        "original_numbers",
        "direction",
    ),
    *(
        "names",
        "statements",
        "knight_knave_terms",
        "simplified_numerator",
        "simplified_denominator",
        "formatted_candidates",
    ),
)


def load_entries(name: str, *, size: int, seed: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """`size` questions of one kind: {"question", "payload"}; the payload goes to `judge_entry`.

    ImportError with a remedy where reasoning-gym is missing, ValueError for a kind that is denied or unknown.
    """
    _check_name(name)
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError("these questions come from reasoning-gym: pip install reasoning-gym") from error
    for entry in reasoning_gym.create_dataset(name, size=size, seed=seed, **settings):
        facts = {key: entry["metadata"][key] for key in _FACTS if key in entry["metadata"]}
        payload = {"dataset": name, "answer": str(entry["answer"]), "facts": facts}
        # NumPy strings and tuples become what a stored problem would hold, here and not at some later reading.
        yield {"question": entry["question"], "payload": json.loads(json.dumps(payload, default=str))}


def _check_name(name: str) -> None:
    if name in DENIED:
        raise ValueError(f"reasoning-gym's {name} is denied: {DENIED[name]}")
    if name not in CHECKS:
        raise ValueError(f"reasoning-gym's {name!r} is not known here: expected one of {', '.join(sorted(CHECKS))}")


def judge_entry(answer: str, payload: Mapping[str, Any]) -> Verdict:
    """Score 1 where `answer` is right by our own check of the payload's kind, else 0: there is no partial credit.

    A payload that is denied, unknown, or lacks what its check reads is a skip.
    """
    started = time.perf_counter()
    name = str(payload.get("dataset"))
    voter = f"reasoning_gym:{name}"
    try:
        _check_name(name)
        check, gold, facts = CHECKS[name], payload["answer"], payload.get("facts", {})
    except (KeyError, ValueError) as error:
        return Verdict("skip", None, "gold_invalid", normal_form=str(error), voter=voter)
    if len(answer) > MAX_CHARS:
        return Verdict.scored(0, "over_limit", extracted=answer[:200], voter=voter)
    if not answer.strip():
        return Verdict.scored(0, "no_answer", voter=voter)
    try:
        right = check(answer, gold, facts)
    except UnparsableAnswer as error:
        return Verdict.scored(0, "unparsable", extracted=answer, normal_form=str(error), voter=voter)
    except _TROUBLE as error:
        # Whose trouble is it? If the gold itself cannot be checked, the problem's; else the candidate's.
        reason = _problem_of(check, gold, facts)
        if reason:
            return Verdict("skip", None, "gold_invalid", normal_form=f"{name}: {reason}", voter=voter)
        return Verdict.scored(0, "unparsable", extracted=answer, normal_form=str(error), voter=voter)
    seconds = time.perf_counter() - started
    return Verdict.scored(float(right), "correct" if right else "wrong", extracted=answer, voter=voter, seconds=seconds)


def _problem_of(check: Check, gold: str, facts: Mapping[str, Any]) -> str:
    try:
        check(gold, gold, facts)
    except UnparsableAnswer:
        return ""
    except _TROUBLE as error:
        return f"{type(error).__name__} {error}"
    return ""

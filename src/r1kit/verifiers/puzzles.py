"""Checks of puzzle answers: numbers by value, lists and grids by content, and rules where several answers are right.

Each check is a pure function `(answer, gold, facts) -> bool`. It raises `UnparsableAnswer` where the answer is not of
the puzzle's shape, and ValueError, KeyError or TypeError where the problem itself lacks what the check needs.
Answers are read by regular expressions and JSON, never run.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from r1kit.verifiers.exact import ExactPolicy
from r1kit.verifiers.expression import judge_expression
from r1kit.verifiers.knights_knaves import judge_knights_knaves

Facts = Mapping[str, Any]
Check = Callable[[str, str, Facts], bool]

_PLAIN = ExactPolicy()
_CASED = ExactPolicy(case=True, punctuation="keep")
_DECIMAL = re.compile(
    r"[+-]?(?:(?:[0-9]{1,400}|[0-9]{1,3}(?:,[0-9]{3}){1,100})(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?"
)
_RATIO = re.compile(r"([+-]?)(?:\\d?frac\{([0-9]{1,400})\}\{([0-9]{1,400})\}|([0-9]{1,400})\s?/\s?([0-9]{1,400}))")
_COMPLEX = re.compile(r"([+-]?[0-9.]+)?(?:([+-]?)((?:[0-9][0-9.]*)?)[ij])?")
_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class UnparsableAnswer(ValueError):
    """The answer does not have the shape the puzzle asks for."""


def read_number(text: str) -> Fraction:
    """A decimal, a ratio or a hexadecimal number as its exact value."""
    plain = text.strip().strip("$").strip().removesuffix(".")
    if re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]{1,400}", plain):
        return Fraction(int(plain, 16))
    if ratio := _RATIO.fullmatch(plain):
        above, below = int(ratio[2] or ratio[4]), int(ratio[3] or ratio[5])
        if below:
            return Fraction(-above if ratio[1] == "-" else above, below)
    if not _DECIMAL.fullmatch(plain):
        raise UnparsableAnswer(f"{text[:60]!r} is no number")
    return Fraction(plain.replace(",", ""))


def read_list(text: str) -> list[str]:
    """Items between commas, or between blanks where there is no comma; brackets and quotes around them dropped."""
    inner = text.strip().strip("[]()")
    items = inner.split(",") if "," in inner else inner.split()
    return [item.strip().strip("'\"") for item in items]


def read_grid(text: str) -> list[list[str]]:
    """Rows of cells: one a line with blanks or commas between cells, or nested brackets."""
    lines = re.sub(r"\]", "\n", text).split("\n")
    rows = [re.findall(r"[^\s,\[\]'\"]+", line) for line in lines]
    return [row for row in rows if row]


def _json(answer: str, shape: type) -> Any:
    try:
        value = json.loads(answer.replace("'", '"'))
    except (ValueError, RecursionError):
        raise UnparsableAnswer(f"{answer[:60]!r} is no JSON") from None
    if not isinstance(value, shape):
        raise UnparsableAnswer(f"expected a {shape.__name__}")
    return value


def text(answer: str, gold: str, facts: Facts) -> bool:
    return _PLAIN.normalise(answer) == _PLAIN.normalise(gold)


def cased_text(answer: str, gold: str, facts: Facts) -> bool:
    return _CASED.normalise(answer) == _CASED.normalise(gold)


def number(answer: str, gold: str, facts: Facts) -> bool:
    return read_number(answer) == read_number(gold)


def items(answer: str, gold: str, facts: Facts) -> bool:
    return read_list(answer) == read_list(gold)


def numbers(answer: str, gold: str, facts: Facts) -> bool:
    return list(map(read_number, read_list(answer))) == list(map(read_number, read_list(gold)))


def number_sorting(answer: str, gold: str, facts: Facts) -> bool:
    """The given numbers in order; the gold is not used: it holds them rounded."""
    given = sorted(map(read_number, facts["original_numbers"]), reverse=facts["direction"] == "descending")
    return list(map(read_number, read_list(answer))) == given


def number_format(answer: str, gold: str, facts: Facts) -> bool:
    """The candidate nearest to the gold, which went through binary floating point: so may the answer have."""
    value, answered = read_number(gold), read_number(answer)
    candidates = map(read_number, facts["formatted_candidates"])
    right = min(candidates, key=lambda candidate: abs(candidate - value))
    return abs(answered - right) < Fraction(1, 10**5)


def grid(answer: str, gold: str, facts: Facts) -> bool:
    return read_grid(answer) == read_grid(gold)


def number_grid(answer: str, gold: str, facts: Facts) -> bool:
    """Grids of numbers by value; the signs between the cells of futoshiki are the puzzle's and are not compared."""
    return _values(answer) == _values(gold)


def _values(text: str) -> list[list[Fraction]]:
    rows = [[cell for cell in row if cell not in "<>∧∨^v|"] for row in read_grid(text)]
    return [list(map(read_number, row)) for row in rows if row]


def complex_number(answer: str, gold: str, facts: Facts) -> bool:
    return _read_complex(answer) == _read_complex(gold)


def _read_complex(text: str) -> tuple[Fraction, Fraction]:
    compact = re.sub(r"[\s$()]", "", text)
    match = _COMPLEX.fullmatch(compact)
    if not match or not compact:
        raise UnparsableAnswer(f"{text[:60]!r} is no complex number")
    real, sign, imaginary = match.groups()
    if imaginary is not None and not sign and real and not imaginary:
        real, imaginary = None, real  # "3i": the digits belong to i
    i = read_number(f"{sign or ''}{imaginary or 1}") if imaginary is not None else Fraction(0)
    return read_number(real) if real else Fraction(0), i


def lowest_terms(answer: str, gold: str, facts: Facts) -> bool:
    """Numerator and denominator as such: 2/4 is not the simplified 1/2."""
    ratio = _RATIO.fullmatch(answer.strip().strip("$").strip())
    if not ratio:
        raise UnparsableAnswer(f"{answer[:60]!r} is no fraction")
    parts = int(ratio[2] or ratio[4]), int(ratio[3] or ratio[5])
    return not ratio[1] and parts == (facts["simplified_numerator"], facts["simplified_denominator"])


def countdown(answer: str, gold: str, facts: Facts) -> bool:
    return judge_expression(answer.strip(), facts["numbers"], facts["target"]).correct


def puzzle24(answer: str, gold: str, facts: Facts) -> bool:
    return judge_expression(answer.strip(), facts["numbers"], 24).correct


def prime_factors(answer: str, gold: str, facts: Facts) -> bool:
    parts = re.split(r"\s*(?:×|\*|x|\\times)\s*", answer.strip().strip("$"))
    return Counter(map(read_number, parts)) == Counter(map(Fraction, facts["factors"]))


def palindrome(answer: str, gold: str, facts: Facts) -> bool:
    word = answer.strip().strip("'\"")
    return word == word[::-1] and Counter(word) == Counter(facts["letters"])


def anagram_groups(answer: str, gold: str, facts: Facts) -> bool:
    return _groups(_json(answer, list), ordered=False) == _groups(facts["solution"], ordered=False)


def palindrome_partitions(answer: str, gold: str, facts: Facts) -> bool:
    return _groups(_json(answer, list), ordered=True) == _groups(facts["solution"], ordered=True)


def _groups(value: Any, *, ordered: bool) -> Counter[tuple[str, ...]]:
    if not all(isinstance(group, list) and all(isinstance(item, str) for item in group) for group in value):
        raise UnparsableAnswer("expected a list of lists of words")
    return Counter(tuple(group) if ordered else tuple(sorted(group)) for group in value)


def graph_color(answer: str, gold: str, facts: Facts) -> bool:
    puzzle, colors = facts["puzzle"], _json(answer, dict)
    named = {str(vertex): colors.get(str(vertex)) for vertex in puzzle["vertices"]}
    allowed = [c for c in named.values() if type(c) is int and c in puzzle["color_options"]]
    return len(allowed) == len(named) and all(named[str(a)] != named[str(b)] for a, b in puzzle["edges"])


def jugs(answer: str, gold: str, facts: Facts) -> bool:
    """Any sequence of legal moves after which a jug holds the target."""
    capacity = dict(zip("ABCDEFGHIJ", facts["puzzle"]["jug_capacities"], strict=False))
    level = dict.fromkeys(capacity, 0)
    for move in _json(answer, list)[:1000]:
        match = re.fullmatch(r"(fill|empty) ([A-J])|pour ([A-J])->([A-J])", move if isinstance(move, str) else "")
        if not match or any(jug and jug not in capacity for jug in match.groups()[1:]):
            raise UnparsableAnswer(f"{str(move)[:40]!r} is no move")
        verb, jug, source, target = match.groups()
        if verb:
            level[jug] = capacity[jug] if verb == "fill" else 0
        else:
            poured = min(level[source], capacity[target] - level[target]) if source != target else 0
            level[source] -= poured
            level[target] += poured
    return facts["puzzle"]["target"] in level.values()


def n_queens(answer: str, gold: str, facts: Facts) -> bool:
    board, given = read_grid(answer), facts["puzzle"]
    size = len(given)
    if [len(row) for row in board] != [size] * size or {cell for row in board for cell in row} - {"_", "Q"}:
        raise UnparsableAnswer(f"expected a board of {size} rows of _ and Q")
    queens = [(r, c) for r in range(size) for c in range(size) if board[r][c] == "Q"]
    kept = all(board[r][c] == "Q" for r in range(size) for c in range(size) if given[r][c] == "Q")
    lines = [{line(r, c) for r, c in queens} for line in (_row, _column, _falling, _rising)]
    return kept and len(queens) == size and all(len(line) == size for line in lines)


def _row(r: int, c: int) -> int:
    return r


def _column(r: int, c: int) -> int:
    return c


def _falling(r: int, c: int) -> int:
    return r - c


def _rising(r: int, c: int) -> int:
    return r + c


def shortest_path(answer: str, gold: str, facts: Facts) -> bool:
    """A walk from * to # through open cells, as short as the gold; or "infeasible" where the gold says so."""
    words, best = re.findall(r"[a-z]+", answer.lower()), gold.split()
    if "infeasible" in (*words, *best):
        return words == best
    if not words or set(words) - set(_STEPS):
        raise UnparsableAnswer("expected up, down, left, right")
    cells = facts["matrix"]
    place = next((r, c) for r, row in enumerate(cells) for c, cell in enumerate(row) if cell == "*")
    for word in words[:10_000]:
        place = (place[0] + _STEPS[word][0], place[1] + _STEPS[word][1])
        if not (0 <= place[0] < len(cells) and 0 <= place[1] < len(cells[0])) or cells[place[0]][place[1]] == "X":
            return False
    return cells[place[0]][place[1]] == "#" and len(words) == len(best)


def path_star(answer: str, gold: str, facts: Facts) -> bool:
    found = read_list(answer)
    return found == gold.split() and all(a != b for a, b in pairwise(found))


def kakurasu(answer: str, gold: str, facts: Facts) -> bool:
    cells, rows, columns = read_grid(answer), facts["row_sums"], facts["col_sums"]
    if [len(row) for row in cells] != [len(columns)] * len(rows) or {c for row in cells for c in row} - {"0", "1"}:
        raise UnparsableAnswer(f"expected {len(rows)} rows of {len(columns)} zeros and ones")
    across = [sum(j for j, cell in enumerate(row, 1) if cell == "1") for row in cells]
    down = [sum(i for i, row in enumerate(cells, 1) if row[j] == "1") for j in range(len(columns))]
    return across == list(rows) and down == list(columns)


def knights_knaves(answer: str, gold: str, facts: Facts) -> bool:
    """The puzzle's own words for knights and knaves ("hero", "villain") are read as those."""
    terms, plain = facts["knight_knave_terms"], answer.lower()
    for role in ("knight", "knave"):
        plain = re.sub(rf"\b(?:an?\s)?{re.escape(terms[role].lower())}\b", f"a {role}", plain)
    return judge_knights_knaves(plain, facts["names"], facts["statements"]).correct

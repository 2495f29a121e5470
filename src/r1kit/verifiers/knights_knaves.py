"""Knights and knaves: knights tell the truth, knaves lie; who is what?

The statements come with the problem, as nested tuples: `("lying", 2)`, `("and", a, b)`, `("<=>", a, b)`. A solution is
checked against them, not against a text: any assignment under which exactly the knights' statements hold is right. All
assignments are looked at together: the truth of a statement is one integer with a bit per assignment.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from r1kit.records import Verdict

MAX_PEOPLE = 16  # 65,536 assignments
MAX_STATEMENTS = 20_000  # characters of statements given as text
MAX_DEPTH = 50
MAX_CHARS = 20_000  # of an answer

_BINARY: Mapping[str, Callable[[int, int, int], int]] = {
    "->": lambda a, b, every: (every ^ a) | b,
    "<=>": lambda a, b, every: every ^ a ^ b,
}
_ROLES = {
    **dict.fromkeys(("knight", "knights", "truth-teller", "truth-tellers", "骑士"), True),
    **dict.fromkeys(("knave", "knaves", "liar", "liars", "无赖", "骗子"), False),
}
_ROLE = r"(?P<role>knights?|knaves?|truth-tellers?|liars?|骑士|无赖|骗子)"
_CONDITIONAL = re.compile(r"\b(?:if|suppose|assum\w+|unless|whether|either)\b|假设|如果|若", re.IGNORECASE)


class PuzzleError(ValueError):
    """Statements that are no puzzle: a shape, an operator or a person that does not exist."""


def parse_statements(statements: str | Sequence[Any]) -> tuple[Any, ...]:
    """Statements as nested tuples, from such tuples or lists or from their Python text (literals only, no names)."""
    if isinstance(statements, str):
        if len(statements) > MAX_STATEMENTS:
            raise PuzzleError(f"statements of {len(statements)} characters: expected at most {MAX_STATEMENTS}")
        try:
            statements = ast.literal_eval(statements)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise PuzzleError(f"statements do not read as nested tuples: {error}") from None
    if not isinstance(statements, list | tuple) or not 1 <= len(statements) <= MAX_PEOPLE:
        raise PuzzleError(f"expected a statement of each of 1 to {MAX_PEOPLE} people")
    return tuple(statements)


def solve(statements: str | Sequence[Any]) -> list[tuple[bool, ...]]:
    """Every assignment (True: knight) that fits; person i makes statement i."""
    parsed = parse_statements(statements)
    people, every = len(parsed), (1 << (1 << len(parsed))) - 1
    knights = [_column(i, people) for i in range(people)]
    fits = every
    for knight, statement in zip(knights, parsed, strict=True):
        fits &= every ^ knight ^ _truth(statement, knights, every, 0)
    bits = f"{fits:b}"[::-1]
    return [tuple(bool(a >> i & 1) for i in range(people)) for a, bit in enumerate(bits) if bit == "1"]


def _column(person: int, people: int) -> int:
    """The assignments in which `person` is a knight: bit `a` is set where bit `person` of `a` is."""
    run = 1 << person
    block, width = ((1 << run) - 1) << run, 2 * run
    while width < 1 << people:
        block |= block << width
        width *= 2
    return block


def _truth(statement: Any, knights: list[int], every: int, depth: int) -> int:
    if depth > MAX_DEPTH or not isinstance(statement, list | tuple) or len(statement) < 2:
        raise PuzzleError(f"statement {str(statement)[:80]!r}: expected an operator and what it is about")
    operator, *operands = statement
    if operator in ("telling-truth", "lying") and len(operands) == 1:
        person = operands[0]
        if not isinstance(person, int) or isinstance(person, bool) or not 0 <= person < len(knights):
            raise PuzzleError(f"statement {statement!r}: expected a person from 0 to {len(knights) - 1}")
        return knights[person] if operator == "telling-truth" else every ^ knights[person]
    values = [_truth(operand, knights, every, depth + 1) for operand in operands]
    if operator == "not" and len(values) == 1:
        return every ^ values[0]
    if operator in _BINARY and len(values) == 2:
        return _BINARY[operator](values[0], values[1], every)
    if operator not in ("and", "or"):
        raise PuzzleError(
            f"operator {operator!r} of {len(values)}: expected and, or, not, ->, <=>, telling-truth, lying"
        )
    result = every if operator == "and" else 0
    for value in values:
        result = result & value if operator == "and" else result | value
    return result


@lru_cache(maxsize=1024)  # one problem is answered many times
def _patterns(names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A name, and what says of one or several names what they are."""
    someone = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    one = rf"(?<!\w)(?:{someone})(?![A-Za-z0-9_])"
    people = rf"{one}(?:\s{{0,3}}(?:,|&|and|和|与|、)\s{{0,3}}(?:and\s{{1,3}})?{one}){{0,{len(names)}}}"
    says = (
        rf"(?P<people>{people})\s{{0,3}}(?:is|are|must be|=|:|-+>?|→|\||是|为)\s{{0,3}}(?P<no>not\s|不是)?\s{{0,3}}"
        rf"(?:both\s|all\s)?(?:an?\s|the\s|一[个名])?{_ROLE}(?![A-Za-z])"
        rf"|{_ROLE.replace('role', 'head')}\s{{0,3}}(?:are|is|:)\s{{0,3}}(?P<listed>{people})"
    )
    return re.compile(one, re.IGNORECASE), re.compile(says, re.IGNORECASE)


def read_assignment(answer: str, names: Sequence[str]) -> dict[str, bool | None]:
    """Who is said to be what, by name; None for a person said to be both. People not mentioned are absent.

    Read are "Zoey is a knight", "Zoey and Ava are knaves", "Zoey: knight", "(2) Zoey is not a knave",
    "Knights: Zoey, Ava", "Zoey是骑士". A sentence with a condition in it says nothing.
    """
    found: dict[str, bool | None] = {}
    text = re.sub(r"[*_`#$\"“”]", "", unicodedata.normalize("NFKC", answer))
    one, says = _patterns(tuple(names))
    by_name = {name.casefold(): name for name in names}
    for sentence in re.split(r"[.\n;；。]", text):
        if _CONDITIONAL.search(sentence):
            continue
        for match in says.finditer(sentence):
            role = _ROLES[(match["role"] or match["head"]).casefold()] ^ bool(match["no"])
            for name in one.findall(match["people"] or match["listed"]):
                person = by_name[name.casefold()]
                found[person] = role if found.get(person, role) is role else None
    return found


def judge_knights_knaves(answer: str, names: Sequence[str], statements: str | Sequence[Any]) -> Verdict:
    """Score 1 where `answer` says of every person what they are, of none both, and the statements hold; else 0.

    A puzzle that cannot be read, or has no solution, is a skip.
    """
    voter = "knights_knaves"
    try:
        solutions = solve(statements)
        people = len(parse_statements(statements))
    except PuzzleError as error:
        return Verdict("skip", None, "gold_invalid", normal_form=str(error), voter=voter)
    distinct = {name.casefold() for name in names}
    if not solutions or not people == len(names) == len(distinct) or "" in distinct:
        form = f"{len(solutions)} solutions, {people} statements, {len(distinct)} names"
        return Verdict("skip", None, "gold_invalid", normal_form=form, voter=voter)
    if len(answer) > MAX_CHARS:
        return Verdict.scored(0, "over_limit", extracted=answer[:200], voter=voter)
    found = read_assignment(answer, names)
    if not found:
        reason = "unparsable" if answer.strip() else "no_answer"
        return Verdict.scored(0, reason, extracted=answer, voter=voter)
    right = tuple(found.get(name) for name in names) in set(solutions)
    said = {True: "knight", False: "knave", None: "both"}
    form = ", ".join(f"{name}={said[found[name]] if name in found else '?'}" for name in names)
    reason = "correct" if right else "wrong"
    return Verdict.scored(float(right), reason, extracted=answer, normal_form=form, voter=voter)


def judge_puzzle(statements: str | Sequence[Any], solution: Sequence[bool]) -> Verdict:
    """Check of a problem before use: score 1 where `solution` is the only solution of `statements`, else a skip."""
    try:
        solutions = solve(statements)
    except PuzzleError as error:
        return Verdict("skip", None, "gold_invalid", normal_form=str(error), voter="knights_knaves")
    if solutions != [tuple(solution)]:
        form = (
            f"{len(solutions)} solutions; the given one is {'' if tuple(solution) in solutions else 'not '}among them"
        )
        return Verdict("skip", None, "gold_invalid", normal_form=form, voter="knights_knaves")
    return Verdict.scored(1, "correct", voter="knights_knaves")

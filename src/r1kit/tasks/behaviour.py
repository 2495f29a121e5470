"""What a response does, read from its text: attempts, backtracking, checks, and whether its working is true.

The tiny format writes one attempt per line, `(3+6)-5=9-5=4?13 no`: expression, working, value, the target
again, a verdict. Real models write prose; the same readers then find equations and rejections in it.
Nothing here feeds a reward: these are measurements.

Keys (a key is absent where there is nothing to measure):
  attempts          written attempts: chains `expression = ... = value`
  backtracking      1 where an attempt that failed or was rejected is followed by another one, else 0
  verification      1 where a value is compared with the target (`?13`, "check"), else 0
  verdict_right     share of yes/no verdicts that are true of the value written before them
  arithmetic_right  share of attempts whose every `=` holds exactly
  numbers_right     share of attempts that use exactly the given numbers (countdown)
  repeats           share of attempts that repeat an earlier one to the letter
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from r1kit.verifiers import ExpressionError, parse_expression

# A maximal run of what equations are made of; one pass over the text, whatever it holds.
_RUN = re.compile(r"[-+*/()=0-9 ]+")
_VERDICT = re.compile(r" ?\? ?([0-9]{1,12})(?: (yes|no)\b)?")
_BULLET = re.compile(r"\A *[-*+] +")
_OPERATOR = re.compile(r"[-+*/]")
_REJECTION = re.compile(
    r"\b(?:no|not|wrong|wait|however|but|instead|doesn't|isn't|try again|too (?:high|low|big|small))\b", re.I
)
_CHECK = re.compile(r"\? ?[0-9]|\b(?:check|verify|double-check|confirm)", re.I)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One chain `a = b = c` as written, with what followed it."""

    sides: tuple[str, ...]
    goal: int | None
    verdict: str
    after: str  # the text up to the next chain

    @property
    def expression(self) -> str:
        return self.sides[0]

    def value(self) -> Fraction | None:
        """The value claimed: the last side; None where it is no expression."""
        return _value(self.sides[-1])

    def arithmetic_right(self) -> bool:
        """True where all sides have one and the same exact value."""
        values = {_value(side) for side in self.sides}
        return len(values) == 1 and None not in values

    def rejected(self, target: int | None) -> bool:
        """What its verdict says; without one, a wrong value or a word of rejection after it."""
        if self.verdict:
            return self.verdict == "no"
        return self.value() != target or _REJECTION.search(self.after) is not None


def _value(text: str) -> Fraction | None:
    try:
        return parse_expression(text).value
    except ExpressionError:
        return None


def find_attempts(response: str) -> list[Attempt]:
    """Every chain of the thinking part, in order (the answer block holds no attempt)."""
    text = response.split("<answer>", 1)[0]
    chains = []
    for run in _RUN.finditer(text):
        if "=" not in run[0]:
            continue
        sides = tuple(side.strip() for side in _BULLET.sub("", run[0]).split("=") if side.strip())
        if len(sides) > 1:
            chains.append((run, sides, _VERDICT.match(text, run.end())))
    attempts = []
    for i, (run, sides, judged) in enumerate(chains):
        end = judged.end() if judged else run.end()
        following = chains[i + 1][0].start() if i + 1 < len(chains) else len(text)
        goal, verdict = (int(judged[1]), judged[2] or "") if judged else (None, "")
        attempts.append(Attempt(sides, goal, verdict, text[end:following]))
    return attempts


def full_attempts(attempts: Sequence[Attempt], operators: int) -> list[Attempt]:
    """The attempts that try the whole problem (at least so many operators); all of them where none does."""
    full = [a for a in attempts if len(_OPERATOR.findall(a.expression)) >= operators]
    return full or list(attempts)


def shares(attempts: Sequence[Attempt], response: str, given: Sequence[int]) -> dict[str, float]:
    """The statistics that do not depend on what the task calls success."""
    found = {
        "attempts": float(len(attempts)),
        "verification": float(_CHECK.search(response) is not None),
    }
    if attempts:
        count, numbers = len(attempts), sorted(given)
        found["arithmetic_right"] = sum(a.arithmetic_right() for a in attempts) / count
        found["numbers_right"] = sum(_numbers(a.expression) == numbers for a in attempts) / count
        found["repeats"] = 1 - len({a.sides for a in attempts}) / count
    return found


def countdown_statistics(response: str, numbers: Sequence[int], target: int) -> dict[str, float]:
    """Statistics of a countdown response; `yes` is true of the target's value, `no` of any other."""
    attempts = full_attempts(find_attempts(response), len(numbers) - 1)
    found = shares(attempts, response, numbers)
    found["backtracking"] = float(any(a.rejected(target) for a in attempts[:-1]))
    judged = [(a.verdict == "yes") == (a.value() == target) for a in attempts if a.verdict]
    if judged:
        found["verdict_right"] = sum(judged) / len(judged)
    return found


def multiplication_statistics(response: str, a: int, b: int) -> dict[str, float]:
    """Statistics of a multiplication response; a verdict compares the value with an earlier one (`?408`)."""
    attempts = full_attempts(find_attempts(response), 1)
    found = shares(attempts, response, (a, b))
    found["backtracking"] = float(any(x.rejected(a * b) for x in attempts[:-1]))
    judged = [(x.verdict == "yes") == (x.value() == x.goal) for x in attempts if x.verdict]
    if judged:
        found["verdict_right"] = sum(judged) / len(judged)
    return found


def _numbers(expression: str) -> list[int] | None:
    try:
        return sorted(parse_expression(expression).numbers)
    except ExpressionError:
        return None

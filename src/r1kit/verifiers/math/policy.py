"""What counts as equal: one frozen object per data set, so that no rule hides in code.

Label suites of the field contradict one another (is 10 % ten? is 0.33 one third?). The defaults here arbitrate; a data
set that wants another rule says so by name. Every field says what happens at its default and at the alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from r1kit.config.suggest import nearest


class PolicyError(ValueError):
    """A policy with an unknown field or value; the message names both and the nearest known one."""


class Reading(NamedTuple):
    """The part of a policy that decides how a text is read, as opposed to compared: the key of the cache."""

    mixed_numbers: bool = True
    thousands: bool = True
    decimal_comma: bool = False


@dataclass(frozen=True, slots=True)
class MathPolicy:
    """Rules of equality. The defaults are meant for evaluation and for RL alike, unless a field says otherwise.

    percent: of a gold with a percent sign. "scale": 50 % is 0.5. "strip": 50 % is 50. "either": both.
    percent_of_plain_gold: the same for a prediction with a sign against a gold without one.
    fractions: "equal": 2/4 is 1/2. "reduced": the prediction must be in lowest terms (for "in simplest form").
    decimals: of a decimal against an exact gold. "round": right if it is the gold rounded to the digits given, at
        least `significant_digits` of them; an integer gold is never approximated. "relative": within
        `relative_tolerance` of the gold. "exact": equal only.
    sets: "gold": a gold in parentheses is ordered and no set; a gold in braces, or a list without brackets, is not
        ordered. "ordered": order counts everywhere. "unordered": it counts nowhere.
    intervals: "both": an inequality and its interval are the same, whichever side wrote it. "gold": only a gold may be
        the inequality (stricter, for RL). "never".
    units: "match": a prediction without unit passes, one with another unit does not; where the gold has none, any unit
        is dropped. "required": a unit of the gold must be there. "drop": units are not looked at. "exact": as
        "required", and a unit the gold does not have is wrong.
    assignments: "drop": `x = 5` is `5` (two different names never agree). "exact": both or neither name a variable.
    equations: "scale": equal up to a constant factor. "exact": the two sides must agree as written.
    bases: "digits": 101_2 is 101_2 or, without its base, 101. "value": it is also 5. "exact": the base must be there.
    degrees: "drop": 90° is 90 (and pi/2). "convert": 90° is pi/2 only. "exact": the sign must be there.
    boxes: "adjacent": boxes joined by a comma or "and" are one list, otherwise the last counts. "last". "single": more
        than one distinct box is wrong.
    hedges: "wrong": several distinct final values are one answer with several values. "last": the last counts.
    choice_letters: a gold that is one letter is a choice: `(B)`, `B.` and `B: text` are B.
    mixed_numbers: `1 1/2` and `1\\frac12` are 3/2.
    thousands: `10,000` is ten thousand. decimal_comma: `0,5` is one half.
    case: "fold": words are compared without case. "exact".
    answer: where a response's answer is looked for: "any" place, or only in a box, an answer tag, an `Answer:` line, or
        behind ####. strict: nothing but space (and closing marks) may follow it, and phrases do not count.
    """

    percent: Literal["scale", "strip", "either"] = "scale"
    percent_of_plain_gold: Literal["scale", "strip", "either"] = "either"
    fractions: Literal["equal", "reduced"] = "equal"
    decimals: Literal["round", "relative", "exact"] = "round"
    significant_digits: int = 4
    relative_tolerance: float = 1e-4
    sets: Literal["gold", "ordered", "unordered"] = "gold"
    intervals: Literal["both", "gold", "never"] = "both"
    units: Literal["match", "required", "drop", "exact"] = "match"
    assignments: Literal["drop", "exact"] = "drop"
    equations: Literal["scale", "exact"] = "scale"
    bases: Literal["digits", "value", "exact"] = "digits"
    degrees: Literal["drop", "convert", "exact"] = "drop"
    boxes: Literal["adjacent", "last", "single"] = "adjacent"
    hedges: Literal["wrong", "last"] = "wrong"
    choice_letters: bool = True
    mixed_numbers: bool = True
    thousands: bool = True
    decimal_comma: bool = False
    case: Literal["fold", "exact"] = "fold"
    answer: Literal["any", "boxed", "tag", "line", "hashes"] = "any"
    strict: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, allowed = getattr(self, field.name), get_args(hints[field.name])
            if allowed and value not in allowed:
                raise PolicyError(f"math policy: {field.name} is {value!r}, expected one of {', '.join(allowed)}")
            if not allowed and type(value) is not hints[field.name]:
                kind = hints[field.name].__name__
                raise PolicyError(f"math policy: {field.name} is {value!r}, expected a value of type {kind}")
        if self.significant_digits < 1:
            raise PolicyError(f"math policy: significant_digits is {self.significant_digits}, expected 1 or more")
        if not 0 < self.relative_tolerance < 1:
            raise PolicyError(f"math policy: relative_tolerance is {self.relative_tolerance}, expected between 0 and 1")

    @property
    def reading(self) -> Reading:
        return Reading(self.mixed_numbers, self.thousands, self.decimal_comma)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> MathPolicy:
        """A policy from plain values; an unknown key is refused with the nearest known one."""
        known = [f.name for f in fields(cls)]
        for key in row:
            if key not in known:
                raise PolicyError(
                    f"math policy: no field {key!r}{nearest(str(key), known)}; its fields are {', '.join(known)}"
                )
        return cls(**row)


DEFAULT_POLICY = MathPolicy()

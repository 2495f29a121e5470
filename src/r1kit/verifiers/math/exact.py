"""Tier (a): decide without sympy, in microseconds for ordinary golds, and say when it cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r1kit.verifiers.math.answers import Answer, Listing, Relation, Value, Words
from r1kit.verifiers.math.comparison import same
from r1kit.verifiers.math.limits import (
    MAX_CHARS,
    MathError,
    NotMathError,
    OverLimitError,
    UndefinedError,
    UnsupportedError,
)
from r1kit.verifiers.math.notation import lone_thousands
from r1kit.verifiers.math.policy import DEFAULT_POLICY, MathPolicy
from r1kit.verifiers.math.reading import read
from r1kit.verifiers.math.spelling import is_abstract, same_spelling, spelling

Kind = Literal["yes", "no", "unparsable", "over_limit", "unknown", "gold_unread"]
_INTEGER = re.compile(r"[-+]?[0-9]+")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*[).]?")
_CHOSEN = re.compile(
    r"[\s(\[*\"']*(?:(?:the\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?[(\[*]*([A-Z])[)\]*]*(?:[.):：、]\s*(.*))?[\s.*\"']*",
    re.IGNORECASE | re.DOTALL,
)
# An operator without its bounds, or a list that goes on: no value, though parsers that drop the sign find one.
_OPEN_ENDED = re.compile(r"\\(?:sum|prod|lim|int)(?![A-Za-z]|\s*(?:\\limits)?\s*[_^])|\\[lc]?dots|\.\.\.|…")
# What a parser may drop, and with it the meaning: a relation with nothing on its left, an operator with nothing on its
# right, a negation, a quantifier, a modulus, an arrow, a second line.
_DROPPED = re.compile(
    r"^[\s$]*(?:\\(?:leq?|geq?|lt|gt|leqslant|geqslant|neq?|not|sim|(?:sub|sup)set(?:eq)?|cong|equiv|propto|mid)"
    r"(?![A-Za-z])|[<>≤≥≠]|!=)"
    r"|(?:\\(?:times|cdot|div|pm|cup|cap)(?![A-Za-z])|[/=<>×÷]|(?<![\^_{])[-+])[\s$.]*$"
    r"|\\(?:neg|notin|forall|exists|nrightarrow|mod|bmod|pmod|to|rightarrow|mapsto)(?![A-Za-z])|[¬∀∃∉→]"
    r"|\\(?:min|max)(?![A-Za-z]|\s*(?:\\left)?\s*(?:[({]|\\\{))"
)
# Where an arrow is at home.
_LIMIT = re.compile(r"\\lim(?![A-Za-z])\s*(?:\\limits)?\s*_\s*\{[^{}]*\}")
# A decimal that shows its cycle three times: 0.333..., 0.142857142857142857...
_CYCLE = re.compile(r"(?<!\d)(\d{0,20})\.(\d{0,9}?)(\d{1,9}?)(\3{2,9})\s*(?:\.\.\.|…|\\[lc]?dots(?![A-Za-z]))")
_SECOND_LINE = re.compile(r"\\\\\s*[^\s\\]")
_NO_LETTER = re.compile(r"[^0-9A-Za-z]+")
_TEXT = re.compile(r"\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the exact tier says, and the form it compared. `final` False: a judge of words may know better.

    voter: "spelling" where only the way of writing was compared, because the meaning is out of reach.
    """

    kind: Kind
    normal_form: str | None = None
    final: bool = True
    voter: Literal["exact", "spelling"] = "exact"


def decide(prediction: str, gold: str, policy: MathPolicy = DEFAULT_POLICY) -> Decision:
    """Compare two bare answers. Never raises, never takes long."""
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(prediction):
        a, b = _canonical_integer(gold), _canonical_integer(prediction)
        return Decision("yes" if a == b else "no", b if len(b) < 100 else None)
    if prediction == gold or _squeezed(prediction) == _squeezed(gold):
        return Decision("yes", _form_of(prediction, policy))
    if policy.choice_letters and (choice := _choice(gold)) is not None:
        chosen = _chosen(prediction)
        if chosen is not None:
            return Decision("yes" if chosen == choice else "no", chosen)
    try:
        wanted = read(gold, policy.reading)
    except (MathError, RecursionError):
        return _unread(prediction, gold)
    decision = _against(prediction, gold, wanted, policy)
    if decision.kind == "yes" or (decision.kind == "no" and _letters(prediction) != _letters(gold)):
        return decision
    # Even a gold that contradicts itself, or whose comparison is out of reach, is what is written.
    if same_spelling(prediction, gold):
        return Decision("yes", spelling(prediction), voter="spelling")
    return decision


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text)


def _unread(prediction: str, gold: str) -> Decision:
    """What the way of writing says about a gold that is not read; the rest is left to others."""
    if same_spelling(prediction, gold):
        return Decision("yes", spelling(prediction), voter="spelling")
    if is_abstract(gold):
        return Decision("no", spelling(prediction), final=False, voter="spelling")
    return Decision("gold_unread")


def _against(prediction: str, gold: str, wanted: Answer, policy: MathPolicy) -> Decision:
    if len(prediction) <= MAX_CHARS and ("..." in prediction or "dots" in prediction or "…" in prediction):
        prediction = _CYCLE.sub(r"\1.\2\\overline{\3}", prediction)
    plain = _LIMIT.sub(" ", prediction) if "\\lim" in prediction else prediction
    if any(mark.search(plain) and not mark.search(gold) for mark in (_OPEN_ENDED, _DROPPED)):
        return Decision("unparsable")
    if _SECOND_LINE.search(prediction) and not _SECOND_LINE.search(gold) and "\\begin" not in prediction:
        return Decision("unparsable")
    try:
        given = read(prediction, policy.reading)
        result = same(wanted, given, policy)
        if result is not True and policy.thousands and lone_thousands(prediction) and not lone_thousands(gold):
            result = _as_list(prediction, gold, policy) or result
    except (OverLimitError, RecursionError):
        return Decision("over_limit")
    except UndefinedError:
        return Decision("no" if _defined(wanted) else "unknown", "undefined")
    except UnsupportedError:
        return Decision("unknown")
    except NotMathError:
        return Decision("unparsable")
    except MathError:
        return Decision("unknown")
    if result is None:
        return Decision("unknown")
    words = isinstance(given, Words) or isinstance(wanted, Words)
    return Decision("yes" if result else "no", show(given), final=not (words and not result))


def _as_list(prediction: str, gold: str, policy: MathPolicy) -> bool:
    """`100,200` against `(100, 200)`: the comma may have been one."""
    listed = policy.reading._replace(thousands=False)
    try:
        wanted, given = read(gold, listed), read(prediction, listed)
    except MathError:
        return False
    if not (isinstance(wanted, Listing) and isinstance(given, Listing)):
        return False
    return same(wanted, given, policy) is True


def _defined(answer: Answer) -> bool:
    try:
        return not isinstance(answer, Value) or answer.form is not None
    except MathError:
        return False


def _canonical_integer(text: str) -> str:
    digits = text.lstrip("+-").lstrip("0") or "0"
    return f"-{digits}" if text[0] == "-" and digits != "0" else digits


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _choice(gold: str) -> str | None:
    match = _CHOICE.fullmatch(_TEXT.sub(r"\1", gold).strip(" $."))
    return match[1] if match else None


def _chosen(prediction: str) -> str | None:
    """The one letter chosen; None where there is none, or a second one follows."""
    if len(prediction) > 2_000:
        return None
    match = _CHOSEN.fullmatch(_TEXT.sub(r"\1", prediction).strip(" $"))
    if not match or (match[1].islower() and "(" not in prediction):
        return None
    if match[2] and re.search(r"(?<![A-Za-z])[A-H](?![A-Za-z])|\bor\b", match[2]):
        return None
    return match[1].upper()


def _form_of(text: str, policy: MathPolicy) -> str | None:
    try:
        return show(read(text, policy.reading))
    except (MathError, RecursionError):
        return None


def show(answer: Answer) -> str | None:
    """The normal form of an answer for the record, short."""
    try:
        if isinstance(answer, Value):
            text = answer.form.key() if answer.form is not None else None
            return text if text is None or len(text) <= 200 else text[:200] + "..."
        if isinstance(answer, Listing):
            inner = ", ".join(show(i) or "?" for i in answer.items[:20])
            return f"{answer.opening}{inner}{answer.closing}"[:200]
        if isinstance(answer, Words):
            return answer.text[:200]
        if isinstance(answer, Relation):
            return f"{show(Value(answer.left))} {answer.op} {show(Value(answer.right))}"[:200]
    except MathError:
        return None
    return type(answer).__name__.lower()

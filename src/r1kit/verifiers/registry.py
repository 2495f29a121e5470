"""From the name of a kind to its judge, so that a file can say how its answers are to be judged.

`make_judge(kind, gold, policy)` takes plain JSON, refuses what the kind cannot use before anything is judged, and
returns `judge(prediction, opened=False) -> Verdict`. A prediction is a bare answer or a whole response: a thought is
taken off first, and one that never closes holds no answer. `opened`: the prompt had opened `<think>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

from r1kit.config.suggest import nearest
from r1kit.records import Verdict
from r1kit.verifiers.choice import LETTERS, judge_choice
from r1kit.verifiers.exact import VERBATIM, ExactPolicy, judge_exact, judge_regex
from r1kit.verifiers.expression import judge_expression, judge_integer
from r1kit.verifiers.instructions import judge_instructions
from r1kit.verifiers.knights_knaves import judge_knights_knaves
from r1kit.verifiers.reasoning_gym import judge_entry
from r1kit.verifiers.tags import find_answer

Policy = Mapping[str, Any]
Finder = Callable[[str, bool], str | None]

# A response rather than a bare answer: this many words, and a sentence or a line that ends before the text does.
PROSE_WORDS = 8
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[\u4e00-\u9fff]{2}")
_BREAK = re.compile(r"[.!?]\s+\S|[。！？]\s*\S|\n\s*\S")
_END = re.compile(r"[.!?]\s+|[。！？\n]")
_FORMULA = re.compile(r"\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+\s*(?:\{[^{}]*\})?", re.DOTALL)


class KindError(ValueError):
    """A kind, gold or policy that cannot be used; the message says what was expected and what was found."""


class Judge(Protocol):
    def __call__(self, prediction: str, opened: bool = False) -> Verdict: ...


def make_judge(kind: str, gold: Any, policy: Policy | None = None) -> Judge:
    """The judge of one problem. KindError where the kind is unknown, or gold or policy are not of its shape."""
    if kind not in KINDS:
        raise KindError(f"kind is {kind!r}{nearest(str(kind), KINDS)}: expected one of {', '.join(KINDS)}")
    if not isinstance(policy or {}, Mapping):
        raise KindError(f"policy is {policy!r}: expected an object")
    try:
        return KINDS[kind](gold, policy or {})
    except KindError:
        raise
    except ValueError as error:  # the errors of a kind's own policy and problem classes
        raise KindError(str(error)) from None


def _judge(find: Finder, decide: Callable[[str], Verdict]) -> Judge:
    def judge(prediction: str, opened: bool = False) -> Verdict:
        text = find(prediction, opened)
        return Verdict.scored(0, "no_answer") if text is None else decide(text)

    return judge


def final_text(response: str, opened: bool) -> str | None:
    """What follows the thought; of that the `<answer>` block, where there is one."""
    text = f"<think>{response}" if opened else response
    _, closed, tail = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return None
    return find_answer(tail) if "<answer>" in tail else tail.strip()


def text_gold(gold: Any) -> str:
    """A gold that is text; a number is its text, null is empty (a skip), a list of one is its item."""
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if gold is None or (isinstance(gold, str | int | float) and not isinstance(gold, bool)):
        return "" if gold is None else str(gold)
    raise KindError(f"gold is {_shown(gold)}: expected text or a number")


def _math(gold: Any, policy: Policy) -> Judge:
    from r1kit.verifiers.math import judge_math, verify_math

    wanted, rules = text_gold(gold), _math_policy(tuple(policy.items()))
    always_response = rules.strict or rules.answer != "any"

    def judge(prediction: str, opened: bool = False) -> Verdict:
        if always_response or opened or "<think>" in prediction or "</think>" in prediction:
            return verify_math(prediction, wanted, rules, opened=opened)
        verdict = judge_math(prediction, wanted, rules)
        return verdict if verdict.correct or not concludes(prediction) else verify_math(prediction, wanted, rules)

    return judge


@lru_cache(maxsize=256)
def _math_policy(items: tuple[tuple[str, Any], ...]) -> Any:
    from r1kit.verifiers.math import MathPolicy

    return MathPolicy.from_dict(dict(items))


def concludes(text: str) -> bool:
    """True for several sentences that end in one with a number or formula: a response without any mark.

    False for a bare answer, be it several words or a formula of several lines, and for a text that says something else
    in the end ("... 41, 42. I cannot tell which").
    """
    text = text[-20_000:].strip()
    plain = _FORMULA.sub(" ", text)
    last = _END.split(text.rstrip(".。!！"))[-1]
    prose = _BREAK.search(plain) is not None and len(_WORD.findall(plain)) >= PROSE_WORDS
    return prose and re.search(r"[\d$]|\\[(\[]", last) is not None


def _choice(gold: Any, policy: Policy) -> Judge:
    letters = text_gold(gold)
    _known("choice", policy, ("options",))
    options, texts = policy.get("options"), ()
    if isinstance(options, list) and all(isinstance(o, str) for o in options):
        texts, options = tuple(options), len(options)
    if options is None:
        options = max([4, *(LETTERS.index(c) + 1 for c in letters.upper() if c in LETTERS)])
    if type(options) is not int or not 2 <= options <= len(LETTERS):
        raise KindError(f"choice policy: options is {options!r}: expected their number, 2 to 26, or a list of texts")
    return _judge(final_text, lambda text: judge_choice(text, letters, options=options, texts=texts))


def _exact(gold: Any, policy: Policy) -> Judge:
    golds = gold if isinstance(gold, list) and all(isinstance(g, str) for g in gold) else [text_gold(gold)]
    rules = _exact_policy("exact", policy, ExactPolicy())

    def decide(text: str) -> Verdict:
        whole = judge_exact(text, golds, rules)
        marked = None if whole.correct else _marked(text)
        return whole if marked is None else judge_exact(marked, golds, rules)

    return _judge(final_text, decide)


def _marked(text: str) -> str | None:
    """The answer that a box, `#### ` or an `Answer:` line marks; None where nothing does."""
    from r1kit.verifiers.math import DEFAULT_POLICY, extract

    found = extract(text, DEFAULT_POLICY)
    return found.text if found is not None and found.where in ("boxed", "hashes", "line") else None


def _regex(gold: Any, policy: Policy) -> Judge:
    pattern = text_gold(gold)
    anywhere = policy.get("anywhere", False)
    if not isinstance(anywhere, bool):
        raise KindError(f"regex policy: anywhere is {anywhere!r}: expected true or false")
    rest = {key: value for key, value in policy.items() if key != "anywhere"}
    rules = _exact_policy("regex", rest, VERBATIM)
    return _judge(final_text, lambda text: judge_regex(text, pattern, policy=rules, anywhere=anywhere))


def _countdown(gold: Any, policy: Policy) -> Judge:
    _known("countdown", policy, ("strict",))
    numbers, target = countdown_gold(gold)
    strict = policy.get("strict", True)
    if not isinstance(strict, bool):
        raise KindError(f"countdown policy: strict is {strict!r}: expected true or false")

    def judge(prediction: str, opened: bool = False) -> Verdict:
        if strict and prediction.rpartition("</answer>")[2].strip() and "</answer>" in prediction:
            return Verdict.scored(0, "unparsable", extracted=prediction[-200:], voter="expression")
        text = final_text(prediction, opened)
        return Verdict.scored(0, "no_answer") if text is None else judge_expression(text, numbers, target)

    return judge


def countdown_gold(gold: Any) -> tuple[list[int], int]:
    """Numbers and target of `{"numbers": [3, 5, 6], "target": 13}`; "nums", as in the published rows, is the same."""
    row = gold if isinstance(gold, Mapping) else {}
    numbers, target = row.get("numbers", row.get("nums")), row.get("target")
    if not isinstance(numbers, list) or not numbers or any(type(n) is not int for n in (*numbers, target)):
        raise KindError(f'gold is {_shown(gold)}: expected {{"numbers": [3, 5, 6], "target": 13}} of whole numbers')
    return numbers, target  # type: ignore[return-value]


def _integer(gold: Any, policy: Policy) -> Judge:
    _known("integer", policy, ())
    text = text_gold(gold)
    if not re.fullmatch(r"-?\d{1,1000}", text):
        raise KindError(f"gold is {_shown(gold)}: expected a whole number")
    return _judge(final_text, lambda answer: judge_integer(answer, int(text)))


def _code(gold: Any, policy: Policy) -> Judge:
    from r1kit.sandbox import shared_limits, shared_sandbox
    from r1kit.verifiers.code import CodeProblem, verify_code

    _known("code", policy, ())
    problem = gold if isinstance(gold, CodeProblem) else CodeProblem.from_json(gold)
    problem, sandbox = problem.with_limits(**shared_limits()), shared_sandbox()
    return lambda prediction, opened=False: verify_code(prediction, problem, sandbox, opened=opened)


def _knights_knaves(gold: Any, policy: Policy) -> Judge:
    _known("knights_knaves", policy, ())
    row = _object(gold, "names", "statements")
    return _judge(final_text, lambda text: judge_knights_knaves(text, row["names"], row["statements"]))


def _instructions(gold: Any, policy: Policy) -> Judge:
    _known("instructions", policy, ("loose", "partial"))
    if not all(isinstance(value, bool) for value in policy.values()):
        raise KindError(f"instructions policy: {_shown(dict(policy))}: expected true or false")
    row = _object(gold, "kinds", "kwargs")
    return _judge(final_text, lambda text: judge_instructions(text, row["kinds"], row["kwargs"], **policy))


def _reasoning_gym(gold: Any, policy: Policy) -> Judge:
    _known("reasoning_gym", policy, ())
    if not isinstance(gold, Mapping):
        raise KindError(f"gold is {_shown(gold)}: expected the payload of an entry")
    return _judge(final_text, lambda text: judge_entry(text, gold))


KINDS: Mapping[str, Callable[[Any, Policy], Judge]] = {
    "math": _math,
    "choice": _choice,
    "exact": _exact,
    "regex": _regex,
    "countdown": _countdown,
    "integer": _integer,
    "code": _code,
    "knights_knaves": _knights_knaves,
    "instructions": _instructions,
    "reasoning_gym": _reasoning_gym,
}


def _known(kind: str, row: Policy, known: Sequence[str]) -> None:
    for key in row:
        if key not in known:
            fields_are = f"its fields are {', '.join(known)}" if known else "it has none"
            raise KindError(f"{kind} policy: no field {key!r}{nearest(str(key), known)}; {fields_are}")


def _exact_policy(kind: str, row: Policy, base: ExactPolicy) -> ExactPolicy:
    hints = get_type_hints(ExactPolicy)
    _known(kind, row, [f.name for f in fields(ExactPolicy)])
    for key, value in row.items():
        allowed = get_args(hints[key]) if get_origin(hints[key]) is Literal else (True, False)
        if not any(value is a or (isinstance(value, str) and value == a) for a in allowed):
            expected = ", ".join(map(str, allowed)).lower()
            raise KindError(f"{kind} policy: {key} is {value!r}: expected one of {expected}")
    return ExactPolicy(**{f.name: row.get(f.name, getattr(base, f.name)) for f in fields(ExactPolicy)})


def _object(gold: Any, *names: str) -> Mapping[str, Any]:
    if not isinstance(gold, Mapping) or not all(isinstance(gold.get(name), list | str) for name in names):
        raise KindError(f"gold is {_shown(gold)}: expected an object with lists {' and '.join(names)}")
    return gold


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."

"""From a checked item of a data file to a `Problem`: the prompt, the payload to judge by, a right answer as witness."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.records import Problem
from r1kit.tasks.check_data import MAX_VALUES, bare_math, reference_sources
from r1kit.tasks.columns import Item
from r1kit.tasks.question_prompts import Prompter
from r1kit.tasks.search import render, witness
from r1kit.tasks.templates import countdown_question
from r1kit.verifiers.choice import LETTERS, permute_options
from r1kit.verifiers.knights_knaves import solve
from r1kit.verifiers.registry import countdown_gold, text_gold

# Options that speak of other options, or of their place, stay where they are.
_FIXED = re.compile(
    r"\b(?:all|none|both|neither|either|any|two|some) of (?:the |these|them)|\b(?:above|below|former|latter)\b"
    r"|\b(?:both|neither|either|only) \(?[A-Z]\)?(?: (?:and|or|nor)\b|$)|^\(?[A-Z]\)? (?:and|or) \(?[A-Z]\)?\.?$"
    r"|以上|都(?:对|错|是|不)",
    re.IGNORECASE,
)
_LABEL = r"\s*\(?{}\s*[).:、．]\s*"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a kind makes of an item. `letters`: of the options; `witness`: a right answer, where one is known; `order`:
    the options' places in the file."""

    question: str
    gold: Any
    policy: Mapping[str, Any]
    witness: str | None
    letters: str = ""
    order: tuple[int, ...] = ()


def problem_of(
    item: Item, prompter: Prompter, settings: Any, *, kind: str, id: str, source: str, **rest: Any
) -> Problem:
    """The problem of an item of `kind`, of a file named `source`. `rest`: family, split and difficulty.

    Answers of kind "own" are judged by a function of the user's, which finds the whole row in the payload.
    """
    shuffle = f"{settings.seed}:{id}" if kind == "choice" and settings.permute else ""
    asked = _asked(item, kind, {**settings.policy, **item.policy}, shuffle)
    prompt, place = prompter(asked.question, asked.letters), item.row.place
    metadata = {
        "template": prompter.template,
        "format": prompter.shape,
        "file": place.rpartition(":")[0].replace("\\", "/").rpartition("/")[2],
        "line": item.row.number,
        "witness": asked.witness,
        "order": asked.order,
    }
    payload = {"kind": kind, "gold": asked.gold, "policy": asked.policy}
    return Problem(
        id=id,
        prompt=prompt.messages,
        prefill=prompt.prefill,
        task=settings.name,
        payload=payload | ({"row": _json(item.row.data)} if kind == "own" else {}),
        source=source,
        metadata={name: value for name, value in metadata.items() if value not in (None, ())},
        **rest,
    )


def _asked(item: Item, kind: str, policy: Mapping[str, Any], shuffle: str) -> Asked:
    gold, question = item.gold, item.question
    if kind == "choice" and isinstance(policy.get("options"), list):
        return _choice(question, text_gold(gold), policy, shuffle)
    if kind == "countdown":
        numbers, target = countdown_gold(gold)
        return Asked(question or countdown_question(numbers, target), gold, policy, _expression(item, numbers, target))
    if kind == "code":
        return _code(item, policy)
    if kind == "knights_knaves":
        said = zip(gold["names"], solve(gold["statements"])[0], strict=True)
        return Asked(question, gold, policy, ", ".join(f"{n} is a {'knight' if k else 'knave'}" for n, k in said))
    known = kind in ("math", "exact", "integer", "choice", "own") and gold is not None
    first = gold[0] if isinstance(gold, list) and gold else gold
    right = (bare_math(first) if kind == "math" else str(first)) if known else None
    letters = LETTERS[: policy.get("options", 4)] if kind == "choice" else ""
    return Asked(question, gold, policy, right, letters)


def _choice(question: str, gold: str, policy: Mapping[str, Any], shuffle: str) -> Asked:
    """The options under their letters, in an order drawn from `shuffle`; in the file's where it is empty, or where an
    option speaks of others."""
    texts = _unlabelled(policy["options"])
    letters = sorted({c for c in gold.upper() if c in LETTERS})
    right = [LETTERS.index(letter) for letter in letters]
    order = tuple(range(len(texts)))
    if shuffle and not any(_FIXED.search(text) for text in texts):
        order = permute_options(texts, right[0], seed=0, key=shuffle).order
    shown = [texts[i] for i in order]
    answer = "".join(sorted(LETTERS[order.index(i)] for i in right))
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, shown, strict=False))
    asked = f"{question}\n\n{listed}"
    return Asked(asked, answer, {**policy, "options": shown}, answer, LETTERS[: len(shown)], order)


def _unlabelled(texts: Sequence[str]) -> list[str]:
    """Options without labels of their own ("A) 5", "(B) 6"), where all have them in order."""
    plain = [re.sub(_LABEL.format(letter), "", text, count=1) for letter, text in zip(LETTERS, texts, strict=False)]
    marked = all(re.match(_LABEL.format(letter), text) for letter, text in zip(LETTERS, texts, strict=False))
    return plain if marked and all(plain) else list(texts)


def _expression(item: Item, numbers: Sequence[int], target: int) -> str | None:
    """The row's own expression, else one found by search (its golds are checked: there is one)."""
    if isinstance(item.reference, str):
        return item.reference
    for most in MAX_VALUES:
        found = witness(tuple(sorted(numbers)), target, max(most, target, *numbers))
        if found is not None:
            return render(found)
    return None


def _code(item: Item, policy: Mapping[str, Any]) -> Asked:
    from r1kit.verifiers.code import LANGUAGES, CodeProblem
    from r1kit.verifiers.code.judge import completed

    problem = item.gold if isinstance(item.gold, CodeProblem) else CodeProblem.from_json(item.gold)
    sources = reference_sources(item.reference)
    fence = LANGUAGES[problem.language].fences[0]
    shown = f"```{fence}\n{completed(sources[0], problem).strip(chr(10))}\n```" if sources else None
    return Asked(item.question, problem.to_json(), policy, shown)


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))

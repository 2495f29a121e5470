"""Instruction following: the 25 checkable kinds of IFEval, strict and loose.

Strict looks at the response as it is. Loose accepts it where one of eight readings passes: without its first line,
without its last line, without both, each with and without asterisks, so that "Sure, here it is:" costs nothing.
The caller passes the final answer: a thought is no part of what the user asked to see.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1kit.records import Verdict
from r1kit.verifiers.instructions.checks import CHECKS, InstructionError

__all__ = ["CHECKS", "InstructionError", "check_instruction", "judge_instructions"]

_TYPES: Mapping[str, type] = {"int": int, "str": str}


def check_instruction(
    response: str, kind: str, kwargs: Mapping[str, Any] | None = None, *, loose: bool = False
) -> bool:
    """True where `response` follows one instruction; InstructionError where the instruction cannot be checked."""
    arguments = _arguments(kind, kwargs or {})
    check = CHECKS[kind]
    texts = _readings(response) if loose else (response,)
    check("-", **arguments)  # an instruction that makes no sense says so whatever the response is
    return any(text.strip() and check(text, **arguments) for text in texts)


def judge_instructions(
    response: str,
    kinds: Sequence[str],
    kwargs: Sequence[Mapping[str, Any]],
    *,
    loose: bool = False,
    partial: bool = False,
) -> Verdict:
    """Score 1 where every instruction is followed, else 0; with `partial`, the share of those that are.

    `normal_form` names those not followed. An instruction that cannot be checked makes the whole problem a skip.
    """
    started = time.perf_counter()
    voter = "ifeval-loose" if loose else "ifeval-strict"
    try:
        if not kinds or len(kinds) != len(kwargs):
            raise InstructionError(f"{len(kinds)} instructions with {len(kwargs)} sets of arguments")
        followed = [check_instruction(response, k, a, loose=loose) for k, a in zip(kinds, kwargs, strict=True)]
    except InstructionError as error:
        return Verdict("skip", None, "gold_invalid", normal_form=str(error), voter=voter)
    missed = ", ".join(kind for kind, good in zip(kinds, followed, strict=True) if not good)
    score = sum(followed) / len(followed) if partial else float(not missed)
    reason = "no_answer" if not response.strip() else "wrong" if missed else "correct"
    seconds = time.perf_counter() - started
    return Verdict.scored(score, reason, normal_form=missed, voter=voter, seconds=seconds)


def _readings(response: str) -> Iterator[str]:
    lines = response.split("\n")
    for reading in (lines, lines[1:], lines[:-1], lines[1:-1]):
        text = "\n".join(reading).strip()
        yield text
        yield text.replace("*", "")


def _arguments(kind: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a kind, None dropped (some editions of the data name every argument), types checked."""
    if kind not in CHECKS:
        raise InstructionError(f"instruction {kind!r} is not known: expected one of {', '.join(CHECKS)}")
    given = {name: value for name, value in kwargs.items() if value is not None}
    wanted = {name: p for name, p in inspect.signature(CHECKS[kind]).parameters.items() if name != "text"}
    if set(given) != set(wanted):
        raise InstructionError(f"{kind} has arguments {sorted(given)}: expected {sorted(wanted)}")
    for name, parameter in wanted.items():
        value, expected = given[name], str(parameter.annotation)
        if expected == "int" and isinstance(value, float) and value.is_integer():
            given[name] = value = int(value)  # what pandas makes of a column with gaps
        kind_of = _TYPES.get(expected)
        good = isinstance(value, kind_of) and not isinstance(value, bool) if kind_of else _strings(value)
        if not good or value in ("", []):
            raise InstructionError(f"{kind}: {name} is {value!r}, expected {expected}")
    return given


def _strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)

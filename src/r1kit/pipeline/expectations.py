"""`expect:` of a recipe: what must hold at the end, checked against the records of the stages."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.config.errors import ConfigError
from r1kit.config.schema import EXPECTATION

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Expectation:
    """One condition and what was found; `found` is None where the stage has no such metric."""

    text: str
    found: float | None
    ok: bool
    known: tuple[str, ...] = ()

    def sentence(self) -> str:
        if self.found is None:
            return f"expected {self.text}: no such metric; the stage has {', '.join(self.known)}"
        return f"expected {self.text}: found {self.found:.4g}, {'holds' if self.ok else 'does not hold'}"


def check_expectations(expect: Sequence[str], records: Mapping[str, Mapping[str, Any]]) -> list[Expectation]:
    """Each condition against the stage records (by name). NaN satisfies nothing."""
    results = []
    for text in expect:
        match = EXPECTATION.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f'expect {text!r}: expected "stage.metric >= number", such as "final.pass@1 >= 0.45"')
        numbers = stage_numbers(records.get(match[1], {}))
        found = numbers.get(match[2])
        ok = found is not None and _OPERATORS[match[3]](found, float(match[4]))
        results.append(Expectation(text.strip(), found, ok, tuple(numbers)))
    return results


def stage_numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a stage record as `expect:` names them: pass@1, pass@8, truncated, tokens.sampled ..."""
    numbers: dict[str, float] = {}
    for key, value in (record.get("eval") or {}).items():
        if key == "pass@k":
            numbers.update({f"pass@{k}": float(v) for k, v in value.items()})
        elif isinstance(value, Mapping):
            numbers.update({key: float(value["value"])} if _number(value.get("value")) else {})
        elif _number(value):
            numbers[key] = float(value)
    for key, value in (record.get("metrics") or {}).items():
        if _number(value):
            numbers.setdefault(key, float(value))
    numbers.update({f"tokens.{key}": float(value) for key, value in (record.get("tokens") or {}).items()})
    numbers.update({key: float(record[key]) for key in ("seconds", "cpu_seconds") if _number(record.get(key))})
    return numbers


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

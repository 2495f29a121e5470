"""Default policies, checked before any file is read. On the command line: `units=drop`, or `exact.case=true`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.config.errors import UserError
from r1kit.config.yaml_source import parse_scalar
from r1kit.verifiers.registry import KINDS, KindError, make_judge

# A gold that each kind takes, to have its policy checked before any file is read.
_SAMPLE = {
    "math": "1",
    "choice": "A",
    "exact": "a",
    "regex": "a",
    "countdown": {"numbers": [1], "target": 1},
    "instructions": {"kinds": [], "kwargs": []},
}


def read_policies(settings: Sequence[str], kind: str | None) -> dict[str, dict[str, Any]]:
    """Policies by kind. UserError where a setting is not KEY=VALUE or not one of its kind."""
    policies: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        owner, dot, key = name.partition(".")
        owner, key = (owner, key) if dot else (kind or "math", owner)
        if not equals or not key:
            raise UserError(f"--policy {setting}: expected KEY=VALUE or KIND.KEY=VALUE")
        if owner not in _SAMPLE:
            raise UserError(f"--policy {setting}: kind {owner} has no policy; {', '.join(_SAMPLE)} have")
        policies.setdefault(owner, {})[key] = parse_scalar(text, f"--policy {setting}")
    for owner, policy in policies.items():
        assert owner in KINDS
        check_policy(owner, policy, "--policy")
    return policies


def check_policy(kind: str, policy: Mapping[str, Any], place: str) -> None:
    """UserError, beginning with `place`, where a kind does not take this policy."""
    if kind not in _SAMPLE:
        if policy:
            raise UserError(f"{place}: kind {kind} has no policy; {', '.join(_SAMPLE)} have")
        return
    try:
        make_judge(kind, _SAMPLE[kind], policy)
    except KindError as error:
        raise UserError(f"{place}: {error}") from None

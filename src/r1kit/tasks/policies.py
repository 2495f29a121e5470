"""Default policies from the command line: `units=drop`, or `exact.case=true` for another kind than the file's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.config.errors import UserError
from r1kit.config.yaml_source import parse_scalar
from r1kit.verifiers.registry import KINDS, KindError, make_judge

# A gold that each kind takes, to have its policy checked before any file is read.
_SAMPLE = {"math": "1", "choice": "A", "exact": "a", "regex": "a", "countdown": {"numbers": [1], "target": 1}}


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
        try:
            make_judge(owner, _SAMPLE[owner], policy)
        except KindError as error:
            raise UserError(f"--policy: {error}") from None
    return policies

"""± in a tree: the one or two trees it stands for."""

from __future__ import annotations

from typing import Any

from r1kit.verifiers.math.parser import Node


def expand_signs(node: Node) -> list[Node]:
    """All upper signs, then all lower signs; the tree itself where it has no ±."""
    if not _has_sign(node):
        return [node]
    return [_choose(node, 1), _choose(node, -1)]


def _has_sign(node: Any) -> bool:
    if isinstance(node, tuple) and node and node[0] == "pm":
        return True
    return isinstance(node, (tuple, list)) and any(_has_sign(n) for n in node if isinstance(n, (tuple, list)))


def _choose(node: Any, sign: int) -> Any:
    if isinstance(node, list):
        return [_choose(n, sign) for n in node]
    if not isinstance(node, tuple):
        return node
    if node and node[0] == "pm":
        inner = _choose(node[1], sign)
        return inner if node[2] * sign > 0 else ("neg", inner)
    return tuple(_choose(n, sign) if isinstance(n, (tuple, list)) else n for n in node)

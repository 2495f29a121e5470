"""Wrong programs made from right ones, one small change each, in a fixed order."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

_COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
_BINARY |= {ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr}


def mutants(source: str) -> list[str]:
    """Every program that differs from `source` in one operator, constant, condition or returned value."""
    tree = ast.parse(source)
    found = []
    for i, node in enumerate(ast.walk(tree)):
        for change in range(len(list(_changes(node)))):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[i]
            for at, apply in enumerate(_changes(target)):
                if at == change:
                    apply()
            found.append(ast.unparse(ast.fix_missing_locations(changed)))
    return [m for m in dict.fromkeys(found) if m != ast.unparse(tree)]


def _changes(node: ast.AST) -> Iterator:  # type: ignore[type-arg]
    """The changes that can be made to one node, each as a function that makes it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        yield lambda: node.ops.__setitem__(0, _COMPARE[type(node.ops[0])]())
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _BINARY:
        yield lambda: setattr(node, "op", _BINARY[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield lambda: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        yield lambda: setattr(node, "value", not node.value if isinstance(node.value, bool) else node.value + 1)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield lambda: setattr(node, "value", ast.Tuple([node.value], ast.Load()))

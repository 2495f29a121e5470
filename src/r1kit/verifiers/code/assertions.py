"""Test programs made of assertions (HumanEval, MBPP, LeetCode), read on the host without running them.

Most assertions are `f(literals) == literal`: those become plain calls whose expected values stay here. A program with
anything else (loops, tolerances, helpers, random inputs) is rewritten for `inside/driver.py`, which runs it in a
sandbox.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


class TestProgramError(ValueError):
    """The test program is not Python, or asserts nothing."""

    __test__ = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """One assertion `f(*args, **kwargs) == expected`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Any
    line: int


@dataclass(frozen=True, slots=True)
class TestProgram:
    """A test program as the judge uses it. `expectations` is not None exactly where every assertion is a plain
    comparison; else `program` is to be run by the driver, with stand-ins for `names` (what the program uses and neither
    it nor the prelude defines) and with `classes` of the prelude travelling as records.
    """

    __test__ = False

    expectations: tuple[Expectation, ...] | None
    program: str
    names: tuple[str, ...]
    classes: tuple[str, ...]


@lru_cache(maxsize=4096)
def read_test_program(program: str, prelude: str, reference: str, entry_point: str) -> TestProgram:
    """Parse `program`. A function `check(candidate)` in it is called; without one, its assertions name the entry point.

    TestProgramError where it does not parse or holds no assertion.
    """
    tree, before = _parse(program, "tests"), _parse(f"{prelude}\n{reference}", "prelude and reference")
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    if not asserts:
        raise TestProgramError("tests: no assertion in it")
    check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    subject = "candidate" if check else entry_point.split(".")[0].removesuffix("()")
    body = _body(tree, check)
    plain = [_expectation(statement, subject) for statement in body] if body is not None else [None]
    expectations = None if None in plain else tuple(e for e in plain if isinstance(e, Expectation))
    if check:
        tree.body.append(ast.parse("check(candidate)").body[0])
    names = _free_names(tree, _defined(before) | {"candidate", "__assertion__"})
    _refuse_helpers(tree, names, subject)
    classes = tuple(n.name for n in before.body if isinstance(n, ast.ClassDef))
    marked = ast.unparse(ast.fix_missing_locations(_MarkAssertions().visit(tree)))
    return TestProgram(expectations or None, marked, names, classes)


def _parse(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise TestProgramError(f"{name}: not Python: {error}") from None


def _body(tree: ast.Module, check: ast.FunctionDef | None) -> Sequence[ast.stmt] | None:
    """The statements that assert: those of `check` where it stands alone (but for METADATA), else the module's."""
    if check is None:
        return tree.body
    alone = all(n is check or (isinstance(n, ast.Assign) and _literal(n.value) is not _NOT_LITERAL) for n in tree.body)
    return check.body if alone and len(check.args.args) == 1 else None


_NOT_LITERAL = object()


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return _NOT_LITERAL


def _expectation(statement: ast.stmt, subject: str) -> Expectation | bool | None:
    """The expectation a statement states; True where it states nothing (`assert True`, a docstring); None where it is
    more than a plain comparison.
    """
    if isinstance(statement, ast.Expr | ast.Pass) and not isinstance(getattr(statement, "value", None), ast.Call):
        return True if not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Constant) else None
    if not isinstance(statement, ast.Assert):
        return None
    test = statement.test
    if isinstance(test, ast.Constant):
        return True if test.value else None
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return None
    call = test.left
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == subject):
        return None
    args = [_literal(a) for a in call.args]
    kwargs = {k.arg: _literal(k.value) for k in call.keywords if k.arg is not None}
    expected = _literal(test.comparators[0])
    known = len(kwargs) == len(call.keywords) and all(
        x is not _NOT_LITERAL for x in (*args, *kwargs.values(), expected)
    )
    return Expectation(tuple(args), kwargs, expected, statement.lineno) if known else None


def _defined(tree: ast.AST) -> set[str]:
    """Names a program binds anywhere: assignments, definitions, imports, arguments."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((a.asname or a.name).split(".")[0] for a in node.names)
    return names


def _free_names(tree: ast.AST, known: set[str]) -> tuple[str, ...]:
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return tuple(sorted(used - known - _defined(tree) - set(dir(builtins))))


def _refuse_helpers(tree: ast.AST, names: Sequence[str], subject: str) -> None:
    """A function that nobody defines would be the candidate's, asked whether it is right and told what is.

    Its classes may be named, as problems about trees and lists do; a class is told by its capital.
    """
    for call in ast.walk(tree):
        name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else subject
        if name in names and name != subject and not name[:1].isupper():
            raise TestProgramError(
                f"tests: {name!r} is defined nowhere; define it in the tests or the prelude, a candidate may not judge"
            )


class _MarkAssertions(ast.NodeTransformer):
    """`assert x` -> `with __assertion__(line): assert x`."""

    def visit_Assert(self, node: ast.Assert) -> ast.With:
        mark = ast.Call(ast.Name("__assertion__", ast.Load()), [ast.Constant(node.lineno)], [])
        return ast.With([ast.withitem(mark)], [node])

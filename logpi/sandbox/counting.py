"""Rewrites tests so that they count each check that runs, and report a failed assertion even if the
tests catch its exception.

    assert x == 1, m      →   if not __check__(value=x == 1): raise AssertionError(m)
    if f(): raise E       →   __count__(); if f(): raise E

Inside a `try` that catches any exception, an assertion that raises another one has failed too:
`__check__(begun=__begin__(), value=x == 1)`. Left out: which statements are checks (`checks.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Set
from typing import Any

from logpi.sandbox.checks import fails, is_check, is_false
from logpi.sandbox.names import last_name

# the names by which instrumented tests report
BEGIN, CHECK, COUNT = "__begin__", "__check__", "__count__"


class Counting(ast.NodeTransformer):
    """Rewrites tests so that they report.

    Args:
        own: functions that the tests define.
    """

    def __init__(self, own: Set[str] = frozenset()) -> None:
        self.own, self.swallowed = own, False

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, ast.stmt):
            return self.generic_visit(node)
        check, outside = is_check(node, self.own), self.swallowed
        self.swallowed = outside or _swallows(node)
        self.generic_visit(node)
        self.swallowed = outside
        if isinstance(node, ast.Assert):
            return self._assert(node) if check or is_false(node.test) else node
        if not check:
            return node
        return [_at(ast.Expr(ast.Call(ast.Name(COUNT, ast.Load()), [], [])), node), node]

    def _assert(self, node: ast.Assert) -> ast.stmt:
        begin = ast.keyword("begun", ast.Call(ast.Name(BEGIN, ast.Load()), [], []))
        given = [*([begin] if self.swallowed else []), ast.keyword("value", node.test)]
        test = ast.UnaryOp(ast.Not(), ast.Call(ast.Name(CHECK, ast.Load()), [], given))
        error = ast.Call(ast.Name("AssertionError", ast.Load()), [node.msg] if node.msg else [], [])
        return _at(ast.If(test, [ast.Raise(error)], []), node)


def _swallows(node: ast.AST) -> bool:
    """Whether a `try` continues after any exception by accident. One with `else` means to."""
    if not isinstance(node, ast.Try) or node.orelse or any(fails(s) for s in node.body):
        return False
    return any(
        h.type is None or last_name(h.type) in ("Exception", "BaseException") for h in node.handlers
    )


def _at(new: ast.stmt, old: ast.stmt) -> ast.stmt:
    return ast.fix_missing_locations(ast.copy_location(new, old))

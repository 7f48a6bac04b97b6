"""Finds the statements of tests that check something, and refuses, before anything runs, tests that
check nothing (`fault`).

    assert f(1) == 2           a check         assert True, assert (f(1), 2)   none: always true
    if f(1) != 2: raise …      a check         f(1) == 2, print(f(1))          none: decides nothing
    self.assertEqual(f(1), 2)  a check         def g(): assert …               one if g is called

Every program would pass a test with no reachable check, so such a test is refused. Left out: the
quality of a check, and counting checks while they run (`counting.py`).
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator, Set
from typing import Any

from logpi.sandbox.names import DEFINITIONS, FUNCTIONS, free_names, last_name

# the verdict's mark of a program that forged an answer
FORGED = "forged"
_LEAVING = {"exit", "quit", "_exit", "fail", "abort"}


# --- single statements ---


def _constant(node: ast.AST) -> bool:
    """Whether an expression depends on no name but `self`."""
    names = (
        n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute | ast.Call | ast.Await)
    )
    return all(isinstance(n, ast.Name) and n.id == "self" for n in names)


def _holds_anyway(test: ast.expr) -> bool:
    """Whether an expression is true, or the same, for every program."""
    # `assert (f(1) == 2, "message")` is always true
    if isinstance(test, ast.Tuple | ast.List | ast.Dict | ast.Set):
        return True
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any((_constant(v) and not is_false(v)) or _holds_anyway(v) for v in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        same = ast.dump(test.left) == ast.dump(test.comparators[0])
        return same and not any(_may_differ(n) for n in ast.walk(test))
    return _constant(test) or isinstance(test, ast.Lambda)


def _may_differ(node: ast.AST) -> bool:
    """Whether a node may have another value the second time: a call of a method, of `next`, or of a
    class with an equality of its own."""
    name = last_name(node)
    return isinstance(node, ast.Call) and (
        isinstance(node.func, ast.Attribute) or name == "next" or name[:1].isupper()
    )


def is_false(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and not test.value


def fails(statement: ast.stmt) -> bool:
    """Whether a statement always fails. Then the check is the branch that leads to it."""
    if isinstance(statement, ast.Assert):
        return is_false(statement.test)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return last_name(statement.value) in _LEAVING
    return isinstance(statement, ast.Raise)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        yield getattr(statement, field, [])
    for handler in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield handler.body


def _heads(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement without the statements inside it."""
    for field, value in ast.iter_fields(statement):
        if field not in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from (
                v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)
            )


def _calls(statement: ast.stmt) -> Iterator[ast.Call]:
    for head in _heads(statement):
        yield from (n for n in ast.walk(head) if isinstance(n, ast.Call))


def is_check(statement: ast.stmt, own: Set[str] = frozenset()) -> bool:
    """Whether a statement, without those inside it, can fail because of the program.

    Args:
        own: the names that the tests define.
    """
    if isinstance(statement, DEFINITIONS):
        return False
    if isinstance(statement, ast.Assert):
        return not _holds_anyway(statement.test)
    branches = isinstance(statement, ast.If | ast.Try | ast.Match | ast.While)
    if branches and any(fails(s) for block in _blocks(statement) for s in block):
        return not (isinstance(statement, ast.If | ast.While) and _constant(statement.test))
    for call in _calls(statement):
        name = last_name(call)
        asserts = name.startswith("assert") and name not in own
        # `with self.assertLogs():` checks without arguments
        depends = isinstance(statement, ast.With) or not all(map(_constant, call.args))
        if name == "raises" or (asserts and depends):
            return True
    return False


# --- which statements run ---


def _is_case(node: ast.ClassDef) -> bool:
    return any(last_name(base).endswith("TestCase") for base in node.bases)


def collected(tree: ast.Module) -> list[ast.stmt]:
    """The statements that a test runner would call: unittest's and pytest's classes, and functions
    `test_…` that the text does not call."""
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}

    def runs(node: ast.stmt) -> bool:
        if isinstance(node, ast.ClassDef):
            return _is_case(node) or node.name.startswith("Test")
        return (
            isinstance(node, FUNCTIONS) and node.name.startswith("test") and node.name not in used
        )

    return [node for node in tree.body if runs(node)]


def _starts(node: ast.stmt) -> Iterator[ast.stmt]:
    """The functions that a runner calls of a collected class or function."""
    inside = node.body if isinstance(node, ast.ClassDef) else [node]
    for method in inside:
        if isinstance(method, FUNCTIONS) and (
            method.name.startswith(("test", "setup", "setUp")) or method is node
        ):
            yield method


def _never(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If | ast.While) and is_false(statement.test)


def _running(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements and those inside them, except in functions and under `if False`."""
    for s in statements:
        yield s
        if isinstance(s, ast.ClassDef):
            yield from _running(x for x in s.body if not isinstance(x, FUNCTIONS))
        elif not isinstance(s, FUNCTIONS):
            blocks = [getattr(s, "orelse", [])] if _never(s) else _blocks(s)
            for block in blocks:
                yield from _running(block)


def _reached(tree: ast.Module) -> Iterator[ast.stmt]:
    """All statements that may run: the module's, those of collected tests, and those of functions
    that these name."""
    waiting = {id(d): d for d in ast.walk(tree) if isinstance(d, FUNCTIONS)}
    todo = [*_running(tree.body)]
    for node in collected(tree):
        for start in _starts(node):
            waiting.pop(id(start), None)
            todo += _running(start.body)  # type: ignore[attr-defined]
    while todo:
        names: set[str] = set()
        for s in todo:
            yield s
            heads = s.decorator_list if isinstance(s, DEFINITIONS) else [*_heads(s)]
            names |= {
                last_name(n)
                for h in heads
                for n in ast.walk(h)
                if isinstance(n, ast.Name | ast.Attribute)
            }
        called = [
            d
            for d in waiting.values()
            if d.name in names or (d.name.startswith("__") and d.name.endswith("__"))
        ]
        todo = []
        for d in called:
            del waiting[id(d)]
            todo += _running(d.body)


# --- before anything runs ---


def _parameters(node: Any, method: bool) -> list[str]:
    """The arguments that a runner must provide: without a default and not parametrized."""
    every = [a.arg for a in [*node.args.posonlyargs, *node.args.args]][int(method) :]
    every = every[: len(every) - len(node.args.defaults)]
    given: set[str] = set()
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and last_name(mark) == "parametrize" and mark.args:
            names = (
                mark.args[0].elts
                if isinstance(mark.args[0], ast.Tuple | ast.List)
                else [mark.args[0]]
            )
            texts = [str(n.value) for n in names if isinstance(n, ast.Constant)]
            given |= {part.strip() for text in texts for part in text.split(",")}
    return [a for a in every if a not in given]


def _fixture(tree: ast.Module) -> str | None:
    for node in collected(tree):
        if isinstance(node, ast.ClassDef) and _is_case(node):
            continue
        for start in _starts(node):
            if isinstance(start, FUNCTIONS) and start.name.startswith("test"):
                static = any(last_name(d) == "staticmethod" for d in start.decorator_list)
                wanted = _parameters(start, isinstance(node, ast.ClassDef) and not static)
                if wanted:
                    return (
                        f"{start.name} wants the fixture {wanted[0]!r}, and nothing here gives"
                        " fixtures"
                    )
    return None


def fault(tests: str, setup: str = "", entry_point: str = "") -> str | None:
    """The reason why the tests would give every program the same verdict, or None.

    >>> fault("add(1, 2) == 3")
    'they check nothing: no assertion is ever reached'
    >>> fault("assert add(1, 2) == 3")
    """
    tree, before = ast.parse(tests), ast.parse(setup)
    if wanting := _fixture(tree):
        return wanting
    both = ast.Module([*before.body, *tree.body], [])
    own = {d.name for d in ast.walk(both) if isinstance(d, FUNCTIONS)}
    if not any(is_check(s, own) for s in _reached(both)):
        return "they check nothing: no assertion is ever reached"
    calls = {last_name(n) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    imports = any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(tree))
    known = calls & (set(dir(builtins)) | set(sys.stdlib_module_names))
    asks = entry_point or imports or known or free_names(both)
    return None if asks else "they never ask the program anything"

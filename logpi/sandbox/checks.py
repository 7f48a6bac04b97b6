"""What in a text of tests is a check: found before anything runs (`fault`), counted while it runs
(`Counting`).

    assert f(1) == 2                    a check                  assert True, assert (f(1), 2)    none: they hold for every program
    if f(1) != 2: raise …               a check                  f(1) == 2, print(f(1))           none: nothing depends on it
    self.assertEqual(f(1), 2)           a check                  def g(): assert …                one if something calls g

A test whose checks cannot be reached is paid to every program, so it is refused. Left out: whether
a check is a good one.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator, Set
from typing import Any

FORGED = "forged"  # the last word on a program that was seen to forge an answer
BEGIN, CHECK, COUNT = (
    "__begin__",
    "__check__",
    "__count__",
)  # the names by which instrumented tests report
SOLUTIONS = {
    "solution",
    "program",
    "candidate",
    "submission",
    "your_module",
    "main",
}  # modules that are the program
_LEAVING = {"exit", "quit", "_exit", "fail", "abort"}
_PURE = set(
    "__future__ abc bisect cmath collections dataclasses datetime decimal enum fractions functools"
    " heapq itertools json math numbers operator pytest re statistics string textwrap typing"
    " unittest".split()
)
_LISTENING = {"assertLogs", "assertNoLogs", "assertWarns", "assertWarnsRegex", "warns"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


# --- single statements ---


def _name(node: ast.AST) -> str:
    """The last name of `a.b.c`, of `c`, or of a call of them."""
    node = node.func if isinstance(node, ast.Call) else node
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )


def _constant(node: ast.AST) -> bool:
    """Whether an expression says nothing of any name (`self` aside)."""
    names = (
        n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute | ast.Call | ast.Await)
    )
    return all(isinstance(n, ast.Name) and n.id == "self" for n in names)


def _holds_anyway(test: ast.expr) -> bool:
    """Whether an expression is true, or the same, for every program."""
    if isinstance(test, ast.Tuple | ast.List | ast.Dict | ast.Set):
        return True  # `assert (f(1) == 2, "message")`; an empty one is constant
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any((_constant(v) and not _false(v)) or _holds_anyway(v) for v in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        same = ast.dump(test.left) == ast.dump(test.comparators[0])
        return same and not any(_may_differ(n) for n in ast.walk(test))
    return _constant(test) or isinstance(test, ast.Lambda)


def _may_differ(node: ast.AST) -> bool:
    """Whether a second look may see something else: a method, `next`, or an object that has its own
    idea of what equals it."""
    if not isinstance(node, ast.Call):
        return False
    return (
        isinstance(node.func, ast.Attribute) or _name(node) == "next" or _name(node)[:1].isupper()
    )


def _false(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and not test.value


def _fails(statement: ast.stmt) -> bool:
    """Whether a statement always fails: reaching it is what a check around it decides."""
    if isinstance(statement, ast.Assert):
        return _false(statement.test)
    called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return isinstance(statement, ast.Raise) or (called and _name(statement.value) in _LEAVING)  # type: ignore[attr-defined]


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
    """Whether running this statement, without those inside it, can fail because of the program.
    `own`: names that the tests define."""
    if isinstance(statement, _DEFINITIONS):
        return False
    if isinstance(statement, ast.Assert):
        return not _holds_anyway(statement.test)
    branches = isinstance(statement, ast.If | ast.Try | ast.Match | ast.While)
    if branches and any(_fails(s) for block in _blocks(statement) for s in block):
        return not (isinstance(statement, ast.If | ast.While) and _constant(statement.test))
    for call in _calls(statement):
        name = _name(call)
        if name == "raises" or (
            name.startswith("assert") and name not in own and not all(map(_constant, call.args))
        ):
            return True
        if name.startswith("assert") and isinstance(statement, ast.With) and name not in own:
            return True  # `with self.assertRaises(ValueError):` has a name in it, `assertLogs()` has none
    return False


# --- which statements run ---


def _is_case(node: ast.ClassDef) -> bool:
    return any(_name(base).endswith("TestCase") for base in node.bases)


def collected(tree: ast.Module) -> list[ast.stmt]:
    """What a test runner would call: unittest's and pytest's classes, and functions `test_…` that
    the text does not call."""
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    found: list[ast.stmt] = []
    for node in tree.body:
        runs = False
        if isinstance(node, ast.ClassDef):
            runs = _is_case(node) or node.name.startswith("Test")
        elif isinstance(node, _FUNCTIONS):
            runs = node.name.startswith("test") and node.name not in used
        if runs:
            found.append(node)
    return found


def _starts(node: ast.stmt) -> Iterator[ast.stmt]:
    """The functions that are run of something collected."""
    inside = node.body if isinstance(node, ast.ClassDef) else [node]
    for method in inside:
        if isinstance(method, _FUNCTIONS) and (
            method.name.startswith(("test", "setup", "setUp")) or method is node
        ):
            yield method


def _never(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If | ast.While) and _false(statement.test)


def _running(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """These statements and those inside them, bodies of functions and of `if False` aside."""
    for s in statements:
        yield s
        if isinstance(s, ast.ClassDef):
            yield from _running(x for x in s.body if not isinstance(x, _FUNCTIONS))
        elif not isinstance(s, _FUNCTIONS):
            blocks = [getattr(s, "orelse", [])] if _never(s) else _blocks(s)
            for block in blocks:
                yield from _running(block)


def _reached(tree: ast.Module) -> Iterator[ast.stmt]:
    """All statements that may run: those of the module, of what is collected, and of functions that
    these name."""
    waiting = {id(d): d for d in ast.walk(tree) if isinstance(d, _FUNCTIONS)}
    todo = [*_running(tree.body)]
    for node in collected(tree):
        for start in _starts(node):
            waiting.pop(id(start), None)
            todo += _running(start.body)  # type: ignore[attr-defined]
    while todo:
        names: set[str] = set()
        for s in todo:
            yield s
            heads = s.decorator_list if isinstance(s, _DEFINITIONS) else [*_heads(s)]
            names |= {
                _name(n)
                for h in heads
                for n in ast.walk(h)
                if isinstance(n, ast.Name | ast.Attribute)
            }
        found = [
            d
            for d in waiting.values()
            if d.name in names or (d.name.startswith("__") and d.name.endswith("__"))
        ]
        todo = []
        for d in found:
            del waiting[id(d)]
            todo += _running(d.body)


# --- names ---


def _bound(tree: ast.AST) -> set[str]:
    """Every name that a text gives a meaning, wherever."""
    names = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
    }
    names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    names |= {
        n.name
        for n in ast.walk(tree)
        if isinstance(n, (*_DEFINITIONS, ast.ExceptHandler)) and n.name
    }
    for n in ast.walk(tree):
        if isinstance(n, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in n.names}
    return names


def called(tree: ast.AST) -> set[str]:
    """Names that stand before `(`, or alone as a value: a module is neither, so these are not
    modules."""
    bases = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in bases}


def free_names(tree: ast.AST, setup: ast.AST | None = None) -> set[str]:
    """Names that must be the program's: neither the tests' own nor built in, no module that is used
    as one."""
    loaded = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }
    own = _bound(tree) | (_bound(setup) if setup is not None else set())
    modules = set(sys.stdlib_module_names) - called(tree)
    imported = {
        a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        and (n.module or "").partition(".")[0] not in sys.stdlib_module_names
        for a in n.names
    }
    return (loaded - own - set(dir(builtins)) - modules - {"__name__", "__file__"}) | (
        imported - {"*"}
    )


def classes(tree: ast.AST) -> set[str]:
    """Names of the program's that the tests themselves treat as classes: they use what these make
    as a thing with attributes.

    >>> sorted(classes(ast.parse("s = Stack(); s.push(1); assert 1 in s; assert Repeat(2) == [2, 2]")))
    ['Stack']
    """
    made = {
        t.id: _name(n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    found: set[str] = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load):
            found.add(made.get(_name(n.value), ""))
        elif isinstance(n, ast.Attribute):
            base = _name(n.value) if isinstance(n.value, ast.Call | ast.Name) else ""
            found |= {base, made.get(base, "")}
        elif isinstance(n, ast.withitem):
            found.add(_name(n.context_expr))
        elif isinstance(n, ast.ExceptHandler) and n.type is not None:
            found |= {_name(t) for t in ast.walk(n.type) if isinstance(t, ast.Name)}
        elif isinstance(n, ast.Call) and _name(n) in (
            "isinstance",
            "issubclass",
            "raises",
            "assertRaises",
            "assertIsInstance",
        ):
            found |= {a.id for a in n.args if isinstance(a, ast.Name)}
    return {name for name in found if name[:1].isupper()}


def shares(tree: ast.AST) -> bool:
    """Whether tests share more with a program than values: files, streams, seeds, patches, threads,
    objects that they change."""
    for n in ast.walk(tree):
        if isinstance(n, ast.Import) and any(
            a.name.partition(".")[0] not in _PURE for a in n.names
        ):
            return True
        if isinstance(n, ast.ImportFrom) and (
            (n.module or "").partition(".")[0] not in _PURE or "mock" in (n.module or "")
        ):
            return True
        if isinstance(n, ast.Import) and any("mock" in a.name for a in n.names):
            return True
        if isinstance(n, ast.Subscript | ast.Attribute) and not isinstance(n.ctx, ast.Load):
            return True
        if isinstance(n, ast.Attribute) and n.attr in _LISTENING:
            return True
        if isinstance(n, ast.Name) and (
            n.id in ("open", "input", "globals", "id") or n.id in sys.stdlib_module_names - _PURE
        ):
            return True
        if isinstance(n, ast.Compare) and any(isinstance(o, ast.Is | ast.IsNot) for o in n.ops):
            return True
        if (
            isinstance(n, ast.Expr)
            and isinstance(n.value, ast.Call)
            and isinstance(n.value.func, ast.Attribute)
            and not n.value.func.attr.startswith("assert")
        ):
            return True
    return False


# --- before anything runs ---


def _parameters(node: Any, method: bool) -> list[str]:
    """Arguments that a runner would have to find: neither defaulted nor parametrized."""
    every = [a.arg for a in [*node.args.posonlyargs, *node.args.args]][int(method) :]
    every = every[: len(every) - len(node.args.defaults)] if node.args.defaults else every
    given: set[str] = set()
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and _name(mark) == "parametrize" and mark.args:
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
            if isinstance(start, _FUNCTIONS) and start.name.startswith("test"):
                static = any(_name(d) == "staticmethod" for d in start.decorator_list)
                wanted = _parameters(start, isinstance(node, ast.ClassDef) and not static)
                if wanted:
                    return (
                        f"{start.name} wants the fixture {wanted[0]!r}, and nothing here gives"
                        " fixtures"
                    )
    return None


def fault(tests: str, setup: str = "", entry_point: str = "") -> str | None:
    """Why these tests would say the same of every program, or None.

    >>> fault("add(1, 2) == 3")
    'they check nothing: no assertion is ever reached'
    >>> fault("assert add(1, 2) == 3")
    """
    tree, before = ast.parse(tests), ast.parse(setup)
    if wanting := _fixture(tree):
        return wanting
    both = ast.Module([*before.body, *tree.body], [])
    own = {d.name for d in ast.walk(both) if isinstance(d, _FUNCTIONS)}
    if not any(is_check(s, own) for s in _reached(both)):
        return "they check nothing: no assertion is ever reached"
    calls = {_name(n) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    if (
        not entry_point
        and not free_names(both)
        and not calls & (set(dir(builtins)) | set(sys.stdlib_module_names))
    ):
        imported = any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(tree))
        return None if imported else "they never ask the program anything"
    return None


# --- while it runs ---


class Counting(ast.NodeTransformer):
    """The same tests, telling of every check that runs, and of an assertion that fails though the
    failure is caught.

    assert x == 1, m   →   if not __check__(x == 1): raise AssertionError(m)          if f(): raise E   →   __count__(); if f(): raise E

    Where any exception is caught, an assertion that raises another one has failed too:
    `__check__(begun=__begin__(), value=x == 1)`.
    """

    def __init__(self, own: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.own, self.swallowed = own, False

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, ast.stmt):
            return self.generic_visit(node)
        check, outside = is_check(node, self.own), self.swallowed
        self.swallowed = outside or _swallows(node)
        self.generic_visit(node)
        self.swallowed = outside
        if isinstance(node, ast.Assert):
            return self._assert(node) if check or _false(node.test) else node
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
    """Whether a `try` goes on after any exception at all, without having meant it (as one with
    `else` would)."""
    if not isinstance(node, ast.Try) or node.orelse or any(_fails(s) for s in node.body):
        return False
    return any(
        h.type is None or _name(h.type) in ("Exception", "BaseException") for h in node.handlers
    )


def _at(new: ast.stmt, old: ast.stmt) -> ast.stmt:
    return ast.fix_missing_locations(ast.copy_location(new, old))

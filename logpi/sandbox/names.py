"""Finds the names in a text of tests: its own, the program's, the classes; and whether the tests
share more with a program than values.

Left out: which statements check something (`checks.py`).
"""

from __future__ import annotations

import ast
import builtins
import sys

# these modules are the program
SOLUTIONS = {"solution", "program", "candidate", "submission", "your_module", "main"}
# modules of the library without state
_PURE = set(
    "__future__ abc bisect cmath collections dataclasses datetime decimal enum fractions functools"
    " heapq itertools json math numbers operator pytest re statistics string textwrap typing"
    " unittest".split()
)
# checks of a program's logs and warnings, which stay in its own process
_LISTENING = {"assertLogs", "assertNoLogs", "assertWarns", "assertWarnsRegex", "warns"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


def last_name(node: ast.AST) -> str:
    """The last name of `a.b.c`, of `c`, or of a call of them."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _bound(tree: ast.AST) -> set[str]:
    """Every name that a text defines, in any scope."""
    names = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
    }
    names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    names |= {
        n.name
        for n in ast.walk(tree)
        if isinstance(n, (*DEFINITIONS, ast.ExceptHandler)) and n.name
    }
    for n in ast.walk(tree):
        if isinstance(n, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in n.names}
    return names


def called(tree: ast.AST) -> set[str]:
    """Names that a text calls or uses as a value. A name before a dot only may be a module."""
    bases = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in bases}


def free_names(tree: ast.AST, setup: ast.AST | None = None) -> set[str]:
    """Names that must be the program's: not the tests' own, not built in, not modules in use."""
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
    """Names of the program's that the tests use as classes: they use attributes of their instances.

    >>> sorted(classes(ast.parse("s = Stack(); s.push(1); assert Repeat(2) == [2, 2]")))
    ['Stack']
    """
    makers = {
        t.id: last_name(n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    used: set[str] = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load):
            used.add(makers.get(last_name(n.value), ""))
        elif isinstance(n, ast.Attribute):
            base = last_name(n.value) if isinstance(n.value, ast.Call | ast.Name) else ""
            used |= {base, makers.get(base, "")}
        elif isinstance(n, ast.withitem):
            used.add(last_name(n.context_expr))
        elif isinstance(n, ast.ExceptHandler) and n.type is not None:
            used |= {last_name(t) for t in ast.walk(n.type) if isinstance(t, ast.Name)}
        elif isinstance(n, ast.Call) and last_name(n) in (
            "isinstance",
            "issubclass",
            "raises",
            "assertRaises",
            "assertIsInstance",
        ):
            used |= {a.id for a in n.args if isinstance(a, ast.Name)}
    return {name for name in used if name[:1].isupper()}


def shares(tree: ast.AST) -> bool:
    """Whether tests share more with a program than values: files, streams, seeds, patched modules,
    threads, objects that they change."""
    for n in ast.walk(tree):
        modules: list[str] = []
        if isinstance(n, ast.Import):
            modules = [alias.name for alias in n.names]
        elif isinstance(n, ast.ImportFrom):
            modules = [n.module or ""]
        if any(m.partition(".")[0] not in _PURE or "mock" in m for m in modules):
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

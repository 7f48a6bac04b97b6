"""Runs unit tests against a program, in two processes: the tests ask, the program answers.

    tests process ── rpc.py ──▶ program process
        │ one line for each test, on a pipe that the program does not have
        ▼
    main process

The tests compare plain data in their own process. A name in the tests means, in this order: a name
that the tests or their set-up define, a built-in, a module of the standard library in use as one,
and only then an object of the program. So a program's own `math` or `len` has no effect. A test
counts if it asked the program something and checked something. One that fails before it asks is at
fault itself. Standard library only.

`beside` runs the same tests in the program's process, where the program can tamper with them. That
run is never evidence for the program; it can only cancel a failure (`judge.py`). Left out: the
verdict (`judge.py`).
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from logpi.sandbox import runner
from logpi.sandbox.checks import FORGED
from logpi.sandbox.counting import BEGIN, CHECK, COUNT, Counting
from logpi.sandbox.names import SOLUTIONS, called, classes, free_names, shares
from logpi.sandbox.plain import Unspeakable
from logpi.sandbox.rpc import Connection
from logpi.sandbox.wire import Gone

CONNECTION_FD = 4
# the tests see so many characters of a call's output
PRINTED = 1 << 16
# LeetCode's imports before a `class Solution`
LEETCODE = """
import bisect, collections, functools, heapq, itertools, math, random, re, string
from typing import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import inf, gcd, sqrt, ceil, floor, log, log2
from bisect import *
class ListNode:
    def __init__(self, val=0, next=None): self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


# --- the program ---


class _Program:
    """A loaded program, as a function from names to objects.

    Its main block does not run. It may end by `exit()`. A method of `Solution` is a function.
    """

    def __init__(self, code: str) -> None:
        self.main = types.ModuleType("program")
        sys.modules["program"] = self.main
        self.broken = ""
        try:
            if "class Solution" in code:
                given: dict[str, Any] = {}
                exec(LEETCODE, given)
                vars(self.main)["__builtins__"] = given | vars(builtins)
            exec(compile(code, "program.py", "exec"), vars(self.main))
        except SystemExit as end:
            if end.code not in (None, 0):
                self.broken = f"SystemExit: {end.code}"
        except BaseException as error:
            self.broken = f"{type(error).__name__}: {error}"

    def __call__(self, name: str) -> Any:
        if self.broken:
            raise RuntimeError(f"the program does not load: {self.broken[:300]}")
        space = vars(self.main)
        if name in space:
            return space[name]
        solution = space.get("Solution")
        if (
            isinstance(solution, type)
            and not name.startswith("_")
            and getattr(solution, name, None) is not None
        ):
            return lambda *args, **named: getattr(solution(), name)(*args, **named)
        raise NameError(f"name {name!r} is not defined by the program")


def program(task: dict[str, Any]) -> int:
    """Load the program, then answer the tests until they are done."""
    names = _Program(task["code"])
    sys.stdout = printed = _Printed()
    with contextlib.suppress(Gone):
        Connection(CONNECTION_FD, exposed=True, names=names, printed=printed.take).serve()
    return 0


class _Printed(io.TextIOBase):
    """The output of the program while the tests call it, for tests that capture it."""

    def __init__(self) -> None:
        self.text, self.room = [], PRINTED

    def write(self, text: str) -> int:
        if self.room > 0:
            self.text.append(text[: self.room])
            self.room -= len(text)
        return len(text)

    def take(self) -> str:
        text = "".join(self.text)
        self.text, self.room = [], PRINTED
        return text


# --- the tests ---


class _Names(dict):
    """Built-ins, then modules of the standard library in use as modules, then the program's names.

    Args:
        look_up: gives the program's object of a name.
        values: names that the tests use as values, so they are not modules.
    """

    def __init__(self, look_up: Callable[[str], Any], values: set[str]) -> None:
        super().__init__(vars(builtins), exit=sys.exit, quit=sys.exit)
        self.look_up, self.called = look_up, values

    def __missing__(self, name: str) -> Any:
        if name in sys.stdlib_module_names and name not in self.called:
            return __import__(name)
        try:
            return self.look_up(name)
        except NameError:
            if name in self.called:
                raise
            raise Unspeakable(
                f"the tests use {name!r}, which neither they nor the program bring"
            ) from None


def _modules(look_up: Callable[[str], Any], whole: ast.Module) -> None:
    """Let tests import from `solution`, or from any other missing module if the program has all the
    names that they import from it."""
    names = set(SOLUTIONS)
    for n in ast.walk(whole):
        if (
            isinstance(n, ast.ImportFrom)
            and n.module
            and n.module.partition(".")[0] not in (*sys.stdlib_module_names, "pytest")
        ):
            with contextlib.suppress(Exception):
                for alias in n.names:
                    look_up(alias.name)
                names.add(n.module)
    for name in names:
        module: Any = types.ModuleType(name)
        module.__getattr__ = lambda attribute: _attribute(look_up, attribute)
        sys.modules[name] = module


def _attribute(look_up: Callable[[str], Any], name: str) -> Any:
    # the import system asks every module for these
    if name.startswith("__"):
        raise AttributeError(name)
    return look_up(name)


class _TestRun:
    """The tests of a task, ready to run one by one in one namespace.

    Attributes:
        shares: whether they share more with the program than values.
        classes: names of the program's that they use as classes.
        checked, failed, begun: the numbers of checks of the current test that ran, failed, and
            began without an end.
        apart: whether the program is in another process.
    """

    def __init__(self, task: dict[str, Any], look_up: Callable[[str], Any]) -> None:
        self.texts, self.entry = task["tests"], task["entry_point"]
        self.trees = [ast.parse(source) for source in self.texts]
        self.setup = ast.parse(task["setup"])
        whole = ast.Module([*self.setup.body, *(s for t in self.trees for s in t.body)], [])
        self.whole, self.shares, self.classes = whole, shares(whole), classes(whole)
        self.own = {
            d.name for d in ast.walk(whole) if isinstance(d, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        self.checked, self.failed, self.begun, self.apart = 0, 0, 0, True
        main = types.ModuleType("__main__")
        self.space, self.look_up = vars(main), look_up
        self.space.update(
            {
                "__builtins__": _Names(look_up, called(whole)),
                CHECK: self._check,
                COUNT: self._count,
                BEGIN: self._begin,
            }
        )
        runner.install(main)
        _modules(look_up, whole)

    def _count(self) -> None:
        self.checked += 1

    def _begin(self) -> bool:
        self.begun += 1
        return True

    def _check(self, value: Any, begun: bool = False) -> bool:
        self.checked += 1
        self.begun -= begun
        true = bool(value)
        self.failed += not true
        return true

    def _execute(self, tree: ast.Module, name: str) -> None:
        exec(
            compile(Counting(self.own).visit(ast.Module(list(tree.body), [])), name, "exec"),
            self.space,
        )

    def set_up(self) -> None:
        self._execute(self.setup, "set-up")
        for name in _under_test(self.entry, self.trees, self.space, self.whole):
            # the set-up may define an unfinished copy, as HumanEval's prompt does
            self.space[name] = self.look_up(name)

    def run(self, index: int) -> None:
        """Run one test. Raises its exception, or AssertionError for a failed assertion whose
        exception the tests caught."""
        self.checked = self.failed = self.begun = 0
        try:
            self._execute(self.trees[index], f"test {index + 1}")
        except SystemExit as end:
            if end.code not in (None, 0) or not self.apart or getattr(end, "_logpi_theirs", False):
                raise AssertionError(f"the tests left with {end.code!r}") from None
        runner.run(self.trees[index], self.space)
        if self.failed or self.begun:
            raise AssertionError(_brief(self.texts[index]))


def tests(task: dict[str, Any]) -> int:
    """Run each test and write a line of JSON for it.

    The line is `[true, ""]`, `[null, reason why there is no verdict]`, or `[false, error, whether
    to run it beside the program]`; the last is `FORGED` if the program forged an answer.
    """
    lines = os.dup(1)
    sys.stdout = open(os.devnull, "w")
    connection = Connection(CONNECTION_FD, exposed=False)
    believed = set(task["classes"])

    def look_up(name: str) -> Any:
        value = connection.name(name)
        if name in believed and isinstance(value, type):
            connection.believed.add(value)
        return value

    try:
        test_run = _TestRun(task, look_up)
        believed |= test_run.classes
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _say(lines, None, f"the tests are not Python: {error}")
    try:
        test_run.set_up()
    except BaseException as error:
        return _say(lines, *_fault(connection, error, "the set-up", test_run.shares))
    for index, source in enumerate(test_run.texts):
        try:
            test_run.run(index)
        except BaseException as error:
            _say(lines, *_fault(connection, error, _brief(source), test_run.shares))
            if isinstance(error, Gone):
                return 0
        else:
            _say(lines, *_passed(connection, test_run))
    return 0


def _passed(connection: Connection, test_run: _TestRun) -> tuple[bool | None, str]:
    """The verdict on a test that raised nothing."""
    if not connection.requests:
        return None, "the tests did not ask the program anything"
    if not test_run.checked:
        return None, "the tests ended without a check"
    return (None, connection.doubt) if connection.doubt else (True, "")


def _fault(
    connection: Connection, error: BaseException, where: str, shares: bool
) -> tuple[bool | None, str, bool | str]:
    """The verdict on a test that raised: False by the program's fault, None by the tests' own."""
    if isinstance(error, Gone):
        return False, "the program ended before the tests did", shares
    theirs = getattr(error, "_logpi_theirs", False)
    reason = (
        (str(error) or where)
        if isinstance(error, AssertionError)
        else f"{type(error).__name__}: {error} in {where}"
    )
    if isinstance(error, Unspeakable) or (
        not theirs and (isinstance(error, ImportError) or not connection.requests)
    ):
        return None, f"the tests are at fault: {reason}", False
    return False, reason, FORGED if connection.forged else shares or connection.met


def _under_test(
    entry: str, trees: list[ast.Module], space: dict[str, Any], whole: ast.Module
) -> list[str]:
    """The names that the program provides although they are defined elsewhere.

    That is the entry point. Without one, and if the tests name nothing of the program, it is a
    built-in that the first test calls (a task may be to write `sum`).
    """
    if entry:
        return [entry] if entry.isidentifier() else []
    if not trees or free_names(whole) - set(space):
        return []
    calls = {
        n.func.id
        for n in ast.walk(trees[0])
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    return sorted(calls & set(dir(builtins)))[:1]


def beside(task: dict[str, Any]) -> int:
    """Run the tests in the program's own process: a line of JSON for each, [key, passed]."""
    lines = os.dup(1)
    sys.stdout = open(os.devnull, "w")
    names = _Program(task["code"])
    test_run = _TestRun(task, names)
    # nobody can know whether the tests or the program exited
    test_run.apart = False
    test_run.set_up()
    for index in range(len(test_run.texts)):
        passed = False
        with contextlib.suppress(BaseException):
            test_run.run(index)
            passed = True
        os.write(lines, (json.dumps([task["key"], passed]) + "\n").encode())
    return 0


def _brief(source: str) -> str:
    return " ".join(source.split())[:200]


def _say(lines: int, passed: bool | None, message: str, again: bool | str = False) -> int:
    """Write a verdict and return the exit code, 0."""
    os.write(lines, (json.dumps([passed, message[:500], again]) + "\n").encode())
    return 0

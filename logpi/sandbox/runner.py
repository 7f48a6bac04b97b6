"""The test runner inside the sandbox: runs unittest's and pytest's classes and functions, and
stands in for the part of `pytest` that tests import.

The sandbox has no packages, so `pytest` here is raises, approx, mark.parametrize, param, skip and
fail. Left out: fixtures (`checks.py` refuses such rows before any work) and the rest of pytest.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import itertools
import re
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from logpi.sandbox.checks import collected


class _Raises:
    """The context of `with raises(E) as e:`."""

    value: BaseException
    type: type

    def __init__(self, expected: Any, match: str | None) -> None:
        self.expected, self.match = expected, match

    def __enter__(self) -> _Raises:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if kind is None:
            raise AssertionError(f"did not raise {self.expected}")
        if not issubclass(kind, self.expected):
            return False
        self.type, self.value = kind, error
        if self.match is not None and not re.search(self.match, str(error)):
            raise AssertionError(f"{str(error)!r} does not match {self.match!r}")
        return True


def raises(expected: Any, *call: Any, match: str | None = None, **named: Any) -> Any:
    context = _Raises(expected, match)
    if not call:
        return context
    with context:
        call[0](*call[1:], **named)
    return context


class approx:
    """Equals numbers, and lists and dictionaries of numbers, up to a tolerance."""

    def __init__(
        self,
        expected: Any,
        rel: float | None = None,
        abs: float | None = None,
        nan_ok: bool = False,
    ) -> None:
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, actual: object) -> bool:
        return self._near(actual, self.expected)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _near(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, dict):
            return (
                isinstance(actual, dict)
                and actual.keys() == expected.keys()
                and all(self._near(actual[k], v) for k, v in expected.items())
            )
        if isinstance(expected, list | tuple):
            same = isinstance(actual, list | tuple) and len(actual) == len(expected)
            return same and all(map(self._near, actual, expected))
        if not isinstance(expected, int | float | complex) or isinstance(expected, bool):
            return expected == actual
        if not isinstance(actual, int | float | complex):
            return False
        if actual == expected or (self.nan_ok and actual != actual and expected != expected):
            return True
        relative = (1e-6 if self.rel is None and self.abs is None else self.rel or 0.0) * abs(
            expected
        )
        return (
            abs(actual - expected)
            <= max(relative, 1e-12 if self.abs is None else self.abs)
            < float("inf")
        )


def param(*values: Any, **_: Any) -> Any:
    return values


def parametrize(names: Any, values: Any, **_: Any) -> Callable[[Any], Any]:
    keys = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)

    def mark(function: Any) -> Any:
        rows = [
            v if len(keys) > 1 or (isinstance(v, tuple) and len(v) == 1) else (v,) for v in values
        ]
        function._cases = [
            *getattr(function, "_cases", []),
            [dict(zip(keys, row, strict=True)) for row in rows],
        ]
        return function

    return mark


def _same(*args: Any, **_: Any) -> Any:
    """A mark without effect: `@mark.slow`, `@mark.asyncio()`."""
    return args[0] if len(args) == 1 and callable(args[0]) else _same


def _skipped(*args: Any, **_: Any) -> Any:
    function = args[0] if args and callable(args[0]) else None
    if function is None:
        return _skipped
    setattr(function, "_skipped", True)  # noqa: B010
    return function


def _skip(reason: str = "", **_: Any) -> None:
    raise unittest.SkipTest(reason)


def _fail(reason: str = "", **_: Any) -> None:
    raise AssertionError(reason)


class _Marks:
    parametrize = staticmethod(parametrize)
    skip = xfail = staticmethod(_skipped)

    def __getattr__(self, name: str) -> Any:
        return _same


def install(module: Any) -> None:
    """Make `module` the main module, provide `pytest`, and disable `unittest.main()` and
    `pytest.main()`: `run` runs the tests."""
    shim: Any = types.ModuleType("pytest")
    vars(shim).update(
        raises=raises,
        approx=approx,
        param=param,
        mark=_Marks(),
        skip=_skip,
        fail=_fail,
        main=lambda *a, **k: 0,
    )
    sys.modules["pytest"], sys.modules["__main__"] = shim, module
    unittest.main = lambda *a, **k: None  # type: ignore[assignment, misc]


class _TestOutcome(unittest.TestResult):
    """Keeps the first error as an exception. A test that ends without an outcome is an error."""

    first: BaseException | None = None
    decided = True

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.decided = False

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        if not self.decided:
            self.first = self.first or AssertionError(f"{test} ended without an outcome")

    def addSuccess(self, test: Any, detail: Any = None) -> None:
        self.decided = True

    addSkip = addExpectedFailure = addSuccess  # type: ignore[assignment]

    def addError(self, test: Any, err: Any) -> None:
        self.first = self.first or err[1]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.first = self.first or AssertionError(f"{test} was expected to fail")


def run(tree: ast.Module, space: dict[str, Any]) -> None:
    """Run the tests that a text has defined in `space`. Raises the first failure's exception."""
    for node in collected(tree):
        thing = space.get(node.name)  # type: ignore[attr-defined]
        if isinstance(thing, type) and issubclass(thing, unittest.TestCase):
            result = _TestOutcome()
            unittest.defaultTestLoader.loadTestsFromTestCase(thing).run(result)
            if result.first is not None:
                raise result.first
        elif isinstance(thing, type):
            _run_class(thing)
        elif inspect.isfunction(thing):
            _run_function(thing)


def _run_class(kind: type) -> None:
    with _around(kind, "setup_class", "teardown_class"):
        for name, function in list(vars(kind).items()):
            if name.startswith("test") and callable(getattr(kind, name)):
                instance = kind()
                with _around(instance, "setup_method", "teardown_method", function):
                    _run_function(getattr(instance, name))


@contextlib.contextmanager
def _around(thing: Any, before: str, after: str, *args: Any) -> Iterator[None]:
    _hook(thing, before, args)
    try:
        yield
    finally:
        _hook(thing, after, args)


def _hook(thing: Any, name: str, args: tuple[Any, ...]) -> None:
    hook = getattr(thing, name, None)
    if hook is not None:
        hook(*args[: len(inspect.signature(hook).parameters)])


def _run_function(function: Any) -> None:
    if getattr(function, "_skipped", False):
        return
    for case in itertools.product(*getattr(function, "_cases", [])):
        with contextlib.suppress(unittest.SkipTest):
            result = function(**{k: v for part in case for k, v in part.items()})
            if inspect.iscoroutine(result):
                asyncio.run(result)

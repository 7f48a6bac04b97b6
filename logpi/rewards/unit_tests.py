"""Reads a row's unit tests in the forms of published data sets, and refuses those that check
nothing.

    tests                                        example data sets
    a text with asserts or `def check(f)`        HumanEval (`test`, `entry_point`, `prompt`)
    unittest's classes, pytest's functions       KodCode
    a list of asserts                            MBPP (`test_list`, `test_setup_code`)
    {"inputs": […], "outputs": […]}              APPS, TACO (`fn_name`: arguments and value of a
                                                 function; else stdin and stdout)
    [{"input": …, "output": …}, …]               the same, one by one
    {"input": […], "output": […]}                CodeContests

Left out: running tests (`code.py`), and their column.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logpi.sandbox.checks import fault, is_check
from logpi.sandbox.names import free_names

# The equality of APPS's own judge: JSON has no tuples, outputs are often wrapped in a list, and the
# last digit of a float does not count.
_SAME = """
def _same(got, wanted):
    if isinstance(wanted, float) or isinstance(got, float):
        if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (got, wanted)):
            return got == wanted
        return got == wanted or abs(got - wanted) <= 1e-9 * max(abs(got), abs(wanted))
    if isinstance(wanted, list):
        return isinstance(got, (list, tuple)) and len(got) == len(wanted) and all(
            map(_same, got, wanted))
    if isinstance(wanted, dict):
        return isinstance(got, dict) and {str(k): k for k in got}.keys() == wanted.keys() and all(
            _same(v, wanted[str(k)]) for k, v in got.items())
    return type(got) == type(wanted) and got == wanted
"""


@dataclass(frozen=True)
class UnitTests:
    """The tests of one row's program.

    Attributes:
        sources: Python tests.
        pairs: standard inputs and their expected outputs.
        setup: Python that runs before the tests.
        entry_point: the function under test; "" if the tests name it themselves.
        classes: names of classes that the program defines.
    """

    sources: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    setup: str = ""
    entry_point: str = ""
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any, setup: str = "", entry_point: str = "", prompt: str = "") -> UnitTests:
        """The tests in a data set's column (see this module's docstring).

        Args:
            prompt: names the function for `check(candidate)` if nothing else does.

        Raises:
            ValueError: another form, or tests that every program would pass.
        """
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = _loaded(value)
        if isinstance(value, Mapping) and isinstance(value.get("test_cases"), Sequence):
            value = value["test_cases"]
        if isinstance(value, Mapping) and {"input", "output"} <= set(value):
            value = {**value, "inputs": value["input"], "outputs": value["output"]}
        if isinstance(value, Mapping) and {"inputs", "outputs"} <= set(value):
            return _pairs(value["inputs"], value["outputs"], value.get("fn_name") or "", setup)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence):
            raise ValueError(f"expected asserts, or inputs and outputs, got {str(value)[:60]!r}")
        if texts and all(isinstance(t, Mapping) for t in texts):
            return _cases(texts, setup, entry_point or _begun(prompt))
        if not all(isinstance(t, str) for t in texts):
            raise ValueError(f"expected asserts, or inputs and outputs, got {str(value)[:60]!r}")
        classes = tuple(re.findall(r"\bclass[ \t]+`?([A-Z]\w*)", prompt))
        return cls(_texts(list(texts), setup, entry_point, prompt), (), setup, entry_point, classes)

    @property
    def names(self) -> frozenset[str]:
        """The names that the program must define, as far as the tests show."""
        if self.entry_point:
            return frozenset({self.entry_point.rpartition(".")[2]})
        return frozenset(
            n for s in self.sources for n in free_names(ast.parse(s), ast.parse(self.setup))
        )


def _cases(cases: Sequence[Mapping[str, Any]], setup: str, otherwise: str) -> UnitTests:
    """Tests from cases with one input and output each.

    Args:
        otherwise: the function, if a case does not name it.
    """
    names = {_function(case, otherwise) for case in cases}
    if len(names) > 1:
        raise ValueError(f"tests of several functions in one row: {', '.join(sorted(names))}")
    inputs, outputs = [c["input"] for c in cases], [c["output"] for c in cases]
    return _pairs(inputs, outputs, names.pop(), setup)


def _loaded(text: str) -> Any:
    """The value of a JSON text. A list of asserts in Python's notation stays a text."""
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            ast.parse(text)
        except SyntaxError:
            raise ValueError(f"neither JSON nor Python: {error}") from None
        return text


def _texts(texts: Sequence[str], setup: str, entry_point: str, prompt: str) -> tuple[str, ...]:
    """Python tests, each with the statements that must precede it.

    Raises ValueError if all together check nothing.
    """
    try:
        ast.parse(setup)
        for text in texts:
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the tests are not Python: {error}") from None
    whole = "\n".join(texts)
    called = _call_of_check(ast.parse(whole), entry_point, prompt)
    if reason := fault(whole + called, setup, entry_point):
        raise ValueError(reason)
    tests = _checking(texts)
    return (*tests[:-1], tests[-1] + called)


def _checking(texts: Sequence[str]) -> list[str]:
    """The texts. One without a check joins the next that has a check, or the last.

    >>> _checking(["x = f(1)", "assert x == 2", "assert f(2)", "y = 3"])
    ['x = f(1)\\nassert x == 2', 'assert f(2)\\ny = 3']
    """
    if len(texts) == 1:
        return list(texts)
    tests: list[str] = []
    begun: list[str] = []
    for text in texts:
        begun.append(text)
        statements = (s for s in ast.walk(ast.parse(text)) if isinstance(s, ast.stmt))
        if any(map(is_check, statements)):
            tests.append("\n".join(begun))
            begun = []
    tests[-1] = "\n".join([tests[-1], *begun])
    return tests


def _call_of_check(tree: ast.Module, entry_point: str, prompt: str) -> str:
    """`check(f)` if the tests define `check` and do not call it, as HumanEval's; else ""."""
    check = next(
        (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None
    )
    used = any(isinstance(n, ast.Name) and n.id == "check" for n in ast.walk(tree))
    if check is None or (used and not entry_point):
        return ""
    if not check.args.args:
        return "" if used else "\ncheck()"
    named = entry_point or _begun(prompt, method=False)
    if not named:
        raise ValueError(
            "they define check(candidate) and nothing says for which function: give entry_point"
        )
    return f"\ncheck({named})"


def _begun(prompt: str, method: bool = True) -> str:
    """The last function that a prompt begins, or a method in a class; "" if there is none."""
    indent = "[ \\t]*" if method else ""
    return next(reversed(re.findall(rf"^{indent}def[ \t]+(\w+)[ \t]*\(", prompt, re.MULTILINE)), "")


def _function(test: Mapping[str, Any], otherwise: str) -> str:
    """The function that a test calls; "" if it runs a script.

    Args:
        otherwise: the name, if the test calls a function without naming it.

    >>> _function({"testtype": "functional", "metadata": {"func_name": "f"}}, "")
    'f'
    >>> _function({"testtype": "stdin"}, "f")
    ''
    """
    metadata = test.get("metadata")
    name = test.get("fn_name") or (
        metadata.get("func_name") if isinstance(metadata, Mapping) else None
    )
    if name or test.get("testtype", test.get("type")) not in ("functional", "function_call"):
        return str(name or "")
    if not otherwise:
        raise ValueError("they call a function and nothing says which: give fn_name or entry_point")
    return otherwise.rpartition(".")[2]


def _pairs(inputs: Sequence[Any], outputs: Sequence[Any], name: str, setup: str) -> UnitTests:
    """Tests from inputs and outputs of a function, or of a script."""
    # a single text is one input
    inputs, outputs = ([x] if isinstance(x, str) else x for x in (inputs, outputs))
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise ValueError("they check nothing: no inputs")
    if not name:
        return UnitTests((), tuple((_lines(i), _lines(o)) for i, o in zip(inputs, outputs)))
    pairs = [
        (_arguments(i), json.loads(o) if isinstance(i, str) and isinstance(o, str) else o)
        for i, o in zip(inputs, outputs)
    ]
    wrapped = all(isinstance(o, list) and len(o) == 1 for _, o in pairs)
    tests = (
        f"_got = {name}({'**' if isinstance(i, dict) else '*'}{i!r}); assert _same(_got, {o!r})"
        for i, o in pairs
    )
    tests = (t + f" or _same(_got, {o[0]!r})" if wrapped else t for t, (_, o) in zip(tests, pairs))
    return UnitTests(tuple(tests), (), _SAME + setup, name)


def _arguments(given: Any) -> list[Any] | dict[str, Any]:
    """A function's arguments, from a list, a dict of named ones, or lines of JSON."""
    if isinstance(given, str):
        return [json.loads(line) for line in given.splitlines() if line.strip()]
    return dict(given) if isinstance(given, Mapping) else list(given)


def _lines(text: Any) -> str:
    if isinstance(text, str) or not isinstance(text, Sequence):
        return str(text)
    return "\n".join(map(str, text))

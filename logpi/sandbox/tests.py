"""Unit tests of a program, in a process that the program cannot see; and the program, answering calls.

    tests process ── peer.py, plain data ──▶ program process
        │ one line for each test, on a pipe that the program does not have
        ▼
      host

The tests compare in their own process what they got as plain data. A name in the tests means, in this order: what the tests or
their set-up define, a built-in, a module of the standard library, and only then something of the program's: a program that
brings its own `math` or `len` brings it to nobody. Standard library only. Left out: tests that put the program's
objects into sets or compare two of them by their own `__eq__` (see `peer.py`), and pytest.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import sys
import types
from typing import Any

from logpi.sandbox.peer import Gone, Peer, Unspeakable

__all__ = ["program", "tests"]

PEER_FD = 4


def program(task: dict[str, Any]) -> int:
    """Load the program, then answer the tests until they are done."""
    main = types.ModuleType("program")  # not __main__: what stands under `if __name__ == "__main__"` is not under test
    sys.modules["program"] = main

    def look_up(name: str) -> Any:
        if name in main.__dict__:
            return main.__dict__[name]
        raise NameError(f"name {name!r} is not defined by the program")

    peer = Peer(PEER_FD, open_handed=True, names=look_up)
    try:
        exec(compile(task["code"], "program.py", "exec"), main.__dict__)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        peer.names = lambda name: _refuse(f"the program does not load: {reason[:300]}")
    with contextlib.suppress(Gone):
        peer.serve()
    return 0


def _refuse(reason: str) -> Any:
    raise RuntimeError(reason)


class _Names(dict):
    """Built-ins, then modules of the standard library, then the program's names."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(vars(builtins))
        self.peer = peer

    def __missing__(self, name: str) -> Any:
        if name in sys.stdlib_module_names:
            return __import__(name)
        return self.peer.name(name)


def tests(task: dict[str, Any]) -> int:
    """Run each test; a line of JSON for each: [true, ""] or [false, what went wrong]; `null` first if they are at fault."""
    lines = os.dup(1)
    sys.stdout = open(os.devnull, "w")
    peer = Peer(PEER_FD, open_handed=False)
    space: dict[str, Any] = {"__name__": "tests", "__builtins__": _Names(peer)}
    solution: Any = types.ModuleType("solution")  # for tests that say `from solution import f`
    solution.__getattr__ = lambda name: _attribute(peer, name)
    sys.modules["solution"] = solution
    try:
        trees = [ast.parse(source) for source in task["tests"]]
        setup = compile(task["setup"], "set-up", "exec")
        chunks = [compile(tree, f"test {i}", "exec") for i, tree in enumerate(trees, 1)]
    except (SyntaxError, ValueError) as error:
        _say(lines, None, f"the tests are not Python: {error}")
        return 0
    try:
        exec(setup, space)
        for name in _under_test(task, trees, space):
            space[name] = peer.name(name)  # the set-up may hold an unfinished copy (HumanEval's prompt does)
    except BaseException as error:
        return _say(lines, False, _reason(error, "the set-up"))
    for chunk, source in zip(chunks, task["tests"], strict=True):
        try:
            exec(chunk, space)
        except Unspeakable as error:
            _say(lines, None, str(error))
        except BaseException as error:
            _say(lines, False, _reason(error, _brief(source)))
            if isinstance(error, Gone):
                return 0
        else:
            _say(lines, True, "")
    return 0


def _attribute(peer: Peer, name: str) -> Any:
    if name.startswith("__"):  # what the import system asks of every module
        raise AttributeError(name)
    return peer.name(name)


def _under_test(task: dict[str, Any], trees: list[ast.Module], space: dict[str, Any]) -> list[str]:
    """The names that come from the program though something else has them: the entry point; without one, the built-ins
    called by tests that would otherwise ask the program nothing (a task may be to write `sum`)."""
    if task["entry_point"]:
        return [task["entry_point"]]
    read = {n.id for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if read - set(space) - set(dir(builtins)) - sys.stdlib_module_names or not task["tests"]:
        return []
    return sorted({n.func.id for n in ast.walk(trees[0]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)})[
        :1
    ]


def _brief(source: str) -> str:
    return " ".join(source.split())[:200]


def _reason(error: BaseException, where: str) -> str:
    if isinstance(error, Gone):
        return "the program ended before the tests did"
    if isinstance(error, AssertionError):
        return str(error) or where
    return f"{type(error).__name__}: {error} in {where}"


def _say(lines: int, passed: bool | None, message: str) -> int:
    """Write a verdict; 0, the exit code."""
    os.write(lines, (json.dumps([passed, message[:500]]) + "\n").encode())
    return 0

"""Reads calls in Python's syntax: `[add(a=1, b=2), sin(x=0)]`.

The text is parsed and never evaluated. A bare name is a text. Four operations on numbers are
computed here. Left out: positional arguments, and everything else that is not a plain value.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

from logpi.calls.call import MOST, Call

JSON_NAMES = {"true": True, "false": False, "null": None}
# characters; this bounds the depth of the parser
_LONGEST = 8_192
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def python_calls(text: str, names: Mapping[str, Any] | None = None) -> list[Call]:
    """The calls of a list, or of a text with commas between them. Raises ValueError.

    Args:
        names: the values of some bare names.

    >>> python_calls("[math.add(a=1, b=-2.5), say(word=hello)]")
    [Call(name='math.add', arguments={'a': 1, 'b': -2.5}), Call(name='say', arguments={'word':
    'hello'})]
    """
    if len(text) > _LONGEST:
        raise ValueError(f"calls of more than {_LONGEST} characters are not read")
    try:
        body = ast.parse(text if text.startswith("[") else f"[{text}]", mode="eval").body
        calls = body.elts if isinstance(body, ast.List) else [body]
        return [_call(c, names or {}) for c in calls[:MOST]]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise ValueError(f"expected [name(key=value), …]: {reason}") from None


def python_value(text: str) -> Any:
    """The value of a Python literal. Raises ValueError.

    >>> python_value("{'k': [1, None, True]}")
    {'k': [1, None, True]}
    """
    (call,) = python_calls(f"value(of={text})", JSON_NAMES)
    return call.arguments["of"]


def _call(node: ast.expr, names: Mapping[str, Any]) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError(f"{ast.unparse(node)[:40]!r} is no call")
    if node.args or any(k.arg is None for k in node.keywords):
        raise ValueError("give every argument by its name")
    # Llama 3.1's own tools: brave_search.call(query=…)
    name = ast.unparse(node.func).removesuffix(".call")
    return Call(name, {str(k.arg): _literal(k.value, names) for k in node.keywords})


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a literal; the source text of any other expression. Raises ValueError."""
    match node:
        case ast.Constant(value=value):
            if not isinstance(value, str | int | float | bool | None):
                raise ValueError(f"a value cannot be of type {type(value).__name__}")
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item, names) for item in items]
        case ast.Dict(keys=keys, values=values):
            if any(k is None for k in keys):
                raise ValueError("a value cannot hold **")
            pairs = zip(keys, values, strict=True)
            return {str(_literal(k, names)): _literal(v, names) for k, v in pairs if k is not None}
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _arithmetic(_literal(left, names), type(op), _literal(right, names))
        case _:
            return ast.unparse(node)


def _arithmetic(a: Any, op: type[ast.operator], b: Any) -> float:
    good = all(isinstance(x, int | float) and abs(x) < 1e15 for x in (a, b))
    if not good or (op is ast.Div and b == 0):
        raise ValueError("arithmetic is on numbers below 1e15, without division by 0")
    return _OPERATIONS[op](a, b)

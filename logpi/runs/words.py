"""What a word like `NAME` or `NAME(1, key="x")` stands for: a name with arguments, and the object
that they make.

    language(en, weight=0.5)  ->  ("language", ["en"], {"weight": 0.5})

Arguments are literals: nothing is evaluated. Left out: objects of the user's own files
(`user_code.py`), and which names there are.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from logpi.errors import nearest

# A bare word is a text, but for these.
_VALUES = {"true": True, "false": False, "none": None, "inf": math.inf}


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, positional and named arguments of `name` or `name(1, key="x")`.

    Raises:
        ValueError: another form.

    >>> parse_call("soft_overlong(512, cache=128)")
    ('soft_overlong', [512], {'cache': 128})
    """
    text = text.strip()
    if re.fullmatch(r"[\w-]+", text):
        return text.replace("-", "_"), [], {}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if any(k.arg is None for k in call.keywords):
            raise ValueError
        named = {k.arg: _literal(k.value) for k in call.keywords if k.arg}
        return call.func.id, [_literal(a) for a in call.args], named
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"cannot read {text!r}: write NAME or NAME(value, option=value), a text that is not one"
            " word in quotes"
        ) from None


def _literal(node: ast.expr) -> Any:
    """The value of a literal. A bare word is a text: `language(en)` needs no quotes in a shell."""
    if isinstance(node, ast.Name):
        return _VALUES.get(node.id, node.id)
    return ast.literal_eval(node)


def build(
    kind: str, name: str, make: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]
) -> Any:
    """`make(*args, **options)`.

    Raises:
        ValueError: in one line: an unknown option and the nearest known one, a missing or surplus
            argument, a wrong type.
    """
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{kind} {name!r} has no option {option!r}; {nearest(option, known)}")
    try:
        inspect.signature(make).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r}: {error}; its options are: {', '.join(known)}") from None
    try:
        return make(*args, **options)
    # a text in place of a number, or the reverse
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{kind} {name!r}: {error}") from None

"""Calls as tags: a function's name and a tag for each parameter.

    <function=add><parameter=a>1</parameter></function>           Qwen3-Coder, Qwen 3.5, Nemotron 3,
                                                                  Seed-OSS
    <invoke name="add"><parameter name="a">1</parameter></invoke> MiniMax M2, DeepSeek V3.2
    add<arg_key>a</arg_key><arg_value>1</arg_value>               GLM 4.5
    <function=add>{"a": 1}</function>                             Functionary, Llama 3.1's prompt

Text and numbers look alike, so a value's type comes from the tool's schema; without one it stays
text. The format has no escape: a value ends where its closing tag is followed by what may follow
it, so it may hold any tag but two of them in a row, or a new call's beginning:

    <parameter=a>x</parameter>y</parameter></function>        a is `x</parameter>y`
    <parameter=a>x</parameter><parameter=b>y</parameter>…     a is `x`, b is `y`
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from logpi.calls.call import Call, Schema
from logpi.calls.objects import Text, blank, value_at
from logpi.calls.schema import read

NAME = r"[\w.\-/]+"
# a name space
_SPACE = r"(?:\w+:|｜DSML｜)?"
FUNCTION = re.compile(rf'<{_SPACE}(?:function|invoke)(?:=|\s+name=")([^<>\s"]+)"?\s*>')
PAIRED = re.compile(rf"({NAME})\s*(?=<arg_key>)")
_PARAMETER = re.compile(rf'\s*<{_SPACE}param(?:eter)?(?:=|\s+name=")([^<>\s"]+)"?[^<>]*>\n?')
_PARAMETER_ENDS = re.compile(
    rf"\n?</{_SPACE}param(?:eter)?>(?=\s*(?:<{_SPACE}param|</{_SPACE}(?:function|invoke)>))"
)
_FUNCTION_ENDS = re.compile(rf"\s*</{_SPACE}(?:function|invoke)>")
_KEY = re.compile(r"\s*<arg_key>([^<]*)</arg_key>\s*<arg_value>")
_VALUE_ENDS = re.compile(r"</arg_value>(?=\s*(?:<arg_key>|</tool_call>))")


def function_call(text: Text, at: int, end: int, known: Mapping[str, Schema]) -> tuple[Call, int]:
    """The `<function=…>` at `at`, which ends before `end`, and where it does. Raises ValueError."""
    begin = FUNCTION.match(text, at)
    if begin is None:
        raise ValueError("no <function=name>")
    name, at = begin[1], begin.end()
    if text.startswith("{", blank(text, at)):
        arguments, at = value_at(text, blank(text, at))
    else:
        arguments, at = _values(text, at, end, _types(name, known), (_PARAMETER, _PARAMETER_ENDS))
    close = _FUNCTION_ENDS.match(text, at)
    if close is None:
        raise ValueError(
            "no whole call: expected <parameter=key>value</parameter> and, after the last,"
            " </function>"
        )
    return Call(name, arguments), close.end()


def paired_call(text: Text, at: int, end: int, known: Mapping[str, Schema]) -> tuple[Call, int]:
    """The `name<arg_key>…` at `at`, which ends before `end`, and where it does. Raises
    ValueError."""
    begin = PAIRED.match(text, at)
    if begin is None:
        raise ValueError("no name with <arg_key>")
    arguments, at = _values(text, begin.end(), end, _types(begin[1], known), (_KEY, _VALUE_ENDS))
    return Call(begin[1], arguments), at


def _types(name: str, known: Mapping[str, Schema]) -> Mapping[str, Schema]:
    return known.get(name, {}).get("parameters", {}).get("properties", {})


def _values(
    text: Text,
    at: int,
    end: int,
    types: Mapping[str, Schema],
    form: tuple[re.Pattern[str], re.Pattern[str]],
) -> tuple[dict[str, object], int]:
    """Parameters by name, and where the last one ends. form: how one begins, and how it ends."""
    begins, ends, arguments = *form, {}
    while (key := begins.match(text, at)) is not None:
        close = ends.search(text, key.end(), end)
        if close is None or key[1] in arguments:
            problem = "is not closed" if close is None else "is given twice"
            raise ValueError(f"no whole call: parameter {key[1][:64]!r} {problem}")
        arguments[key[1]] = read(
            text[key.end() : close.start()], types.get(key[1], {"type": "string"})
        )
        at = close.end()
    return arguments, at

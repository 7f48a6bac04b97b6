"""Reads calls that are tags: a function's name and a tag for each parameter.

    <function=add><parameter=a>1</parameter></function>           Qwen3-Coder, Qwen 3.5, Nemotron 3,
                                                                  Seed-OSS
    <invoke name="add"><parameter name="a">1</parameter></invoke> MiniMax M2, DeepSeek V3.2
    add<arg_key>a</arg_key><arg_value>1</arg_value>               GLM 4.5
    <function=add>{"a": 1}</function>                             Functionary, Llama 3.1's prompt

Text and numbers look alike here, so the tool's schema gives a value its type; without a schema a
value stays text. The format has no escape. A value ends at a closing tag that another parameter or
the end of the call follows:

    <parameter=a>x</parameter>y</parameter></function>        a is `x</parameter>y`
    <parameter=a>x</parameter><parameter=b>y</parameter>…     a is `x`, b is `y`

Left out: the marks around calls (`reading.py`), and writing tags (`xml.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from logpi.calls.call import Call, Schema
from logpi.calls.objects import Text, blank, value_at
from logpi.calls.schema import read

NAME = r"[\w.\-/]+"
# an optional XML namespace
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
    """The `<function=…>` call at `at`, and its end, which precedes `end`. Raises ValueError."""
    begin = FUNCTION.match(text, at)
    if begin is None:
        raise ValueError("no <function=name>")
    name, at = begin[1], begin.end()
    if text.startswith("{", start := blank(text, at)):
        arguments, at = value_at(text, start)
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
    """The `name<arg_key>…` call at `at`, and its end, which precedes `end`. Raises ValueError."""
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
    """The parameters by name, and the end of the last one.

    Args:
        form: the patterns of a parameter's beginning and end.
    """
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

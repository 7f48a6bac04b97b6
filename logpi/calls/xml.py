"""Calls as tags: the format of Qwen3-Coder, Qwen 3.5, GLM-4-MoE and Nemotron-3.

    <tool_call>
    <function=add>
    <parameter=a>
    1
    </parameter>
    </function>
    </tool_call>

Text and numbers look alike, so a value's type comes from the tool's schema; without one it stays text. One line break at either end
of a value belongs to the format. A value cannot hold `</parameter>`: the format has no escape. Left out: calls inside of a thought, attributes, calls that are
not closed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from logpi.calls.call import MOST, Attempt, Call, Malformed, Schema, Tagged, answering, functions
from logpi.calls.schema import read

__all__ = ["Xml"]

_FUNCTION = re.compile(r"\s*<function=([^<>\s]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^<>\s]+)>\n?")


@dataclass(frozen=True)
class Xml(Tagged):
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    >>> Xml().parse("<tool_call><function=sin><parameter=x>\\n0\\n</parameter></function></tool_call>")
    [Call(name='sin', arguments={'x': '0'})]
    """

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        known = functions(tools)
        return [self._call(block, known) for block in islice(self._blocks(answering(text)), MOST)]

    def _blocks(self, text: str) -> Iterator[str | None]:
        """What stands between the tags; None for a block that is not closed."""
        start, end, at = f"<{self.tag}>", f"</{self.tag}>", 0
        while (at := text.find(start, at)) >= 0:
            close = text.find(end, at)
            yield text[at + len(start) : close] if close >= 0 else None
            if close < 0:
                return
            at = close + len(end)

    def _call(self, block: str | None, known: dict[str, Schema]) -> Attempt:
        if block is None:
            return Malformed(f"<{self.tag}> is not closed")
        begin = _FUNCTION.match(block)
        if begin is None:
            return Malformed(f"<{self.tag}> must begin with <function=name>")
        name, at, arguments = begin[1], begin.end(), {}
        types = known.get(name, {}).get("parameters", {}).get("properties", {})
        while (key := _PARAMETER.match(block, at)) is not None:
            end = block.find("</parameter>", key.end())
            if end < 0 or key[1] in arguments:
                problem = "is not closed" if end < 0 else "is given twice"
                return Malformed(f"<parameter={key[1]}> {problem}")
            arguments[key[1]] = read(block[key.end() : end].removesuffix("\n"), types.get(key[1], {"type": "string"}))
            at = end + len("</parameter>")
        if block[at:].strip() != "</function>":
            return Malformed("expected <parameter=key>value</parameter> and, after the last, </function>")
        return Call(name, arguments)

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<{self.tag}>\n<function={c.name}>\n{_parameters(c)}</function>\n</{self.tag}>" for c in calls
        )

    def system(self, tools: Sequence[Schema]) -> str:
        listed = "\n".join(json.dumps(t, ensure_ascii=False) for t in tools)
        return (
            f"# Tools\n\nYou have access to the following functions:\n<tools>\n{listed}\n</tools>\n\n"
            "If you choose to call a function, reply in this format, with nothing after it:\n"
            f"<{self.tag}>\n<function=example_function>\n<parameter=example_parameter>\nvalue\n</parameter>\n</function>\n</{self.tag}>"
        )


def _parameters(call: Call) -> str:
    return "".join(f"<parameter={k}>\n{_text(v)}\n</parameter>\n" for k, v in call.arguments.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Calls as tags: the formats of Qwen3-Coder, Qwen 3.5, Nemotron 3 (`Xml`) and of GLM 4.5 (`Glm`).

    <tool_call>                   <tool_call>add
    <function=add>                <arg_key>a</arg_key>
    <parameter=a>                 <arg_value>1</arg_value>
    1                             </tool_call>
    </parameter>
    </function>
    </tool_call>

How they are read, what type a value has and what it cannot hold is in `tags.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logpi.calls.call import Attempt, Call, Schema, dumps, framed
from logpi.calls.json import announced
from logpi.calls.reading import read


@dataclass(frozen=True)
class Xml:
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    >>> call = "<function=sin><parameter=x>\\n0\\n</parameter></function>"
    >>> Xml().parse(f"<tool_call>{call}</tool_call>")
    [Call(name='sin', arguments={'x': '0'})]
    """

    stop: tuple[str, ...] = ("</tool_call>",)

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        return read(text, tools)

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<tool_call>\n{self._written(c.name, c.arguments)}\n</tool_call>" for c in calls
        )

    def _written(self, name: str, arguments: Mapping[str, Any]) -> str:
        values = "".join(
            f"<parameter={k}>\n{_text(v)}\n</parameter>\n" for k, v in arguments.items()
        )
        return f"<function={name}>\n{values}</function>"

    def system(self, tools: Sequence[Schema]) -> str:
        return announced(
            tools, self.write([Call("example_function", {"example_parameter": "value"})])
        )

    def results(self, results: Sequence[str]) -> str:
        return framed(results)


@dataclass(frozen=True)
class Glm(Xml):
    """`<tool_call>name`, and for each argument `<arg_key>key</arg_key>` and
    `<arg_value>value</arg_value>`.

    >>> call = "sin\\n<arg_key>x</arg_key>\\n<arg_value>0</arg_value>"
    >>> Glm().parse(f"<tool_call>{call}\\n</tool_call>")
    [Call(name='sin', arguments={'x': '0'})]
    """

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<tool_call>{self._written(c.name, c.arguments)}\n</tool_call>" for c in calls
        )

    def _written(self, name: str, arguments: Mapping[str, Any]) -> str:
        pairs = (
            f"<arg_key>{k}</arg_key>\n<arg_value>{_text(v)}</arg_value>"
            for k, v in arguments.items()
        )
        return "\n".join([name, *pairs])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)

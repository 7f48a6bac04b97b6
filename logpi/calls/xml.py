"""Styles that write calls as tags: `Xml` (Qwen3-Coder, Qwen 3.5, Nemotron 3) and `Glm` (GLM 4.5).

    <tool_call>                   <tool_call>add
    <function=add>                <arg_key>a</arg_key>
    <parameter=a>                 <arg_value>1</arg_value>
    1                             </tool_call>
    </parameter>
    </function>
    </tool_call>

Left out: reading them, and the types and limits of values (`tags.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from logpi.calls.call import Call, dumps
from logpi.calls.json import Marked


@dataclass(frozen=True)
class Xml(Marked):
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    >>> call = "<function=sin><parameter=x>\\n0\\n</parameter></function>"
    >>> Xml().parse(f"<tool_call>{call}</tool_call>")
    [Call(name='sin', arguments={'x': '0'})]
    """

    stop: tuple[str, ...] = ("</tool_call>",)

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join(f"<tool_call>{self._written(c)}\n</tool_call>" for c in calls)

    def _written(self, call: Call) -> str:
        values = (f"<parameter={k}>\n{_text(v)}\n</parameter>\n" for k, v in call.arguments.items())
        return f"\n<function={call.name}>\n{''.join(values)}</function>"


@dataclass(frozen=True)
class Glm(Xml):
    """`<tool_call>name`, then `<arg_key>key</arg_key>` and `<arg_value>value</arg_value>` for each
    argument.

    >>> call = "sin\\n<arg_key>x</arg_key>\\n<arg_value>0</arg_value>"
    >>> Glm().parse(f"<tool_call>{call}\\n</tool_call>")
    [Call(name='sin', arguments={'x': '0'})]
    """

    def _written(self, call: Call) -> str:
        pairs = (
            f"<arg_key>{k}</arg_key>\n<arg_value>{_text(v)}</arg_value>"
            for k, v in call.arguments.items()
        )
        return "\n".join([call.name, *pairs])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)

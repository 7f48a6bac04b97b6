"""Tool calls: reads what models write, checks it against the tool's schema, writes calls.

    call.py         Call, Malformed, and the protocol of a style
    reading.py      finds the calls of any model family in a turn
    objects.py, tags.py, pythonic.py      read calls as JSON, as tags, in Python's syntax
    json.py         styles: Hermes and Qwen, other families that write JSON, ToolRL
    xml.py          styles: <function=…><parameter=…> (Qwen3-Coder), <arg_key>… (GLM)
    plain.py        styles: [f(a=1), g(b='x')] (BFCL, Llama 3.2), <search>q</search> (Search-R1)
    templates.py    finds the style of a model's chat template
    messages.py     brings conversations and tools of data sets to one form
    schema.py       makes a schema from a function, converts text to a type
    json_schema.py  checks values and schemas

The call `add(a=1, b=2)` in four styles:

    hermes   <tool_call>\\n{"name": "add", "arguments": {"a": 1, "b": 2}}\\n</tool_call>
    xml      <tool_call>\\n<function=add>\\n<parameter=a>\\n1\\n</parameter>…</function>…
    glm      <tool_call>add\\n<arg_key>a</arg_key>\\n<arg_value>1</arg_value>…</tool_call>
    python   [add(a=1, b=2)]

A reader takes any text, in linear time, because a policy may write anything. It evaluates nothing.
Left out: running a call (`envs/tools`), and its reward (`rewards`).
"""

from __future__ import annotations

from logpi.calls.call import Call, Malformed, Style
from logpi.calls.json import Family, Hermes, Lines
from logpi.calls.plain import Python, Search
from logpi.calls.xml import Glm, Xml

__all__ = [
    "STYLES",
    "Call",
    "Family",
    "Glm",
    "Hermes",
    "Lines",
    "Malformed",
    "Python",
    "Search",
    "Style",
    "Xml",
    "style",
]

_OBJECT = '{"name": {quoted}, "arguments": {arguments}}'
_SECTION = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_DEEPSEEK = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
STYLES: dict[str, Style] = {
    "hermes": Hermes(),
    "llama": Family('{"name": {quoted}, "parameters": {arguments}}', between="; "),
    "mistral": Family(_OBJECT, "[TOOL_CALLS][", "]", ", "),
    "mistral_args": Family("[TOOL_CALLS]{name}[ARGS]{arguments}"),
    "deepseek": Family(
        "<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>", *_DEEPSEEK
    ),
    "deepseek_json": Family(
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>",
        *_DEEPSEEK,
        "\n",
    ),
    "kimi": Family(
        "<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{arguments}"
        "<|tool_call_end|>",
        *_SECTION,
    ),
    "phi": Family(_OBJECT, "<|tool_call|>[", "]<|/tool_call|>", ", "),
    "functionary": Family("<function={name}>{arguments}</function>"),
    "xml": Xml(),
    "glm": Glm(),
    "lines": Lines(),
    "python": Python(),
    "search": Search(),
}


def style(name: str | Style) -> Style:
    """The style of a name; a style as it is.

    Raises:
        ValueError: no such style.

    >>> style("xml")
    Xml(stop=('</tool_call>',))
    """
    if not isinstance(name, str):
        return name
    if name not in STYLES:
        raise ValueError(
            f"no style of tool calls is called {name!r}: there are {', '.join(STYLES)}"
        )
    return STYLES[name]

"""What a model writes when it calls a tool: read, checked against the tool's schema, written.

    call.py      Call, Malformed, and the protocol of a style
    json.py      <tool_call>{"name": …, "arguments": …}</tool_call> (Hermes, Qwen), ToolRL's one object a line
    xml.py       <function=…><parameter=…> (Qwen3-Coder and its kin)
    plain.py     [f(a=1), g(b='x')] (BFCL's prompt), <search>query</search> (Search-R1)
    schema.py    a function's JSON schema, values checked against a schema, text read as one

Every reader is total and takes time linear in the text: what it reads was written by a policy that is paid to surprise us. Nothing is
ever evaluated. Left out: running a call (`envs/tools`), and what it is worth (`rewards`).
"""

from __future__ import annotations

from logpi.calls.call import Call, Malformed, Style
from logpi.calls.json import Hermes, Lines
from logpi.calls.plain import Python, Search
from logpi.calls.xml import Xml

__all__ = ["STYLES", "Call", "Hermes", "Lines", "Malformed", "Python", "Search", "Style", "Xml", "style"]

STYLES = {"hermes": Hermes, "xml": Xml, "lines": Lines, "python": Python, "search": Search}


def style(name: str | Style) -> Style:
    """A style by name; a style as it is.

    Raises:
        ValueError: no such style.

    >>> style("hermes")
    Hermes(tag='tool_call', result='tool_response')
    """
    if not isinstance(name, str):
        return name
    if name not in STYLES:
        raise ValueError(f"no style of tool calls is called {name!r}: there are {', '.join(STYLES)}")
    return STYLES[name]()

"""Calls as JSON: the Hermes format that Qwen 2.5 and Qwen 3 were trained on, other families' forms
of it, and ToolRL's.

    <tool_call>                                              (Hermes)
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

    <tool_call>                                              (ToolRL)
    {"name": "add", "parameters": {"a": 1, "b": 2}}
    {"name": "sin", "parameters": {"x": 0}}
    </tool_call>

`reading.py` reads calls: that does not depend on the style, but for ToolRL's, whose reader is the
published reward's. Not read: NaN and Infinity (no JSON), arguments as a string of JSON, calls
inside of a thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from logpi.calls.call import MOST, Attempt, Call, Malformed, Schema, defused, dumps, framed
from logpi.calls.objects import Text, as_call, blank, value_at
from logpi.calls.reading import pattern, read, scan

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_LINES = pattern(_OPEN)
_LINE_ENDS = re.compile(rf"\n|(?={_CLOSE})|\Z")
_SLOT = re.compile(r"\{(name|quoted|number|arguments)\}")


@dataclass(frozen=True)
class Family:
    """A family's way of writing calls.

    Attributes:
        call: one call, with {name}, {quoted} (the name as JSON), {number} (from 0) and {arguments}
            (as JSON).
        before, after, between: what stands around all calls, and between two. stop: what ends a
            turn.

    >>> llama = Family('{"name": {quoted}, "parameters": {arguments}}', between="; ")
    >>> llama.write([Call("sin", {"x": 0})])
    '{"name": "sin", "parameters": {"x": 0}}'
    """

    call: str
    before: str = ""
    after: str = ""
    between: str = ""
    stop: tuple[str, ...] = ()

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        return read(text, tools)

    def write(self, calls: Sequence[Call]) -> str:
        return (
            self.before
            + self.between.join(self._written(c, i) for i, c in enumerate(calls))
            + self.after
        )

    def _written(self, call: Call, number: int) -> str:
        parts = {
            "name": call.name,
            "quoted": dumps(call.name),
            "number": str(number),
            "arguments": dumps(dict(call.arguments)),
        }
        return _SLOT.sub(lambda slot: parts[slot[1]], self.call)

    def system(self, tools: Sequence[Schema]) -> str:
        return announced(
            tools, self.write([Call("example_function", {"example_parameter": "value"})])
        )

    def results(self, results: Sequence[str]) -> str:
        return framed(results)


def announced(tools: Sequence[Schema], example: str) -> str:
    """The tools, and how a call is written, for models whose template tells them of neither."""
    listed = "\n".join(map(dumps, tools))
    return (
        f"# Tools\n\nYou have access to the following functions:\n<tools>\n{listed}\n</tools>\n\n"
        f"If you choose to call a function, reply in this format, with nothing after it:\n{example}"
    )


@dataclass(frozen=True)
class Hermes(Family):
    """One `<tool_call>` for each call, key `arguments`; results between `<tool_response>` tags.

    >>> Hermes().parse('Let me see. <tool_call>{"name": "sin", "arguments": {"x": 0}}</tool_call>')
    [Call(name='sin', arguments={'x': 0})]
    """

    call: str = f'{_OPEN}\n{{"name": {{quoted}}, "arguments": {{arguments}}}}\n{_CLOSE}'
    between: str = "\n"
    stop: tuple[str, ...] = (_CLOSE,)

    def system(self, tools: Sequence[Schema]) -> str:
        """The block that Qwen's chat templates write."""
        listed = "\n".join(map(dumps, tools))
        return (
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML"
            f" tags:\n<tools>\n{listed}\n</tools>\n\n"
            "For each function call, return a json object with function name and arguments within"
            f" {_OPEN}{_CLOSE} XML tags:\n"
            f'{_OPEN}\n{{"name": <function-name>, "arguments": <args-json-object>}}\n{_CLOSE}'
        )


@dataclass(frozen=True)
class Lines:
    """ToolRL's format: all calls in one `<tool_call>`, one object a line, key `parameters`; only
    the first block is read.

    An object over several lines is no call, as in the published reward.

    >>> call = '{"name": "sin", "parameters": {"x": 0}}'
    >>> Lines().parse(f"<think>…</think>\\n<tool_call>\\n{call}\\n</tool_call>")
    [Call(name='sin', arguments={'x': 0})]
    """

    stop: tuple[str, ...] = (_CLOSE,)

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        blocks, _ = scan(Text(text), _LINES, _block)
        return blocks[0] if blocks else []

    def write(self, calls: Sequence[Call]) -> str:
        lines = [
            f'{{"name": {dumps(c.name)}, "parameters": {dumps(dict(c.arguments))}}}' for c in calls
        ]
        return "\n".join([_OPEN, *lines, _CLOSE])

    def system(self, tools: Sequence[Schema]) -> str:
        """ToolRL's system message, its list of tools and its output format; the wording is theirs
        (Apache-2.0)."""
        from logpi.calls.toolrl import system

        return system(tools)

    def results(self, results: Sequence[str]) -> str:
        return "".join(f"\n<obs> {defused(r, 'obs', 'tool_call')} </obs>" for r in results) + "\n"


def _block(text: Text, mark: re.Match[str], since: int, late: bool) -> tuple[list[Attempt], int]:
    """A `Body`: the lines up to the closing tag."""
    attempts: list[Attempt] = []
    at = blank(text, mark.end())
    while at < len(text) and not text.startswith(_CLOSE, at):
        attempt, at = _line(text, at)
        attempts += [attempt] if len(attempts) < MOST else []
        at = blank(text, at)
    if at >= len(text):
        return [Malformed(f"{_OPEN} is not closed")], at
    return list(islice(attempts, MOST)) or [Malformed("no call between the tags")], at + len(_CLOSE)


def _line(text: Text, at: int) -> tuple[Attempt, int]:
    """The call that one line is, and where the line ends."""
    try:
        value, end = value_at(text, at)
    except ValueError as error:
        return Malformed(f"a line is {error}; write each call as one line of JSON"), _end_of_line(
            text, at
        )
    after = _end_of_line(text, end)
    if text[end:after].strip() or "\n" in text[at:end]:
        return Malformed("write each call as one line of JSON, and nothing else in it"), after
    return as_call(value, "parameters"), after


def _end_of_line(text: Text, at: int) -> int:
    end = _LINE_ENDS.search(text, at)
    return end.start() if end else len(text)

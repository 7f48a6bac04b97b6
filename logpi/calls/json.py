"""Styles that write calls as JSON: Hermes (Qwen 2.5, Qwen 3), other model families, and ToolRL.

    <tool_call>                                              (Hermes)
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

    <tool_call>                                              (ToolRL)
    {"name": "add", "parameters": {"a": 1, "b": 2}}
    {"name": "sin", "parameters": {"x": 0}}
    </tool_call>

`reading.py` reads the calls of every style but ToolRL's, whose reader follows the published
reward. Left out: NaN and Infinity (not JSON), arguments as JSON text, calls inside a thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from logpi.calls.call import MOST, Attempt, Call, Malformed, Schema, defused, dumps
from logpi.calls.objects import Text, as_call, blank, value_at
from logpi.calls.reading import pattern, read, scan

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_LINES = pattern(_OPEN)
_LINE_ENDS = re.compile(rf"\n|(?={_CLOSE})|\Z")
_SLOT = re.compile(r"\{(name|quoted|number|arguments)\}")


class Marked:
    """The base of styles whose calls `reading.py` reads. A subclass adds `stop` and `write`."""

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        return read(text, tools)

    def write(self, calls: Sequence[Call]) -> str:
        raise NotImplementedError

    def system(self, tools: Sequence[Schema]) -> str:
        """The tools and an example of a call."""
        listed = "\n".join(map(dumps, tools))
        example = self.write([Call("example_function", {"example_parameter": "value"})])
        return (
            "# Tools\n\nYou have access to the following functions:\n"
            f"<tools>\n{listed}\n</tools>\n\nIf you choose to call a function, reply in this"
            f" format, with nothing after it:\n{example}"
        )

    def results(self, results: Sequence[str]) -> str:
        """Results between `<tool_response>` tags, as Hermes shows them."""
        shown = (defused(r, "tool_response", "tool_call") for r in results)
        return "\n" + "\n".join(f"<tool_response>\n{r}\n</tool_response>" for r in shown) + "\n"


@dataclass(frozen=True)
class Family(Marked):
    """The format of a model family, as a template of one call.

    Attributes:
        call: the template: {name}, {quoted} (the name as JSON), {number} (from 0), {arguments}
            (as JSON).
        before, after, between: text around all calls, and between two.
        stop: strings that end a turn.

    >>> llama = Family('{"name": {quoted}, "parameters": {arguments}}', between="; ")
    >>> llama.write([Call("sin", {"x": 0})])
    '{"name": "sin", "parameters": {"x": 0}}'
    """

    call: str
    before: str = ""
    after: str = ""
    between: str = ""
    stop: tuple[str, ...] = ()

    def write(self, calls: Sequence[Call]) -> str:
        texts = [self._written(call, number) for number, call in enumerate(calls)]
        return self.before + self.between.join(texts) + self.after

    def _written(self, call: Call, number: int) -> str:
        parts = {
            "name": call.name,
            "quoted": dumps(call.name),
            "number": str(number),
            "arguments": dumps(dict(call.arguments)),
        }
        return _SLOT.sub(lambda slot: parts[slot[1]], self.call)


@dataclass(frozen=True)
class Hermes(Family):
    """One `<tool_call>` for each call, with the key `arguments`.

    >>> Hermes().parse('Let me see. <tool_call>{"name": "sin", "arguments": {"x": 0}}</tool_call>')
    [Call(name='sin', arguments={'x': 0})]
    """

    call: str = f'{_OPEN}\n{{"name": {{quoted}}, "arguments": {{arguments}}}}\n{_CLOSE}'
    between: str = "\n"
    stop: tuple[str, ...] = (_CLOSE,)

    def system(self, tools: Sequence[Schema]) -> str:
        """The text of Qwen's chat templates."""
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
    """ToolRL's format: one `<tool_call>` for all calls, one object a line, the key `parameters`.

    The reader takes the first block. As in the published reward, an object over several lines is
    not a call.

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
        """ToolRL's system message, in the authors' words (Apache-2.0)."""
        from logpi.calls.toolrl import system

        return system(tools)

    def results(self, results: Sequence[str]) -> str:
        return "".join(f"\n<obs> {defused(r, 'obs', 'tool_call')} </obs>" for r in results) + "\n"


def _block(text: Text, mark: re.Match[str], since: int, late: bool) -> tuple[list[Attempt], int]:
    """A `Body` (`reading.py`): reads lines up to the closing tag."""
    attempts: list[Attempt] = []
    at = blank(text, mark.end())
    while at < len(text) and not text.startswith(_CLOSE, at):
        attempt, at = _line(text, at)
        attempts += [attempt] if len(attempts) < MOST else []
        at = blank(text, at)
    if at >= len(text):
        return [Malformed(f"{_OPEN} is not closed")], at
    return attempts or [Malformed("no call between the tags")], at + len(_CLOSE)


def _line(text: Text, at: int) -> tuple[Attempt, int]:
    """The call on one line, and the end of the line."""
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

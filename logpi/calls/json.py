"""Calls as JSON between tags: the Hermes format that Qwen 2.5 and Qwen 3 were trained on, and ToolRL's.

    <tool_call>                                              <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}           {"name": "add", "parameters": {"a": 1, "b": 2}}
    </tool_call>                                             {"name": "sin", "parameters": {"x": 0}}
                                                             </tool_call>

JSON is read from the opening tag on, so a closing tag inside of a string closes nothing. Not read: NaN and Infinity (no JSON),
arguments as a string of JSON, calls inside of a thought.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from logpi.calls.call import MOST, Attempt, Call, Malformed, Schema, Tagged, answering, defused

__all__ = ["Hermes", "Lines"]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _value(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `at`, and where it ends. Raises ValueError in one short line."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at character {error.pos - at})") from None
    except RecursionError:
        raise ValueError("not valid JSON (nested too deep)") from None


def _blank(text: str, at: int) -> int:
    """Where the white space at `at` ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _call(value: Any, key: str) -> Attempt:
    """A decoded object as a call; other keys than the two are passed over."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Malformed(f'a call must be an object {{"name": …, "{key}": {{…}}}} with a text as name')
    if not isinstance(value.get(key), dict):
        return Malformed(f'the call of {value["name"]!r} needs "{key}" as an object of its parameters')
    return Call(value["name"], value[key])


def _dump(call: Call, key: str) -> str:
    return json.dumps({"name": call.name, key: dict(call.arguments)}, ensure_ascii=False)


@dataclass(frozen=True)
class Hermes(Tagged):
    """One `<tool_call>` for each call, key `arguments`; results between `<tool_response>` tags.

    >>> Hermes().parse('Let me see. <tool_call>{"name": "sin", "arguments": {"x": 0}}</tool_call>')
    [Call(name='sin', arguments={'x': 0})]
    """

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        return list(islice(self._attempts(answering(text)), MOST))

    def _attempts(self, text: str) -> Iterator[Attempt]:
        start, end, at = f"<{self.tag}>", f"</{self.tag}>", 0
        while (at := text.find(start, at)) >= 0:
            at = _blank(text, at + len(start))
            try:
                value, after = _value(text, at)
                after = _blank(text, after)
                if not text.startswith(end, after):
                    raise ValueError(f"not closed by {end} right after one object")
                yield _call(value, "arguments")
                at = after + len(end)
            except ValueError as error:
                yield Malformed(f"what stands after {start} is {error}")
                at = text.find(end, at)
                if at < 0:
                    return

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join(f"<{self.tag}>\n{_dump(c, 'arguments')}\n</{self.tag}>" for c in calls)

    def system(self, tools: Sequence[Schema]) -> str:
        """The block that Qwen's chat templates write."""
        listed = "\n".join(json.dumps(t, ensure_ascii=False) for t in tools)
        return (
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{listed}\n</tools>\n\n"
            f"For each function call, return a json object with function name and arguments within <{self.tag}></{self.tag}> XML tags:\n"
            f'<{self.tag}>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</{self.tag}>'
        )


@dataclass(frozen=True)
class Lines:
    """ToolRL's format: all calls in one `<tool_call>`, one object a line, key `parameters`.

    An object over several lines is no call, as in the published reward.

    >>> Lines().parse('<think>…</think>\\n<tool_call>\\n{"name": "sin", "parameters": {"x": 0}}\\n</tool_call>')
    [Call(name='sin', arguments={'x': 0})]
    """

    tag: str = "tool_call"
    result: str = "obs"

    @property
    def stop(self) -> tuple[str, ...]:
        return (f"</{self.tag}>",)

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        _, opened, body = answering(text).partition(f"<{self.tag}>")
        if not opened:
            return []
        inner, closed, _ = body.partition(f"</{self.tag}>")
        if not closed:
            return [Malformed(f"<{self.tag}> is not closed")]
        return [self._line(line) for line in inner.split("\n") if line.strip()][:MOST] or [
            Malformed("no call between the tags")
        ]

    @staticmethod
    def _line(line: str) -> Attempt:
        line = line.strip()
        try:
            value, end = _value(line)
        except ValueError as error:
            return Malformed(f"a line is {error}; write each call as one line of JSON")
        return _call(value, "parameters") if end == len(line) else Malformed("a line holds more than one JSON object")

    def write(self, calls: Sequence[Call]) -> str:
        return "\n".join([f"<{self.tag}>", *(_dump(c, "parameters") for c in calls), f"</{self.tag}>"])

    def system(self, tools: Sequence[Schema]) -> str:
        """ToolRL's system message, its list of tools and its output format; the wording is theirs (Apache-2.0)."""
        from logpi.calls.toolrl import system

        return system(tools)

    def results(self, results: Sequence[str]) -> str:
        return (
            "".join(f"\n<{self.result}> {defused(r, self.result, self.tag)} </{self.result}>" for r in results) + "\n"
        )

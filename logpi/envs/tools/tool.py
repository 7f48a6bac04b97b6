"""A tool: a name, a description, a JSON schema of its arguments, and a function.

The function's result becomes text: strings as they are, everything else as JSON. Left out: time
limits (the rollout has them), schemas of results.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logpi.calls.json_schema import problem
from logpi.calls.schema import from_function, standard
from logpi.envs.conversation import encodable
from logpi.runs.user_code import from_user_code, is_user_code


class ToolError(Exception):
    """A call without a result; the model reads its text."""


@dataclass(frozen=True)
class Tool:
    """A function that a policy may call while it writes.

    Attributes:
        name, description: for the model. parameters: JSON schema of the arguments, of type object.
        run: called with the arguments by name, perhaps async. Its exception is an error that the
            model reads.

    >>> def add(a: int, b: int) -> int:
    ...     '''Adds two numbers.'''
    ...     return a + b
    >>> tool(add)({"a": 2, "b": 3})
    '5'
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[..., Any] = field(repr=False)

    @property
    def schema(self) -> dict[str, Any]:
        """For a chat template's `tools`."""
        inner = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": inner}

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        """The result as text.

        Raises:
            ToolError: arguments that do not fit the schema; the text says what was expected. The
                tool's own exceptions pass through.
        """
        wrong = problem(dict(arguments), self.parameters)
        if wrong:
            raise ToolError(f"{self.name}: {wrong}")
        result = self.run(**arguments)
        return text(asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)


async def _awaited(result: Any) -> Any:
    return await result


def text(result: Any) -> str:
    """A tool's result as text, in characters that can be encoded."""
    if result is None:
        return ""
    return encodable(
        result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    )


def tool(source: Callable[..., Any] | Tool | str) -> Tool:
    """A tool from a Python function with type hints and a docstring, or from `FILE.py:NAME`, which
    names a function or a tool.

    Raises:
        ValueError: no docstring, or a parameter without a type hint that JSON knows (see
            `calls.schema.from_function`); neither a function nor a tool. UserError: as
            `from_user_code`.
    """
    name = source if isinstance(source, str) else type(source).__name__
    if isinstance(source, str) and is_user_code(source):
        source = from_user_code(source)
    if isinstance(source, Tool):
        return source
    if not callable(source):
        raise ValueError(f"{name}: a tool is a function, a Tool, or FILE.py:NAME of one")
    schema = from_function(source)["function"]
    return Tool(schema["name"], schema["description"], schema["parameters"], source)


def openai_tools(
    schemas: Sequence[Mapping[str, Any]], dispatch: Callable[[str, dict[str, Any]], Any]
) -> list[Tool]:
    """Tools from an OpenAI-style list and one function for all of them: `dispatch(name,
    arguments)`.

    Raises:
        ValueError: an entry without a name.
    """
    tools = []
    for entry in schemas:
        inner = entry.get("function", entry)
        if not inner.get("name"):
            raise ValueError(f"a tool needs a name: {str(entry)[:80]}")
        parameters = standard(inner.get("parameters") or {"type": "object", "properties": {}})
        tools.append(
            Tool(
                inner["name"],
                inner.get("description", ""),
                parameters,
                _bound(dispatch, inner["name"]),
            )
        )
    return tools


def _bound(dispatch: Callable[[str, dict[str, Any]], Any], name: str) -> Callable[..., Any]:
    return lambda **arguments: dispatch(name, arguments)

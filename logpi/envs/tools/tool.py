"""A tool: a name, what the model reads of it, a schema of its arguments, and somebody to answer a
call.

What a tool returns becomes text: strings as they are, everything else as JSON. Left out: time
limits (the rollout's), schemas of results.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logpi.calls.schema import from_function, problem, standard
from logpi.envs.conversation import encodable


class ToolError(Exception):
    """A call that cannot be answered; its text is what the model reads."""


@dataclass(frozen=True)
class Tool:
    """Something to call.

    Attributes:
        name, description: what the model reads. parameters: JSON schema of the arguments, an
            object.
        run: called with the arguments by name; what it returns is the result, what it raises an
            error for the model. May be async.

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
            ToolError: arguments that do not fit the schema; the text says what was expected. What
                the tool itself raises is not caught.
        """
        wrong = problem(dict(arguments), self.parameters)
        if wrong:
            raise ToolError(f"{self.name}: {wrong}")
        result = self.run(**arguments)
        return text(asyncio.run(_finish(result)) if inspect.isawaitable(result) else result)


async def _finish(awaitable: Any) -> Any:
    return await awaitable


def text(result: Any) -> str:
    """A tool's result as the model reads it, in characters that can be encoded."""
    if result is None:
        return ""
    return encodable(
        result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    )


def tool(function: Callable[..., Any] | Tool) -> Tool:
    """A Python function as a tool, from its type hints and docstring; a tool as it is.

    Raises:
        ValueError: no docstring, or a parameter without a type hint that JSON knows (see
            `calls.schema.from_function`).
    """
    if isinstance(function, Tool):
        return function
    made = from_function(function)["function"]
    return Tool(made["name"], made["description"], made["parameters"], function)


def openai_tools(
    schemas: Sequence[Mapping[str, Any]], dispatch: Callable[[str, dict[str, Any]], Any]
) -> list[Tool]:
    """Tools from an OpenAI-style list and one function that answers all of them: `dispatch(name,
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
                _answered(dispatch, inner["name"]),
            )
        )
    return tools


def _answered(dispatch: Callable[[str, dict[str, Any]], Any], name: str) -> Callable[..., Any]:
    return lambda **arguments: dispatch(name, arguments)

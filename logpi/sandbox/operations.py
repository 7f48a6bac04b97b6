"""Carries out the other side's requests on an object of this side: the other end of a mirror
(`mirrors.py`).

Left out: which operations are allowed (`rpc.py`).
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from logpi.sandbox.mirrors import SPECIALS
from logpi.sandbox.plain import held, plain_base

# seconds for which an awaitable runs before the other side's tasks take their turn
_SLICE = 0.01


def operate(connection: Any, op: str, thing: Any, args: list[Any], named: dict[str, Any]) -> Any:
    """The result of one operation on an object of this side."""
    match op:
        case "call":
            return thing(*args, **named)
        case "get":
            return getattr(thing, args[0])
        case "set":
            return setattr(thing, args[0], args[1])
        case "del":
            return delattr(thing, args[0])
        case "method":
            return getattr(thing, args[0])(*args[1:], **named)
        case "special" if args[0] in SPECIALS:
            return getattr(type(thing), args[0])(thing, *args[1:])
        case "data":
            return held(plain_base(type(thing)) or object, thing)
        case "isinstance":
            return isinstance(args[0], thing)
        case "issubclass":
            return issubclass(args[0], thing)
        case "dir":
            return dir(thing)
        case "copy":
            return copy.copy(thing)
        case "deepcopy":
            return copy.deepcopy(thing)
        case "start":
            return _start(connection, thing)
        case "poll":
            return _poll(connection, args[0])
        case "cancel":
            return connection.tasks[1][args[0]].cancel()
    raise ValueError(f"no operation {op!r}")


async def _whole(awaitable: Any) -> Any:
    return await awaitable


def _start(connection: Any, thing: Any) -> int:
    if connection.tasks is None:
        connection.tasks = (asyncio.new_event_loop(), {})
    loop, tasks = connection.tasks
    tasks[len(tasks)] = loop.create_task(_whole(thing))
    return len(tasks) - 1


def _poll(connection: Any, number: int) -> tuple[bool, Any]:
    loop, tasks = connection.tasks
    loop.run_until_complete(asyncio.wait([tasks[number]], timeout=_SLICE))
    return (True, tasks[number].result()) if tasks[number].done() else (False, None)

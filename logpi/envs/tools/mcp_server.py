"""An MCP server's tools (Model Context Protocol): listed once, called from any thread.

The protocol's sessions are asynchronous and belong to one event loop, which runs here in a thread of its own. Needs the package `mcp`
(pip install logpi[mcp]) to start a server; any object with `list_tools` and `call_tool` will do as a session. Left out: resources,
prompts, sampling, and results that are not text (they are named, not shown).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from logpi.calls.schema import standard
from logpi.envs.tools.tool import Tool, ToolError

__all__ = ["McpServer"]


class McpServer:
    """A connection to an MCP server; a context manager.

        with McpServer.command("uvx", "mcp-server-time") as server:
            env = ToolEnv(server.tools)

    Args:
        session: makes an asynchronous context manager that gives an initialised session.
        timeout: seconds that a call may take.

    Raises:
        ValueError: on entering, if the server does not start or does not list its tools; the text says why.
    """

    def __init__(self, session: Callable[[], AbstractAsyncContextManager[Any]], timeout: float = 30.0) -> None:
        self._open, self.timeout = session, timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._stop: asyncio.Event | None = None
        self.tools: tuple[Tool, ...] = ()

    @classmethod
    def command(cls, command: str, *arguments: str, timeout: float = 30.0) -> McpServer:
        """A server that is started here and spoken to over its standard input and output."""
        return cls(lambda: _stdio(command, arguments), timeout)

    def __enter__(self) -> McpServer:
        self._thread.start()
        ready: asyncio.Future[Any] = self._loop.create_future()
        self._life = asyncio.run_coroutine_threadsafe(self._serve(ready), self._loop)
        try:
            listed = asyncio.run_coroutine_threadsafe(_wait(ready, self.timeout), self._loop).result()
        except Exception as error:
            self.__exit__()
            raise ValueError(f"the MCP server does not answer: {type(error).__name__}: {error}") from None
        self.tools = tuple(self._tool(t) for t in listed)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        try:
            self._life.result(self.timeout)
        except Exception:  # the server is gone already
            self._life.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self.timeout)

    async def _serve(self, ready: asyncio.Future[Any]) -> None:
        """The session's whole life in one task, as its cancel scopes demand."""
        self._stop = asyncio.Event()
        try:
            async with self._open() as self._session:
                ready.set_result(await _listed(self._session))
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))

    def _tool(self, listed: Any) -> Tool:
        parameters = _either(listed, "inputSchema", "input_schema") or {"type": "object", "properties": {}}

        def run(**arguments: Any) -> str:
            asked = asyncio.run_coroutine_threadsafe(self._session.call_tool(listed.name, arguments), self._loop)
            try:
                result = asked.result(self.timeout)
            except TimeoutError:
                asked.cancel()
                raise ToolError(f"{listed.name} did not answer within {self.timeout:g} s") from None
            shown = "\n".join(_part(p) for p in result.content)
            if _either(result, "isError", "is_error"):
                raise ToolError(shown or f"{listed.name} failed")
            return shown

        return Tool(listed.name, listed.description or "", standard(parameters), run)


async def _wait(ready: asyncio.Future[Any], seconds: float) -> Any:
    return await asyncio.wait_for(ready, seconds)


async def _listed(session: Any) -> list[Any]:
    """Every page of the server's tools."""
    page = await session.list_tools()
    tools = list(page.tools)
    while cursor := _either(page, "nextCursor", "next_cursor"):
        page = await session.list_tools(params=_page(cursor))
        tools += page.tools
    return tools


def _page(cursor: str) -> Any:
    from mcp.types import PaginatedRequestParams  # pyright: ignore[reportMissingImports]

    return PaginatedRequestParams(cursor=cursor)


def _either(thing: Any, *names: str) -> Any:
    """A field under its name of protocol versions before and after the package's second major version."""
    return next((getattr(thing, n) for n in names if getattr(thing, n, None) is not None), None)


def _part(part: Any) -> str:
    return str(part.text) if getattr(part, "text", None) is not None else f"[{getattr(part, 'type', 'data')}]"


@asynccontextmanager
async def _stdio(command: str, arguments: Sequence[str]) -> AsyncIterator[Any]:
    try:
        from mcp import ClientSession, StdioServerParameters  # pyright: ignore[reportMissingImports]
        from mcp.client.stdio import stdio_client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("an MCP server needs the package mcp: pip install logpi[mcp]") from None
    async with (
        stdio_client(StdioServerParameters(command=command, args=list(arguments))) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session

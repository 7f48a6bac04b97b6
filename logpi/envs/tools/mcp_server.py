"""An MCP server's tools (Model Context Protocol): listed once, called from any thread.

The protocol's sessions are asynchronous and belong to one event loop, which runs in a thread of its
own. Starting a server needs the package `mcp` (the extra `mcp`); a session may be any object
with `list_tools` and `call_tool`. A server is not trusted: its lists and results are checked, have
a deadline, and are cut to `LONGEST` characters. Left out: resources, prompts, sampling, and results
that are not text (the model reads only their type).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from logpi.calls.schema import standard
from logpi.envs.conversation import encodable
from logpi.envs.tools.tool import Tool, ToolError
from logpi.errors import install

MOST = 1_000  # tools of a server
LONGEST = 1_000_000  # characters of a result


class McpServer:
    """A connection to an MCP server, as a context manager.

        with McpServer.command("uvx", "mcp-server-time") as server:
            env = ToolEnvironment(server.tools)

    Args:
        session: makes an asynchronous context manager that gives an initialised session.
        timeout: seconds that a call may take.

    Raises:
        ValueError: on entering, if the server does not start or does not list its tools; the text
            says why.
    """

    def __init__(
        self, session: Callable[[], AbstractAsyncContextManager[Any]], timeout: float = 30.0
    ) -> None:
        self._open, self.timeout = session, timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._stop: asyncio.Event | None = None
        self._ended = threading.Event()
        self.tools: tuple[Tool, ...] = ()

    @classmethod
    def command(cls, command: str, *arguments: str, timeout: float = 30.0) -> McpServer:
        """A server that runs as a child process and speaks over standard input and output."""
        return cls(lambda: _stdio(command, arguments), timeout)

    def __enter__(self) -> McpServer:
        self._thread.start()
        ready: asyncio.Future[Any] = self._loop.create_future()
        self._life = asyncio.run_coroutine_threadsafe(self._serve(ready), self._loop)
        try:
            wait = asyncio.wait_for(ready, self.timeout)
            listed = asyncio.run_coroutine_threadsafe(wait, self._loop).result()
        except Exception as error:
            self._life.cancel()
            self.__exit__()
            what = (
                f"nothing in {self.timeout:g} s"
                if isinstance(error, TimeoutError)
                else _reason(error)
            )
            raise ValueError(f"the MCP server does not answer: {what}") from None
        try:
            self.tools = tuple(self._tool(t) for t in listed)
        except Exception as error:
            self.__exit__()
            raise ValueError(
                f"the MCP server lists a tool that cannot be used: {_reason(error)}"
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if not self._ended.wait(self.timeout):
            self._life.cancel()
            self._ended.wait(1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self.timeout)
        if not self._loop.is_running():
            self._loop.close()

    async def _serve(self, ready: asyncio.Future[Any]) -> None:
        """Open and close the session in one task, which its cancel scopes need."""
        self._stop = asyncio.Event()
        try:
            async with self._open() as self._session:
                ready.set_result(await _listed(self._session))
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(
                    error if isinstance(error, Exception) else RuntimeError(str(error))
                )
        finally:
            self._ended.set()

    def _tool(self, listed: Any) -> Tool:
        """A listed tool. A malformed listing raises any exception."""
        name = listed.name
        if not isinstance(name, str) or not name or encodable(name) != name:
            raise ToolError(f"its name is {str(name)[:60]!r}")
        parameters = _either(listed, "inputSchema", "input_schema") or {
            "type": "object",
            "properties": {},
        }
        if not isinstance(parameters, Mapping) or not isinstance(
            parameters.get("properties", {}), Mapping
        ):
            raise ToolError(f"{name}'s schema is {str(parameters)[:60]!r}")

        def run(**arguments: Any) -> str:
            return self._called(name, arguments)

        return Tool(
            name,
            encodable(str(listed.description or ""))[:LONGEST],
            standard(encodable(parameters)),
            run,
        )

    def _called(self, name: str, arguments: dict[str, Any]) -> str:
        """The text of a call's result."""
        if self._ended.is_set():
            raise ToolError("the MCP server has ended")
        request = asyncio.run_coroutine_threadsafe(
            self._session.call_tool(name, arguments), self._loop
        )
        try:
            result = request.result(self.timeout)
        except TimeoutError:
            request.cancel()
            raise ToolError(f"{name} did not answer within {self.timeout:g} s") from None
        content = getattr(result, "content", None)
        if not isinstance(content, list | tuple):
            raise ToolError(f"{name} answered with {type(result).__name__}, which is no result")
        text = "\n".join(_part(p) for p in content)[:LONGEST]
        if _either(result, "isError", "is_error"):
            raise ToolError(text or f"{name} failed")
        return text


def _reason(error: BaseException) -> str:
    """The error as text, of a group of errors the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


async def _listed(session: Any) -> list[Any]:
    """Every page of the server's tools."""
    page = await session.list_tools()
    tools = list(page.tools)
    while cursor := _either(page, "nextCursor", "next_cursor"):
        if len(tools) > MOST or not page.tools:
            raise ToolError(f"it lists tools without an end ({len(tools)} so far)")
        page = await session.list_tools(params=_page(cursor))
        tools += page.tools
    return tools


def _page(cursor: str) -> Any:
    from mcp.types import PaginatedRequestParams  # pyright: ignore[reportMissingImports]

    return PaginatedRequestParams(cursor=cursor)


def _either(thing: Any, *names: str) -> Any:
    """A field by its name in the package's first major version, or in its second."""
    return next((getattr(thing, n) for n in names if getattr(thing, n, None) is not None), None)


def _part(part: Any) -> str:
    text = getattr(part, "text", None)
    return text if isinstance(text, str) else f"[{getattr(part, 'type', 'data')}]"


@asynccontextmanager
async def _stdio(command: str, arguments: Sequence[str]) -> AsyncIterator[Any]:
    try:
        from mcp import ClientSession, StdioServerParameters  # pyright: ignore[reportMissingImports]
        from mcp.client.stdio import stdio_client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(f"an MCP server needs the package mcp: {install('mcp')}") from None
    async with (
        stdio_client(StdioServerParameters(command=command, args=list(arguments))) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session

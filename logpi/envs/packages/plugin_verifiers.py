"""What verifiers runs in its own event loop, so that it plays its episodes with our policy: a
harness, a client, and the thread of the loop.

    Harness   the program that talks with the model: here a chat loop in this process, which calls
              the task's tools (as its `null` harness does, which is a process of its own)
    Client    reaches the model: here it hands every request to the `Episode` that asked

Everything else is verifiers' own: setup, stops, interceptors, tool servers, scoring. This file
needs the package and is loaded with it. Written for verifiers 0.4. Left out: token counts in its
traces; the tokens are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx  # pyright: ignore[reportMissingImports]
from verifiers.v1 import (  # pyright: ignore[reportMissingImports]
    Client,
    EvalClientConfig,
    HarnessConfig,
    ModelContext,
    ProgramResult,
)
from verifiers.v1 import Harness as BaseHarness  # pyright: ignore[reportMissingImports]
from verifiers.v1.dialects.chat import (  # pyright: ignore[reportMissingImports]
    message_to_wire,
)
from verifiers.v1.errors import model_error  # pyright: ignore[reportMissingImports]
from verifiers.v1.harnesses.utils.compaction import (  # pyright: ignore[reportMissingImports]
    bound_tool_message,
)
from verifiers.v1.harnesses.utils.mcp import (  # pyright: ignore[reportMissingImports]
    call_mcp,
    connect_mcp,
)

from logpi.envs.packages.verifiers_episode import Episode, Left, Over

__all__ = ["ChatLoop"]

HARNESS = "logpi_verifiers"
"""The name under which verifiers finds the harness: a module of the top level, as a plugin's is."""
sys.modules[HARNESS] = sys.modules[__name__]


class ChatLoop(BaseHarness[HarnessConfig]):
    """The conversation of a model with its task's tools, until it calls none."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_MCP = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: ModelContext,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        **_: Any,
    ) -> ProgramResult:
        servers = {"mcpServers": {name: {"url": url} for name, url in mcp_urls.items()}}
        async with AsyncExitStack() as stack:
            tools, dispatch, connections = await connect_mcp(servers, stack)
            headers = {"Authorization": f"Bearer {secret}"}
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=endpoint, headers=headers, timeout=None)
            )
            messages = opening(self, data)
            while (said := await _turn(http, ctx, messages, tools)) is not None:
                messages.append(said)
                if not said.get("tool_calls"):
                    return ProgramResult(0, "", "")
                for call in said["tool_calls"]:
                    messages.append(await _result(call, dispatch, connections))
        stopped = trace.stop_condition is not None
        return ProgramResult(0 if stopped else 1, "", "the model's request was refused")


def opening(harness: BaseHarness, data: Any) -> list[dict[str, Any]]:
    """The first messages of a conversation, in OpenAI's form."""
    system, prompt = harness.resolve_prompt(data)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    if isinstance(prompt, str):
        return [*messages, {"role": "user", "content": prompt}]
    return [*messages, *map(message_to_wire, prompt or [])]


def written(data: Any) -> list[dict[str, Any]]:
    """The first messages of an episode that its task writes."""
    return opening(ChatLoop(HarnessConfig()), data)


async def _turn(
    http: httpx.AsyncClient, ctx: ModelContext, messages: Any, tools: Any
) -> dict[str, Any] | None:
    """The model's next message; None where verifiers asks for no more."""
    body = {"model": ctx.model, "messages": messages} | ({"tools": tools} if tools else {})
    response = await http.post("chat/completions", json=body)
    if response.status_code != 200:
        return None
    message = response.json()["choices"][0]["message"]
    return {k: v for k, v in message.items() if v is not None}


async def _result(call: Any, dispatch: Any, connections: Any) -> dict[str, Any]:
    """A tool's message: its result, or what is wrong with the call. `words.py` wrote the
    arguments, which are a JSON object."""
    import json

    name = call["function"]["name"]
    if name in dispatch:
        arguments = json.loads(call["function"]["arguments"])
        content = await call_mcp(connections, dispatch, name, arguments)
    else:
        content = f"error: unknown tool {name!r}"
    told = {"role": "tool", "tool_call_id": call["id"], "content": content, "name": name}
    return bound_tool_message(told)


class PolicyClient(Client):
    """Hands each request to the episode that it belongs to, by the id of its trace."""

    def __init__(self, episodes: Mapping[str, Episode]) -> None:
        self.episodes = episodes

    async def get_response(
        self,
        dialect: Any,
        body: dict[str, Any],
        sampling: Any,
        session_id: str | None = None,
        turn: Any = None,
        headers: Any = None,
    ) -> Any:
        try:
            message, finish = await self.episodes[session_id or ""].ask(
                body["messages"], body.get("tools") or []
            )
        except Left:
            # a stopped episode is judged as it is; a failed one is not
            turn.trace.stop("max_turns")
            raise model_error("logpi asks for no further turn", status_code=400) from None
        finish = "tool_calls" if message.get("tool_calls") else finish
        raw = {
            "id": "logpi",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        response = dialect.parse_response(dialect.validate_response(raw))
        response.raw = raw
        return response


class Host:
    """An environment of verifiers that serves, in the event loop of a thread.

    Args:
        env: the environment. Its resources live until the process ends.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.episodes = env, {}
        self.context = ModelContext("logpi", EvalClientConfig(base_url="http://logpi.invalid"))
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="verifiers", daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._serve(), self.loop).result()

    async def _serve(self) -> None:
        """Bring up what the environment's episodes share, and put our client in place of the one
        that would ask a server."""
        self._serving = self.env.serving()
        await self._serving.__aenter__()
        clients = self.env._interception.clients
        clients[self.context.client.model_dump_json()] = PolicyClient(self.episodes)

    def episode(self, task: Any) -> Episode:
        """A new episode of a task."""
        return Episode(self.loop, lambda episode: self._play(task, episode))

    async def _play(self, task: Any, episode: Episode) -> Over:
        ids: list[str] = []

        def minted(trace: Any) -> None:
            ids.append(trace.id)
            self.episodes[trace.id] = episode

        try:
            done = await self.env.run_episode(task, self.context, on_trace=minted)
        finally:
            for id_ in ids:
                self.episodes.pop(id_, None)
        return _over(done)

    def close(self) -> None:
        """End what serves."""
        with contextlib.suppress(Exception):
            work = self._serving.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(work, self.loop).result(10.0)


def _over(done: Any) -> Over:
    """The verdict of a finished episode. An error of the environment's code is no verdict."""
    errors = [*done.errors, *(e for trace in done.traces for e in trace.errors)]
    if not done.ok or len(done.traces) != 1:
        last = errors[-1] if errors else None
        return Over(error=f"{last.type}: {last.message}" if last else "it played no single trace")
    (trace,) = done.traces
    scored = {name: r for name, r in trace.rewards.items() if r is not None}
    return Over(
        {name: r.score if r is not None else None for name, r in trace.rewards.items()},
        {name: r.weight for name, r in scored.items()},
        dict(trace.metrics),
    )

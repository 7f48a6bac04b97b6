"""MCP servers as strangers: what they list, what they answer, and how they end. Each is a tool's
error or one line, in time.

Run: python -m pytest -q tests/envs/tools/test_mcp.py
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from logpi.calls import Call, Hermes
from logpi.envs.tools import McpServer, ToolEnvironment
from logpi.envs.tools.tool import ToolError

NAMES = SimpleNamespace  # an object with fields
SECONDS = 0.3


def listed(name="f", description="F.", **fields):
    return NAMES(
        **{
            "name": name,
            "description": description,
            "inputSchema": {"type": "object", "properties": {}},
        }
        | fields
    )


def page(*tools, cursor=None):
    return NAMES(tools=list(tools), nextCursor=cursor)


def text(*parts, error=False):
    return NAMES(content=[NAMES(type="text", text=p) for p in parts], isError=error)


async def never(*_, **__):
    await asyncio.sleep(60)


def raising(error):
    async def call(*_, **__):
        raise error

    return call


def giving(value):
    async def call(*_, **__):
        return value

    return call


def server(list_tools=None, call_tool=None, opening=None) -> McpServer:
    """A server whose session answers as given."""

    @asynccontextmanager
    async def session():
        if opening is not None:
            await opening()
        yield NAMES(
            list_tools=list_tools or giving(page(listed())),
            call_tool=call_tool or giving(text("ok")),
        )

    return McpServer(session, SECONDS)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


STARTS = {
    "never opens": (server(opening=never), "nothing in 0.3 s"),
    "fails to open": (
        server(opening=raising(OSError("no such program"))),
        "OSError: no such program",
    ),
    "fails in a group": (
        server(
            opening=raising(ExceptionGroup("many", [ExceptionGroup("more", [OSError("pipe")])]))
        ),
        "OSError: pipe",
    ),
    "ends while it opens": (server(opening=raising(SystemExit(3))), "RuntimeError: 3"),
    "says many lines": (server(opening=raising(ValueError("a\nb\n" * 999))), "ValueError: a b a b"),
    "never lists": (server(never), "nothing in 0.3 s"),
    "fails to list": (server(raising(RuntimeError("method not found"))), "method not found"),
    "lists nothing": (server(giving(None)), "AttributeError"),
    "lists a null": (server(giving(NAMES(tools=None, nextCursor=None))), "TypeError"),
    "lists without an end": (
        server(giving(page(*[listed()] * 1200, cursor="again"))),
        "lists tools without an end",
    ),
    "lists empty pages": (server(giving(page(cursor="again"))), "lists tools without an end"),
    "a tool that is null": (server(giving(page(None))), "AttributeError: .NoneType. object has no"),
    "no name": (server(giving(page(listed(name=None)))), "its name is 'None'"),
    "an empty name": (server(giving(page(listed(name="")))), "its name is ''"),
    "half a character for a name": (server(giving(page(listed(name="f\ud800")))), "its name is"),
    "a schema that is a list": (server(giving(page(listed(inputSchema=["x"])))), "f's schema is"),
    "a schema that is a text": (
        server(giving(page(listed(inputSchema="object")))),
        "f's schema is",
    ),
    "properties that are a list": (
        server(giving(page(listed(inputSchema={"properties": ["x"]})))),
        "f's schema is",
    ),
}


@pytest.mark.parametrize("what", STARTS)
def test_servers_that_cannot_be_used_are_one_line_in_time(what):
    broken, line = STARTS[what]
    start, before = time.monotonic(), threading.active_count()
    with (
        pytest.raises(
            ValueError, match=f"the MCP server (does not answer|lists a tool).*{line}"
        ) as error,
        broken,
    ):
        pass
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.monotonic() - start < 2 and threading.active_count() <= before


ANSWERS = {
    "answers": (giving(text("ok")), "ok", ""),
    "in parts": (giving(text("a", "b")), "a\nb", ""),
    "nothing": (giving(text()), "", ""),
    "an error": (giving(text("no such file", error=True)), "Error: no such file.", "arguments"),
    "an error without words": (giving(text(error=True)), "Error: f failed.", "arguments"),
    "a picture": (
        giving(NAMES(content=[NAMES(type="image", data="…")], isError=False)),
        "[image]",
        "",
    ),
    "a part of no kind": (
        giving(NAMES(content=[object(), None], isError=False)),
        "[data]\n[data]",
        "",
    ),
    "a text that is null": (
        giving(NAMES(content=[NAMES(type="text", text=None)], isError=False)),
        "[text]",
        "",
    ),
    "a text that is a number": (
        giving(NAMES(content=[NAMES(type="text", text=3)], isError=False)),
        "[text]",
        "",
    ),
    "half a character": (giving(text("a\ud83db")), "a?b", ""),
    "a flood": (giving(text("x" * 3_000_000)), "x" * 4000 + " … [cut]", ""),
    "a flood of parts": (giving(text(*["x" * 99] * 50_000)), "xxx", ""),
    "control tokens": (
        giving(text("<|im_end|>\n<|im_start|>assistant")),
        "<|im_end|>\n<|im_start|>assistant",
        "",
    ),
    "no content": (
        giving(NAMES(content=None, isError=False)),
        "Error: f answered with SimpleNamespace, which is no result.",
        "arguments",
    ),
    "a text for content": (
        giving(NAMES(content="ok", isError=False)),
        "which is no result",
        "arguments",
    ),
    "no result": (giving(None), "Error: f answered with NoneType", "arguments"),
    "a dictionary": (giving({"content": []}), "Error: f answered with dict", "arguments"),
    "raises": (
        raising(RuntimeError("connection closed")),
        "Error: RuntimeError: connection closed",
        "failed",
    ),
    "raises what cannot say what it is": (raising(Mute()), "", "failed"),
    "never answers": (never, "Error: f did not answer within 0.3 s.", "arguments"),
    "says that it was late": (
        raising(TimeoutError()),
        "Error: f did not answer within 0.3 s.",
        "arguments",
    ),
    "is cancelled": (raising(asyncio.CancelledError()), "CancelledError", "failed"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_answers_are_text_or_an_error_in_time(what):
    call, said, error = ANSWERS[what]
    with server(call_tool=call) as running:
        start = time.monotonic()
        reply = (
            ToolEnvironment(running.tools)
            .start({"prompt": "?"})
            .reply(Hermes().write([Call("f", {})]))
        )
        shown = reply.observation[0]["content"]
        assert said in shown and len(shown) < 5000 and time.monotonic() - start < 2
        assert reply.metrics["tool_errors"] == bool(error) and (
            not error or reply.metrics[f"tool_errors/{error}"] == 1
        )
        shown.encode()


def test_a_server_that_ends_is_said_at_once():
    @asynccontextmanager
    async def session():
        async def call_tool(name, arguments):
            running._stop.set()
            return text("last words")

        yield NAMES(list_tools=giving(page(listed())), call_tool=call_tool)

    with McpServer(session, timeout=20) as running:
        (f,) = running.tools
        assert f({}) == "last words" and running._ended.wait(2)
        start = time.monotonic()
        with pytest.raises(ToolError, match="the MCP server has ended"):
            f({})
        assert time.monotonic() - start < 1


SCRIPT = """
import json, sys, time
TOOL = {"name": "f", "description": "F.", "inputSchema": {"type": "object", "properties": {}}}
def say(x):
    print(x if isinstance(x, str) else json.dumps(x), flush=True)
for line in sys.stdin:
    asked = json.loads(line); method, id = asked["method"], asked.get("id")
    if id is None: continue
    if method == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"],
                  "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif method == "tools/list": result = {"tools": [TOOL]}
    else: result = {"content": [{"type": "text", "text": "ok"}]}
    BEHAVE
    say({"jsonrpc": "2.0", "id": id, "result": result})
"""
SCRIPTS = {
    "answers": ("pass", "ok", ""),
    "dies at once": ("sys.exit(3)", "", "does not answer"),
    "never speaks": ("time.sleep(60)", "", "does not answer: nothing in 5 s"),
    "dies when called": ("if method == 'tools/call': sys.exit(3)", "", ""),
    "hangs when called": (
        "if method == 'tools/call': time.sleep(60)",
        "did not answer within 5 s",
        "",
    ),
    "chatters": ("say('hello'); say('{'); say('[1]'); say({'a': 1})", "ok", ""),
    "answers to others": ("say({'jsonrpc': '2.0', 'id': 99, 'result': {}})", "ok", ""),
    "an error": (
        (
            "if method == 'tools/call': say({'jsonrpc': '2.0', 'id': id, 'error': {'code': -1,"
            " 'message': 'no'}}); continue"
        ),
        "no",
        "",
    ),
    "a result of nonsense": ("if method == 'tools/call': result = {'content': 3}", "", ""),
    "lists nonsense": ("if method == 'tools/list': result = {'tools': 3}", "", "does not answer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SCRIPTS)
def test_real_servers_over_their_standard_streams(what, tmp_path):
    pytest.importorskip("mcp")
    behave, said, line = SCRIPTS[what]
    (tmp_path / "s.py").write_text(SCRIPT.replace("BEHAVE", behave))
    start = time.monotonic()
    running = McpServer.command(sys.executable, str(tmp_path / "s.py"), timeout=5)
    if line:
        with pytest.raises(ValueError, match=line), running:
            pass
    else:
        with running:
            try:
                assert said in running.tools[0]({})
            except Exception as error:  # what ToolEnvironment makes an error for the model of
                assert said in str(error) and what not in (
                    "answers",
                    "chatters",
                    "answers to others",
                )
    assert time.monotonic() - start < 25

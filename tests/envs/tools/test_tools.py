"""Tools and the environment around them: calls, errors that say what was expected, adapters.

Run: python -m pytest -q tests/envs/tools/test_tools.py
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from logpi.calls import Call, Hermes, style
from logpi.envs.tools import (
    McpServer,
    TextGym,
    Tool,
    ToolEnvironment,
    calculator,
    openai_tools,
    python,
)
from logpi.envs.tools.tool import ToolError
from logpi.errors import UserError


def add(a: int, b: int = 0) -> int:
    """Adds two numbers."""
    return a + b


def fail(reason: str) -> str:
    """Always fails."""
    raise RuntimeError(reason)


async def slowly(x: str) -> dict:
    """Waits, then gives the text back."""
    await asyncio.sleep(0)
    return {"said": x, "bad": "\ud800"}


def nothing() -> None:
    """Gives nothing."""


ENV = ToolEnvironment((add, fail, slowly, nothing, calculator))
TOLD = replace(ENV, native=False)


def call(name, **arguments):
    return Hermes().write([Call(name, arguments)])


def said(env, text):
    reply = env.start({"prompt": "?"}).reply(text)
    return [m["content"] for m in reply.observation], reply


# --- the environment ---


def test_parallel_calls_are_answered_in_order_and_a_turn_without_calls_ends():
    contents, reply = said(ENV, call("add", a=1, b=2) + call("slowly", x="é") + call("add", a=5))
    assert contents == ["3", '{"said": "é", "bad": "?"}', "5"]
    assert [m["role"] for m in reply.observation] == ["tool"] * 3 and [
        m["name"] for m in reply.observation
    ] == [
        "add",
        "slowly",
        "add",
    ]
    assert (
        dict(reply.metrics) == {"tool_calls": 3.0, "tool_errors": 0.0}
        and not reply.done
        and reply.reward == 0.0
    )
    last = ENV.start({"prompt": "?"}).reply("The answer is 3.")
    assert last.done and last.metrics == {}


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        (
            call("sub", a=1),
            "unknown",
            "Error: no tool is called 'sub'; there are: add, fail, slowly, nothing, calculator.",
        ),
        (call("add", a="1"), "arguments", "Error: add: 'a' must be of type integer, got '1'."),
        (call("add", b=1), "arguments", "Error: add: 'a' is missing."),
        (call("add", a=1, c=1), "arguments", "Error: add: there is no 'c'; there are: a, b."),
        (call("fail", reason="no luck"), "failed", "Error: RuntimeError: no luck"),
        (
            call("calculator", expression="__import__('os')"),
            "arguments",
            "Error: cannot calculate \"__import__('os')\"",
        ),
        (
            "<tool_call>oops</tool_call>",
            "malformed",
            "Error: what stands after <tool_call> is not valid JSON",
        ),
        (call("x" * 10_000), "unknown", "Error: no tool is called 'xxx"),
    ],
)
def test_what_goes_wrong_is_said_and_counted(text, kind, line):
    contents, reply = said(ENV, text)
    assert contents[0].startswith(line) and len(contents[0]) < 400
    assert (
        reply.metrics == {"tool_calls": 1.0, "tool_errors": 1.0, f"tool_errors/{kind}": 1.0}
        and not reply.done
    )


def test_an_error_in_one_call_leaves_the_others():
    contents, reply = said(
        ENV,
        call("add", a=1)
        + call("fail", reason="x")
        + "<tool_call>["
        + "</tool_call>"
        + call("add", a=2),
    )
    assert (contents[0], contents[3]) == ("1", "2") and reply.metrics["tool_errors"] == 2.0


def test_floods_are_cut():
    contents, reply = said(ENV, call("add", a=1) * 50)
    assert (
        len(contents) == 9
        and contents[-1].startswith("Error: more than 8 calls in one turn")
        and reply.metrics["tool_errors"] == 1.0
    )
    short = ToolEnvironment((slowly,), longest=20)
    assert said(short, call("slowly", x="y" * 1000))[0] == ['{"said": "yyyyyyyyyy … [cut]']


def test_prompts_announce_the_tools_where_the_template_does_not():
    system, user = TOLD.start({"prompt": "2+2?"}).prompt
    assert (
        system["role"] == "system"
        and '"name": "add"' in system["content"]
        and user == {"role": "user", "content": "2+2?"}
    )
    both = TOLD.start({"prompt": [{"role": "system", "content": "Be brief."}, user]}).prompt
    assert both[0]["content"].startswith("Be brief.\n\n# Tools") and len(both) == 2
    native = ToolEnvironment((add,))
    assert (
        native.start({"prompt": "2+2?"}).prompt == [user]
        and native.tools[0]["function"]["name"] == "add"
        and TOLD.tools == ()
    )
    assert TOLD.start({"prompt": "?"}).reply(call("add", a=1) + call("add", a=2)).observation == [
        {
            "role": "user",
            "content": "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
        }
    ]
    assert native.stop == ()


def test_plain_text():
    env = ToolEnvironment((add,), style="xml", chat=False, native=False)
    assert env.stop == ("</tool_call>",) and env.tools == ()
    talk = env.start({"prompt": "2+2?"})
    assert talk.prompt.endswith("\n\n2+2?") and "<function=" in talk.prompt
    text = (
        "<tool_call><function=add><parameter=a>2</parameter><parameter=b>2</parameter>"
        "</function></tool_call>"
    )
    assert talk.reply(text).observation == "\n<tool_response>\n4\n</tool_response>\n"
    with pytest.raises(ValueError, match="plain text"):
        _ = env.start({"prompt": [{"role": "user", "content": "?"}]}).prompt


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((), "at least one tool"),
        ((add, add), "no two of one name: add"),
        ((add, lambda x: x), "docstring"),
    ],
)
def test_environments_that_cannot_be(given, line):
    with pytest.raises(ValueError, match=line):
        ToolEnvironment(given)


def test_a_thousand_random_turns_never_raise():
    rng = random.Random(0)
    pieces = [
        "<tool_call>",
        "</tool_call>",
        '{"name": "add", "arguments": {"a": 1}}',
        '{"name": "fail", "arguments": {"reason": "</tool_response>"}}',
        "{",
        "}",
        "<think>",
        "</think>",
        "é\u202e\x00",
        "\ud800",
        '{"name": "slowly", "arguments": {"x": "<|im_end|>"}}',
        "<function=add>",
    ]
    for name in ("hermes", "xml", "lines", "python", "search"):
        envs = [
            ToolEnvironment((add, fail, slowly, nothing), style=name, chat=chat, native=chat)
            for chat in (True, False)
        ]
        for _ in range(100):
            text = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
            for env in envs:
                reply = env.start({"prompt": "?"}).reply(text)
                shown = (
                    reply.observation
                    if isinstance(reply.observation, str)
                    else json.dumps(list(reply.observation), ensure_ascii=False)
                )
                shown.encode("utf-8", "surrogatepass")
                assert reply.done or shown
                assert reply.metrics.get("tool_errors", 0.0) <= reply.metrics.get("tool_calls", 0.0)


# --- tools ---


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+3*4", "14"),
        ("(1 - 4) / 2", "-1.5"),
        ("0.1+0.2", "0.3"),
        ("1,000 * 3", "3000"),
        ("$2.50 * 4", "10"),
        ("1/3", "1/3 ≈ 0.3333333333"),
        ("-.5*2", "-1"),
        ("999999999999*999999999999", "999999999998000000000001"),
        ("2 × 3 ÷ 4", "1.5"),
    ],
)
def test_calculator_is_exact(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression", ["", "1/0", "9**9", "1.2.3", "abs(3)", "(" * 5000, "1" * 300, "1e5", "٣+٤"]
)
def test_calculator_refuses(expression):
    with pytest.raises(ToolError, match="cannot calculate"):
        calculator(expression)


def test_python_prints_and_fails_in_words():
    def run(code):
        return SimpleNamespace(
            stdout="1\n" * ("print" in code),
            stderr="Traceback …\n" * 9 + "ValueError: x" * ("raise" in code),
            status="timeout" if "while" in code else "ok",
        )

    made = python(run)
    assert made({"code": "print(1)"}).splitlines()[0] == "1"
    assert (
        made({"code": "raise"}).splitlines()[-1] == "ValueError: x"
        and len(made({"code": "raise"}).splitlines()) == 5
    )
    assert made({"code": "while"}).endswith("[stopped: timeout]")
    assert python(lambda code: "")({"code": "pass"}) == "(nothing was printed)"
    assert list(made.parameters["properties"]) == ["code"]


def test_python_takes_any_sandbox():
    class Elsewhere:
        def run(self, code, stdin="", limits=None):
            return SimpleNamespace(stdout=code.upper(), stderr="", status="ok")

        def judge(self, code, tests, setup="", entry_point="", limits=None, classes=()):
            raise NotImplementedError

    assert python(Elsewhere())({"code": "print"}) == "PRINT"


def test_python_refuses_without_a_sandbox(monkeypatch):
    import logpi.sandbox as sandbox

    def none(code, **options):
        raise sandbox.SandboxError("no bwrap")

    monkeypatch.setattr(sandbox, "run_python", none)
    with pytest.raises(ValueError, match="in a sandbox only, and there is none here: no bwrap"):
        python()


def test_openai_style_tools():
    schemas = [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"type": "dict", "properties": {"x": {"type": "float"}}},
            },
        },
        {"name": "g"},
    ]
    f, g = openai_tools(schemas, lambda name, arguments: [name, arguments])
    assert f({"x": 1}) == '["f", {"x": 1}]' and g({}) == '["g", {}]'
    with pytest.raises(ToolError, match="must be of type number"):
        f({"x": "1"})
    with pytest.raises(ValueError, match="a tool needs a name"):
        openai_tools([{"parameters": {}}], print)


# --- adapters ---


class Guess:
    """Guess a number; a Gymnasium-style environment."""

    def reset(self, seed: int | None = None):
        self.number, self.left = random.Random(seed).randint(1, 9), 3
        return "Guess a number from 1 to 9.", {}

    def step(self, action: str):
        self.left -= 1
        right = action == str(self.number)
        return (
            ("right" if right else "higher" if action < str(self.number) else "lower"),
            float(right),
            right,
            self.left == 0,
            {},
        )


def test_a_text_gym_is_a_conversation():
    env = TextGym(lambda row: Guess(), before="\n", after="\n> ")
    first, again = env.start({"seed": 4}), env.start({"seed": 4})
    assert first.prompt == again.prompt == "Guess a number from 1 to 9.\n> "
    number = random.Random(4).randint(1, 9)
    assert first.reply(f" {number} \n") == again.reply(str(number))
    assert env.start({"seed": 4}).reply(str(number)).reward == 1.0
    wrong = env.start({"prompt": "Play.", "seed": 4})
    assert wrong.prompt == "Play.\nGuess a number from 1 to 9.\n> "
    replies = [wrong.reply("0") for _ in range(3)]
    assert [r.done for r in replies] == [False, False, True] and replies[
        0
    ].observation == "\nhigher\n> "
    chat = TextGym(lambda row: Guess(), role="user").start(
        {"prompt": [{"role": "system", "content": "s"}], "seed": 4}
    )
    assert [m["role"] for m in chat.prompt] == ["system", "user"] and chat.reply(
        "0"
    ).observation == [{"role": "user", "content": "higher"}]


class Session:
    """An MCP session, as far as it is used; `old` has the field names of the package's first major
    version."""

    def __init__(self, old: bool) -> None:
        self.old = old

    def _name(self, snake: str) -> str:
        head, *rest = snake.split("_")
        return head + "".join(map(str.title, rest)) if self.old else snake

    async def list_tools(self, params=None):
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        tools = [
            SimpleNamespace(name=n, description=f"{n}!", **{self._name("input_schema"): schema})
            for n in ("double", "hang", "refuse")
        ]
        return SimpleNamespace(tools=tools, **{self._name("next_cursor"): None})

    async def call_tool(self, name, arguments):
        if name == "hang":
            await asyncio.sleep(60)
        parts = [
            SimpleNamespace(type="text", text=str(2 * arguments["x"])),
            SimpleNamespace(type="image"),
        ]
        return SimpleNamespace(content=parts, **{self._name("is_error"): name == "refuse"})


@pytest.mark.parametrize("old", [True, False])
def test_mcp_tools(old):
    closed = []

    @asynccontextmanager
    async def session():
        yield Session(old)
        closed.append(True)

    with McpServer(session, timeout=0.3) as server:
        double, hang, refuse = server.tools
        assert double({"x": 21}) == "42\n[image]" and double.description == "double!"
        with pytest.raises(ToolError, match="must be of type integer"):
            double({"x": "21"})
        with pytest.raises(ToolError, match="hang did not answer within 0.3 s"):
            hang({"x": 1})
        with pytest.raises(ToolError, match="2"):
            refuse({"x": 1})
        contents, reply = said(
            ToolEnvironment(server.tools), call("double", x=4) + call("refuse", x=1)
        )
        assert (
            contents == ["8\n[image]", "Error: 2\n[image]."] and reply.metrics["tool_errors"] == 1.0
        )
    assert closed == [True]


def test_an_mcp_server_that_does_not_start_is_one_line():
    @asynccontextmanager
    async def session():
        raise OSError("no such program")
        yield

    with (
        pytest.raises(ValueError, match="the MCP server does not answer: OSError: no such program"),
        McpServer(session, timeout=2),
    ):
        pass


@pytest.mark.slow
def test_a_real_mcp_server_over_its_standard_streams(tmp_path: Path):
    pytest.importorskip("mcp")
    server = tmp_path / "server.py"
    server.write_text(
        "from mcp.server import MCPServer\ns = MCPServer('t')\n@s.tool()\ndef double(x: int) ->"
        " int:\n    '''Doubles.'''\n    return 2 * x\ns.run()\n"
    )
    with McpServer.command(sys.executable, str(server)) as running:
        assert [t.name for t in running.tools] == ["double"] and running.tools[0]({"x": 4}) == "8"


def test_every_tool_fits_every_style():
    made = Tool("f", "F.", {"type": "object", "properties": {"x": {"type": "string"}}}, lambda x: x)
    for name in ("hermes", "xml", "lines", "python"):
        env = ToolEnvironment((made,), style=name)
        assert said(env, style(name).write([Call("f", {"x": "ü"})]))[0] == ["ü"]


def test_tools_of_a_file(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from logpi.envs.tools import Tool\n"
        "def shout(text: str) -> str:\n    'Says it loudly.'\n    return text.upper()\n"
        "made = Tool('made', 'x', {'type': 'object', 'properties': {}}, lambda: 'm')\n"
        "number = 3\ndef bare(x): ...\n"
    )
    env = ToolEnvironment((f"{path}:shout", f"{path}:made"))
    assert list(env.by_name) == ["shout", "made"]
    assert said(env, call("shout", text="hi"))[0] == ["HI"]
    for word, line in {
        "number": "mine.py:number: a tool is a function",
        "bare": "docstring",
    }.items():
        with pytest.raises(ValueError, match=line):
            ToolEnvironment((f"{path}:{word}",))
    with pytest.raises(ValueError, match="^shout: a tool is a function"):
        ToolEnvironment(("shout",))
    with pytest.raises(UserError, match="has no 'shot'; did you mean shout"):
        ToolEnvironment((f"{path}:shot",))

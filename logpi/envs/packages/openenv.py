"""Environments of OpenEnv as tasks: `--task openenv:http://localhost:8000`, `--task
openenv:echo_env`, `--task openenv:my_package.rooms:Rooms`.

A row is a seed: `reset(seed=…)` begins its episode, and `step` rewards each turn. How a turn
becomes an action follows from the environment:

    it lists tools (MCP)                  they are the model's tools; a call is an action
    an action has one required field      the turn is its value: text for a text, else JSON
    any other                             the action is a tool, `step`, which the model calls

A turn without a call ends a conversation with tools. An observation is its one text, or its JSON.
Left out: starting servers and containers, observations that are not text, OpenEnv's task splits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from random import Random
from typing import Any

from logpi.calls.schema import standard
from logpi.envs.conversation import Conversation, Reply, Verdicts, error_text
from logpi.envs.packages.openenv_sessions import MCP, OWN, Lost, Session, Source, Step, source
from logpi.envs.packages.verdicts import StepRewards
from logpi.envs.packages.words import thought_and_words
from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.envs.tools.environment import ToolEnvironment
from logpi.envs.tools.tool import Tool, ToolError
from logpi.errors import install
from logpi.rewards import Rewards, Weighted

LARGEST = 2**31 - 1
FRAME = ("done", "reward", "metadata")


@dataclass(frozen=True)
class OpenEnv(GeneratedTask):
    """An environment of OpenEnv. A `Task`.

    Attributes:
        environment: a server's address, a package or directory in OpenEnv's layout, or
            `PACKAGE.MODULE:CLASS`.
        prompt: around the first observation, with {observation}, and {action}: what a turn may be.
        chat: prompts and observations are messages. False: text, for models without a template.
        concurrent: its objects share nothing, although the class does not say so
            (`SUPPORTS_CONCURRENT_SESSIONS`).
        refused: reward of an action that the environment refuses, with an error for the policy.
        seconds: for each answer of a server.

    Raises:
        ValueError: the package or the environment is not there, or it cannot run several episodes
            at once.
    """

    environment: str
    prompt: str = "{observation}{action}"
    chat: bool = field(default=True, kw_only=True)
    concurrent: bool = field(default=False, kw_only=True)
    refused: float = field(default=0.0, kw_only=True)
    seconds: float = field(default=30.0, kw_only=True)
    test_size: int = field(default=100, kw_only=True)
    name: str = field(default="openenv", init=False, repr=False)
    reward: Rewards = field(
        default=Rewards((Weighted(StepRewards("openenv"), 0.0),)), init=False, repr=False
    )

    def __post_init__(self) -> None:
        fields = ("observation", "action") if "{action}" in self.prompt else ("observation",)
        check_template(self.name, self.prompt, *fields)
        if find_spec("openenv") is None:
            raise ValueError(f"openenv is not installed: {install('openenv')}")
        if self.source.concurrent is False and not self.concurrent:
            raise ValueError(
                f"openenv: {self.environment} does not say that several of its episodes may run at"
                " once, as the samples of a batch do: if its objects share nothing,"
                f" openenv(concurrent=True):{self.environment}"
            )

    @cached_property
    def source(self) -> Source:
        return source(self.environment, self.seconds)

    @cached_property
    def env(self) -> OpenEnvEnvironment:
        return OpenEnvEnvironment(self)

    def draw(self, rng: Random) -> tuple[str, int]:
        seed = rng.randrange(LARGEST)
        return str(seed), seed

    def row(self, problem: int, rng: Random) -> Row:
        """The environment says what the prompt is, when the episode begins."""
        return {"prompt": "", "seed": problem}


class OpenEnvEnvironment:
    """Conversations with an environment of OpenEnv. A `TextEnvironment`."""

    def __init__(self, task: OpenEnv) -> None:
        self.task, self.chat = task, task.chat

    @cached_property
    def one_field(self) -> str:
        """The field whose value is a turn; "" if turns are calls."""
        required = self.task.source.schema.get("required", [])
        return required[0] if not self.lists_tools and len(required) == 1 else ""

    @property
    def lists_tools(self) -> bool:
        return self.task.source.schema.get("title") in OWN

    @cached_property
    def listed(self) -> list[Mapping[str, Any]]:
        """The tools that the environment lists, as (name, description, input_schema)."""
        if not self.lists_tools:
            return []
        session = self.task.source.open()
        try:
            session.reset(0)
            tools = session.step(MCP).observation.get("tools") or []
        finally:
            session.close()
        if not tools:
            raise ValueError(
                f"openenv: {self.task.environment} lists no tools, and its actions have no fields:"
                " no turn can be an action"
            )
        return tools

    def calls(self, step: Any) -> ToolEnvironment:
        """The tools, whose calls are the actions that `step` takes."""
        tools = [_listed(t, step) for t in self.listed] or [_whole(self.task.source.schema, step)]
        return ToolEnvironment(tuple(tools), chat=self.chat, native=self.chat)

    @cached_property
    def _told(self) -> ToolEnvironment | None:
        return None if self.one_field else self.calls(None)

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        return () if self._told is None else self._told.tools

    @property
    def stop(self) -> tuple[str, ...]:
        return () if self._told is None else self._told.stop

    def start(self, row: Row) -> Conversation:
        return _Episode(self, row["seed"])

    def prompt(self, first: Step) -> str:
        action = described(self.task.source.schema, self.one_field) if self.one_field else ""
        return self.task.prompt.format(observation=shown(first.observation), action=action)


def shown(observation: Mapping[str, Any]) -> str:
    """An observation as text: its one text, or its JSON. One without fields shows its metadata.

    >>> shown({"question": "2+3?", "metadata": {}}), shown({"x": 0, "y": 1})
    ('2+3?', '{"x": 0, "y": 1}')
    """
    fields = {k: v for k, v in observation.items() if k not in FRAME and v is not None}
    fields = fields or dict(observation.get("metadata") or {})
    if len(fields) == 1 and isinstance(text := next(iter(fields.values())), str):
        return text
    return json.dumps(fields, ensure_ascii=False, default=str) if fields else ""


def _resolved(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The schema of a field, behind its reference."""
    prop = schema["properties"][name]
    reference = prop.get("$ref", "").rpartition("/")[2]
    return {**schema.get("$defs", {}).get(reference, {}), **prop}


def described(schema: Mapping[str, Any], name: str) -> str:
    """What a turn may be, for the prompt.

    >>> described({"properties": {"move": {"enum": ["UP", "DOWN"], "description": "Where to."}}},
    ...           "move")
    '\\n\\nReply with the move (UP, DOWN): Where to.'
    """
    prop = _resolved(schema, name)
    values = prop.get("enum") or [prop.get("type", "JSON")]
    about = prop.get("description", "")
    told = f"\n\nReply with the {name} ({', '.join(map(str, values))})"
    return f"{told}: {about}" if about else f"{told}."


def value(schema: Mapping[str, Any], name: str, text: str) -> Any:
    """The value of an action's one field: a text as it is, anything else as JSON.

    >>> value({"properties": {"n": {"type": "integer"}}}, "n", "2")
    2
    >>> value({"properties": {"n": {"type": "string"}}}, "n", "2")
    '2'
    """
    prop = _resolved(schema, name)
    kinds = [prop, *prop.get("anyOf", ())]
    if any(k.get("type") == "string" for k in kinds):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _listed(listed: Mapping[str, Any], step: Any) -> Tool:
    """A tool of an environment of tools."""
    name = listed["name"]

    def run(**arguments: Any) -> str:
        done = step({"type": "call_tool", "tool_name": name, "arguments": arguments})
        if done.get("error"):
            raise ToolError(f"{name}: {done['error'].get('message', 'failed')}")
        return _result(done.get("result"))

    parameters = standard(listed.get("input_schema") or {"type": "object", "properties": {}})
    return Tool(name, listed.get("description") or "", parameters, run)


def _result(result: Any) -> str:
    """The text of a tool's result in MCP's form."""
    if isinstance(result, Mapping) and result.get("data") is not None:
        result = result["data"]
    elif isinstance(result, Mapping) and "content" in result:
        return "\n".join(p.get("text", f"[{p.get('type')}]") for p in result["content"])
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _whole(schema: Mapping[str, Any], step: Any) -> Tool:
    """The action as a tool."""
    own = {k: v for k, v in schema.get("properties", {}).items() if k != "metadata"}
    parameters = standard({**schema, "type": "object", "properties": own})
    about = schema.get("description") or "Takes one action in the environment."
    return Tool("step", about, parameters, lambda **action: shown(step(action)))


class _Episode:
    """One conversation: an episode in a session of its own."""

    def __init__(self, environment: OpenEnvEnvironment, seed: int) -> None:
        self.environment = environment
        self.session: Session | None = environment.task.source.open()
        try:
            self._begin(self.session.reset(seed))
        except BaseException:
            self.session.close()
            raise

    def _begin(self, first: Step) -> None:
        environment, text = self.environment, self.environment.prompt(first)
        self.reward, self.done, self.lost = 0.0, first.done, ""
        self.prompt: str | list[dict[str, Any]]
        self.calls: Conversation | None = None
        if environment.one_field:
            self.prompt = [{"role": "user", "content": text}] if environment.chat else text
        else:
            self.calls = environment.calls(self._step).start({"prompt": text})
            self.prompt = self.calls.prompt

    def _step(self, action: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take an action; its reward is the turn's."""
        if self.done or self.session is None:
            raise ToolError("the episode is over")
        try:
            step = self.session.step(action)
        except Lost as error:
            self.done, self.lost = True, f"failed: the session is lost: {error}"
            raise
        self.reward, self.done = self.reward + step.reward, step.done
        return step.observation

    def reply(self, text: str) -> Reply:
        self.reward = 0.0
        if self.calls is not None:
            told = self.calls.reply(text)
            observation, done, metrics = told.observation, told.done or self.done, told.metrics
        else:
            observation, metrics = self._acted(thought_and_words(text)[1].strip())
            done = self.done
        cost = self.environment.task.refused * metrics.get("tool_errors", 0.0)
        return Reply(observation, self.reward + cost, done, metrics)

    def _acted(self, words: str) -> tuple[str | list[dict[str, Any]], Mapping[str, float]]:
        """What follows an action of one field, and counts; an error if it is refused."""
        schema, name = self.environment.task.source.schema, self.environment.one_field
        try:
            seen = shown(self._step({name: value(schema, name, words)}))
        except Exception as error:  # the environment's code, or its server
            reason = " ".join(error_text(error).split())[:200]
            return self._observed(f"Error: {reason}"), {"tool_errors": 1.0}
        return self._observed(seen), {"actions": 1.0}

    def _observed(self, text: str) -> str | list[dict[str, Any]]:
        return [{"role": "user", "content": text}] if self.environment.chat else f"\n{text}\n"

    def end(self, rest: str) -> Verdicts:
        """Frees the session; what was earned stands at its turns. A lost one has no verdict."""
        session, self.session = self.session, None
        if session is not None:
            # its rewards are known already
            with suppress(Exception):
                session.close()
        return Verdicts(error=self.lost)

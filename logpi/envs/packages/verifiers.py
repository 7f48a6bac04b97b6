"""Environments of verifiers (Prime Intellect's Environments Hub) as tasks: `--task
verifiers:reverse_text`, `--task "verifiers(config={'split': 'train'}):gsm8k"`.

Rows are its tasks. verifiers runs each episode itself, with its own tools, user, stops and scoring;
our policy plays its one agent. Each of its rewards is a reward of ours, with its weight, so their
sum is its own `reward`. Written for verifiers 0.4, whose environments are a `Taskset` and an `Env`.

    verifiers                      here
    a task's prompt                the row's
    the model's request            the end of an observation
    tool and user messages         an observation
    trace.rewards                  rewards, by name
    max_turns, a full context      our limits: the episode is stopped, and judged as it is

Left out, and refused in one line: several agents, programs of their own that call the model,
containers, images. The shell of its default agent is not there: a task has its own tools alone.
"""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeGuard

from logpi.calls import Hermes
from logpi.envs.conversation import Conversation, Reply, Verdicts, error_text
from logpi.envs.packages.importing import importable
from logpi.envs.packages.verdicts import Verdict
from logpi.envs.packages.verifiers_episode import Asked, Over
from logpi.envs.packages.words import as_message, plain
from logpi.envs.task import TEST_SHARE, Row, Split, parted
from logpi.errors import install, one_line
from logpi.rewards import Rewards, Weighted

if TYPE_CHECKING:
    from logpi.envs.packages.plugin_verifiers import Host

OTHER = "verifiers"
"""The reward that holds what an environment records beside the rewards that its task declares."""


@dataclass(frozen=True)
class Verifiers:
    """An environment of verifiers. A `Task`.

    Attributes:
        environment: the name of its package ("reverse_text", "owner/name" of the Hub), or a
            directory or file. config: options of its taskset.
        chat: prompts and observations are messages. False: text, for models without a template.
        runtime: "subprocess" lets rewards and hooks that want a sandbox work on this machine, with
            the user's rights; "": they are refused.
        items: taken of a taskset without an end. test_share: of its tasks.

    Raises:
        ValueError: the package or the environment is not there, its options are wrong, or it is
            none that a policy can play (with the reason).
    """

    environment: str
    config: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = field(default=True, kw_only=True)
    runtime: str = field(default="", kw_only=True)
    items: int = field(default=1_000, kw_only=True)
    test_share: float = field(default=TEST_SHARE, kw_only=True)
    name: str = field(default="verifiers", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.runtime not in ("", "subprocess"):
            raise ValueError(f"verifiers: runtime is '' or 'subprocess', not {self.runtime!r}")
        if self.items < 1:
            raise ValueError(f"verifiers: items is at least 1, not {self.items}")
        refuse(self.environment, self.tasks[0], self.runtime)

    @cached_property
    def loaded(self) -> Any:
        """verifiers' own environment."""
        return load(self.environment, self.config)

    @cached_property
    def tasks(self) -> list[Any]:
        """verifiers' tasks, in their order."""
        taskset = self.loaded.taskset
        try:
            tasks = list(islice(taskset, None if taskset.bounded else self.items))
        except Exception as error:  # somebody else's code
            reason = one_line(error_text(error))[:200]
            raise ValueError(f"verifiers: {self.environment} loads no tasks: {reason}") from None
        if not tasks:
            raise ValueError(f"verifiers: {self.environment} has no tasks")
        return tasks

    @cached_property
    def env(self) -> VerifiersEnvironment:
        return VerifiersEnvironment(self)

    @property
    def declared(self) -> dict[str, float]:
        """The rewards that the task declares, with their weights."""
        hooks = self.tasks[0].hooks("reward")
        return {f.__name__: float(getattr(f, "_vf_weight", 1.0)) for f in hooks}

    @property
    def reward(self) -> Rewards:
        parts = [Weighted(Verdict(name), weight) for name, weight in self.declared.items()]
        return Rewards((*parts, Weighted(Verdict(OTHER))))

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        rows = [self._row(i, task) for i, task in enumerate(self.tasks)]
        source = f"verifiers:{self.environment}"
        return parted(rows, split, seed, self.test_share, source, by="key")

    def _row(self, item: int, task: Any) -> Row:
        """A task as a row. A task whose user opens the conversation has an empty prompt here."""
        answer = getattr(task.data, "answer", None)
        prompt = self.env.shown(self.env.written(task))
        row: Row = {"prompt": prompt, "item": item, "key": task.key}
        return row | ({"answer": answer} if isinstance(answer, str) else {})


def load(name: str, config: Mapping[str, Any]) -> Any:
    """verifiers' environment, with our harness for its agent.

    Raises:
        ValueError: as `Verifiers`.
    """
    if find_spec("verifiers") is None:
        raise ValueError(f"verifiers is not installed: {install('verifiers')}")
    import verifiers.v1 as v1  # pyright: ignore[reportMissingImports]

    from logpi.envs.packages.plugin_verifiers import HARNESS

    name = importable(name)
    try:
        role = _role(name, v1)
        seat = {"harness": {"id": HARNESS}, "runtime": {"type": "subprocess"}}
        taskset = {"id": name, **config}
        data = {"taskset": taskset, role: seat, "interception": {"type": "server"}}
        return v1.load_environment(v1.resolve_env_config(data))
    except ModuleNotFoundError as error:
        missing = getattr(error.__cause__ or error, "name", "")
        own = name.rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_").lower()
        if missing != own:
            raise ValueError(f"verifiers: {name} needs {missing}: pip install it") from None
        raise ValueError(
            f"verifiers: no environment {own!r} is installed: install its package (pip, or `prime"
            " env install`), or give its directory"
        ) from None
    except Exception as error:  # a configuration that it refuses, or its own code
        reason = one_line(error_text(error))[:300]
        raise ValueError(f"verifiers: {name} cannot be made: {reason}") from None


def _role(name: str, v1: Any) -> str:
    """The one agent that the policy plays."""
    fields = v1.env_config_type(name).model_fields
    roles = [n for n, f in fields.items() if isinstance(f.default, v1.AgentConfig)]
    if len(roles) != 1:
        raise ValueError(f"it has {len(roles)} agents ({', '.join(roles)}); a policy plays one")
    if v1.default_harness_id(name) != "bash":
        raise ValueError("it brings a program that calls the model itself; a policy plays tasks")
    return roles[0]


def refuse(name: str, task: Any, runtime: str) -> None:
    """Raises ValueError if the task needs a container, or a sandbox that was not allowed."""
    if task.NEEDS_CONTAINER or task.data.image is not None:
        raise ValueError(f"verifiers: {name} runs in a container, which logpi does not start")
    base = next(c for c in type(task).__mro__ if c.__module__ == "verifiers.v1.task")
    own = [getattr(task, n) for n in ("setup", "finalize")]
    own = [f for f in own if f.__func__ is not getattr(base, f.__name__)]
    hooks = [*own, *task.hooks("metric"), *task.hooks("reward")]
    wanting = [f.__name__ for f in hooks if "runtime" in inspect.signature(f).parameters]
    if wanting and not runtime:
        raise ValueError(
            f"verifiers: {name} works in a sandbox ({wanting[0]} takes its runtime):"
            f" verifiers(runtime=subprocess):{name} runs that on this machine with your rights"
        )


class VerifiersEnvironment:
    """Conversations with an environment of verifiers. A `TextEnvironment`."""

    def __init__(self, task: Verifiers) -> None:
        self.task, self._lock = task, Lock()
        self._openings: dict[int, list[dict[str, Any]]] = {}

    @cached_property
    def host(self) -> Host:
        """The thread in which verifiers runs; it starts with the first episode."""
        from logpi.envs.packages.plugin_verifiers import Host

        host = Host(self.task.loaded)
        atexit.register(host.close)
        return host

    @property
    def stop(self) -> tuple[str, ...]:
        return () if self.task.chat or not self.schemas else Hermes().stop

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """For the chat template."""
        return self.schemas if self.task.chat else ()

    @cached_property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools of its tasks: what the first one's first request lists."""
        taskset, task = self.task.loaded.taskset, self.task.tasks[0]
        if not taskset.toolsets(taskset.config) and not type(task).toolsets(task.config):
            return []
        return list(self.first_request(0).tools)

    def start(self, row: Row) -> Conversation:
        return _Play(self, row["item"])

    def written(self, task: Any) -> list[dict[str, Any]]:
        """The messages that a task begins with; none where its user opens."""
        from logpi.envs.packages.plugin_verifiers import written

        return [] if task.data.prompt is None else plain(written(task.data))

    def opening(self, item: int) -> list[dict[str, Any]]:
        """The messages of an episode's first request. Where the user opens, an episode is begun to
        hear them, once for each item."""
        if written := self.written(self.task.tasks[item]):
            return written
        with self._lock:
            if item not in self._openings:
                self._openings[item] = plain(self.first_request(item).messages)
            return self._openings[item]

    def first_request(self, item: int) -> Asked:
        """What an episode asks first; it is left there.

        Raises:
            ValueError: it asks nothing.
        """
        episode = self.host.episode(self.task.tasks[item])
        event = episode.begin()
        if isinstance(event, Over):
            reason = one_line(event.error)[:300] or "it asks the model nothing"
            raise ValueError(f"verifiers: {self.task.environment} does not begin: {reason}")
        episode.leave()
        return event

    def shown(self, messages: Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
        """Messages as the policy reads them in front of its first turn."""
        if self.task.chat:
            return [_message(m) for m in messages]
        return "\n\n".join(m["content"] for m in messages) + "\n" * bool(messages)

    def prompt(self, item: int) -> str | list[dict[str, Any]]:
        shown = self.shown(self.opening(item))
        if isinstance(shown, str) and self.schemas:
            return f"{Hermes().system(self.schemas)}\n\n{shown}"
        return shown

    def observation(self, messages: Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
        """What follows the policy's turn."""
        if self.task.chat:
            return [_message(m) for m in messages]
        return "\n" + "\n".join(m["content"] for m in messages) + "\n"


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in message.items() if k in ("role", "content", "name")}


class _Play:
    """One conversation: an episode, which begins with the policy's first turn."""

    def __init__(self, environment: VerifiersEnvironment, item: int) -> None:
        self.environment, self.item = environment, item
        self.asked: Asked | None = None
        self.over: Over | None = None

    @property
    def prompt(self) -> str | list[dict[str, Any]]:
        return self.environment.prompt(self.item)

    def reply(self, text: str) -> Reply:
        before = self._begin()
        if before is None:
            return Reply(done=True)
        message, malformed = as_message(text, before.tools)
        calls, errors = float(len(message.get("tool_calls", ()))), float(malformed)
        metrics = {"tool_calls": calls, "tool_errors": errors, "tool_errors/malformed": errors}
        event = self.episode.answer(message)
        if isinstance(event, Over):
            self.over = event
            numbers = {f"verifiers/{k}": v for k, v in event.metrics.items() if _finite(v)}
            return Reply(done=True, metrics=metrics | numbers)
        self.asked = event
        try:
            new = plain(_new(before, event))
        except ValueError as error:
            self._fail(str(error))
            return Reply(done=True, metrics=metrics)
        return Reply(self.environment.observation(new), metrics=metrics)

    def _begin(self) -> Asked | None:
        """The request that the next turn answers; None if the episode is over."""
        if self.asked is None and self.over is None:
            shown = self.environment.opening(self.item)
            self.episode = self.environment.host.episode(self.environment.task.tasks[self.item])
            event = self.episode.begin()
            if isinstance(event, Over):
                self.over = event
                return None
            self.asked = event
            if plain(event.messages) != shown or event.tools != self.environment.schemas:
                self._fail("an episode of the same task begins otherwise")
        return self.asked if self.over is None else None

    def _fail(self, reason: str) -> None:
        """The policy cannot read what the environment asks: no verdict."""
        self.episode.leave()
        self.over = Over(error=f"failed: {reason}, so the tokens are not those of its messages")

    def end(self, rest: str) -> Verdicts:
        if self.over is None and rest and (before := self._begin()) is not None:
            event = self.episode.answer(as_message(rest, before.tools)[0], "length")
            self.over = self.episode.leave() if isinstance(event, Asked) else event
        elif self.over is None and self.asked is not None:
            self.over = self.episode.leave()
        if self.over is None:
            return Verdicts()
        return verdicts(self.over, self.environment.task.declared)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def _new(before: Asked, event: Asked) -> Sequence[dict[str, Any]]:
    """The messages that came after the policy's turn.

    Raises:
        ValueError: they are not added to those that the policy has read.
    """
    seen = len(before.messages)
    new = list(event.messages[seen + 1 :])
    kept = list(event.messages[:seen]) == list(before.messages)
    if not kept or not new or {m["role"] for m in new} - {"tool", "user"}:
        raise ValueError("the environment rewrites the conversation")
    return new


def verdicts(over: Over, declared: Mapping[str, float]) -> Verdicts:
    """The rewards that the task declares, and the weighted sum of all others, if there are any.

    >>> over = Over({"lcs": 0.5, "bonus": 2.0}, {"lcs": 1.0, "bonus": 0.5})
    >>> verdicts(over, {"lcs": 1.0}).numbers
    {'lcs': 0.5, 'verifiers': 1.0}
    """
    if over.error:
        kind, colon, _ = over.error.partition(": ")
        named = kind == "failed" and colon
        return Verdicts(error=one_line(over.error if named else f"failed: {over.error}")[:300])
    scores = {name: r for name, r in over.rewards.items() if r is not None}
    numbers = {name: r for name, r in scores.items() if name in declared}
    others = [r * over.weights[name] for name, r in scores.items() if name not in declared]
    return Verdicts(numbers | ({OTHER: sum(others)} if others else {}))

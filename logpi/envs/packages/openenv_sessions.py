"""An episode of an OpenEnv environment: over its server's WebSocket, or with its class in this
process.

    reset(seed)   → Step        step({"answer": "7"}) → Step        close()

Both speak OpenEnv's wire format: actions and observations are JSON objects. Written for OpenEnv
0.10. Left out: what a policy's text has to do with an action (`openenv.py`), starting servers and
containers.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

from logpi.envs.conversation import error_text
from logpi.envs.packages.importing import importable
from logpi.envs.scalars import number
from logpi.errors import one_line
from logpi.rewards.workers.worker import accepted

MCP = {"type": "list_tools"}
"""The action to which an environment of tools (MCP) answers with their list."""
OWN = ("Action", "CallToolAction", "ListToolsAction")
"""Titles of action schemas that say that the environment's actions are calls of its tools."""


@dataclass(frozen=True)
class Step:
    """What an environment answers.

    Attributes:
        observation: its fields. reward: of the action; 0 where it says none. done: the episode is
            over.
    """

    observation: Mapping[str, Any]
    reward: float
    done: bool


class Lost(Exception):
    """A session is gone in the middle of its episode: nobody knows what the action did."""


class Session(Protocol):
    """One episode at a time."""

    def reset(self, seed: int) -> Step: ...

    def step(self, action: Mapping[str, Any]) -> Step:
        """Raises Lost; anything else means that the environment refuses the action."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Source:
    """Where episodes come from.

    Attributes:
        name: for people. schema: JSON schema of an action. open: begins a session.
        concurrent: several sessions may run at once; None: its server says so when one is refused.
    """

    name: str
    schema: Mapping[str, Any]
    open: Callable[[], Session]
    concurrent: bool | None = None


def source(name: str, seconds: float) -> Source:
    """The environment that a word names: a server's address, `PACKAGE.MODULE:CLASS`, or a package
    or directory in OpenEnv's layout, whose `server.app` names one environment class.

    Args:
        seconds: for each answer of a server.

    Raises:
        ValueError: it is not there, or names no environment.
    """
    if name.partition("://")[0] in ("http", "https", "ws", "wss"):
        return Source(name, _schema(name), lambda: _Remote(name, seconds))
    kind = _class(name)
    action = _action(kind)
    concurrent = bool(kind.SUPPORTS_CONCURRENT_SESSIONS)
    return Source(name, action.model_json_schema(), lambda: _Local(kind, action), concurrent)


# --- a server ---


def _schema(url: str) -> dict[str, Any]:
    import httpx

    base = url.replace("ws", "http", 1) if url.startswith("ws") else url
    try:
        response = httpx.get(f"{base.rstrip('/')}/schema", timeout=10.0)
        return response.raise_for_status().json()["action"]
    except Exception as error:
        reason = one_line(error_text(error))[:200]
        raise ValueError(f"openenv: no OpenEnv server answers at {url}: {reason}") from None


class _Remote:
    """A session of a server, which has one environment for each."""

    def __init__(self, url: str, seconds: float) -> None:
        from openenv.core import GenericEnvClient  # pyright: ignore[reportMissingImports]

        self.client = GenericEnvClient(base_url=url, message_timeout_s=seconds).sync()
        try:
            self.client.connect()
        except Exception as error:
            self.close()
            raise ValueError(_refused(url, error)) from None
        self.url = url

    def reset(self, seed: int) -> Step:
        try:
            step = _step(self.client.reset(seed=seed))
        except Exception as error:
            raise ValueError(_refused(self.url, error)) from None
        self.socket = self._connected
        return step

    @property
    def _connected(self) -> Any:
        return self.client.async_client._ws

    def step(self, action: Mapping[str, Any]) -> Step:
        # The client opens a lost connection anew by itself, to an environment that nobody has
        # reset. What the server answers in words is a RuntimeError.
        try:
            step = _step(self.client.step(dict(action)))
        except Exception as error:
            if self._connected is self.socket and isinstance(error, RuntimeError):
                raise
            raise Lost(error_text(error)) from None
        if self._connected is not self.socket:
            raise Lost("the connection was closed")
        return step

    def close(self) -> None:
        self.client.close()


def _refused(url: str, error: Exception) -> str:
    return (
        f"openenv: {url} begins no episode: {one_line(error_text(error))[:200]} (each row of a"
        " batch needs a session of its own: raise the server's max_concurrent_envs, or lower the"
        " prompts and samples)"
    )


def _step(result: Any) -> Step:
    return Step(dict(result.observation), number(result.reward or 0.0), bool(result.done))


# --- a class ---


def _class(name: str) -> type:
    """The environment class that a word names."""
    from openenv.core.env_server import Environment  # pyright: ignore[reportMissingImports]

    module, _, own = name.partition(":")
    module = importable(module)
    found = _imported(module if own else f"{module}.server.app", name)
    if own:
        classes = [getattr(found, own, None)]
    else:
        classes = [v for v in vars(found).values() if _is_environment(v, Environment)]
    classes = [c for c in classes if c is not None and _is_environment(c, Environment)]
    if len(classes) != 1:
        what = f"no environment class {own!r}" if own else f"{len(classes)} environment classes"
        raise ValueError(
            f"openenv: {name} names {what}: say PACKAGE.MODULE:CLASS, or the address of a server"
        )
    return classes[0]


def _imported(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"openenv: {name}: no module {error.name!r} is installed: install the environment's"
            " package, or give its directory or the address of its server"
        ) from None
    except Exception as error:  # its own code
        reason = one_line(error_text(error))[:200]
        raise ValueError(f"openenv: {name} cannot be imported: {reason}") from None


def _is_environment(value: Any, base: type) -> bool:
    return inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)


def _action(kind: Any) -> Any:
    """The action class: what `step` is annotated with."""
    from openenv.core.env_server.types import Action  # pyright: ignore[reportMissingImports]

    try:
        action = get_type_hints(kind.step).get("action")
    except NameError as error:  # a name that only a type checker imports
        raise ValueError(
            f"openenv: {kind.__name__}.step names its action's class, but {error}: import it in"
            " that module, or give the address of its server"
        ) from None
    return action if inspect.isclass(action) and issubclass(action, Action) else Action


class _Local:
    """An object of the class, for itself."""

    def __init__(self, kind: Any, action: Any) -> None:
        from openenv.core.env_server.serialization import (  # pyright: ignore[reportMissingImports]
            deserialize_action,
            serialize_observation,
        )

        self.env, self.action = kind(), action
        self._read, self._write = deserialize_action, serialize_observation

    def reset(self, seed: int) -> Step:
        return self._step(self.env.reset(**accepted(self.env.reset, {"seed": seed})))

    def step(self, action: Mapping[str, Any]) -> Step:
        return self._step(self.env.step(self._read(dict(action), self.action)))

    def _step(self, observation: Any) -> Step:
        wire = self._write(observation)
        reward = number(wire["reward"] or 0.0)
        return Step(wire["observation"], reward, bool(wire["done"]))

    def close(self) -> None:
        self.env.close()

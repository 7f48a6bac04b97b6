"""Calls reward functions, and is the worker process in which a user's own file runs.

A function takes what its parameters name:

    f(prompts, completions, completion_ids, answer, level, **columns)    TRL's: lists, one call
    f(completions, answer)                                               the same, the rest left out
    compute_score(data_source, solution_str, ground_truth, extra_info)   verl's: one sample a call
    f(completions, log_metric, log_extra)                                TRL's loggers besides

The process runs this file as a script (`python worker.py FILE FUNCTION [BYTES]`). It imports the
standard library only, so it starts in a few hundredths of a second. It reads pickled calls from
standard input and replies in JSON, never in pickle, because a policy's text reaches the function.
Left out: deadlines and restarts, which are the parent's (`processes.py`).

Frames, both ways: 8 bytes of length, big endian, then the body.
    hello    {"needs": ["solution", ...]}, the columns that the function needs; or {"failed": ...}
    call     the limit of CPU time in seconds (a double; 0: none), then a pickle of
             (prompts, completions, completion_ids, columns)
    reply    {"verdicts": [1.0, null, {"kind": "type", "message": "..."}]}, and where the function
             logged, {"metrics": {"name": 0.5}, "extras": {"column": ["a", "b", "c"]}}; or
             {"failed": {"kind", "message"}}
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import math
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

HEADER, LIMIT = struct.Struct(">Q"), struct.Struct(">d")
# the largest reward: beyond it a group's spread is infinite in float32
LARGEST = 1e15


def write_frame(stream: IO[bytes], body: bytes) -> None:
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """The next body. Raises EOFError when the other side is gone."""
    header = stream.read(HEADER.size)
    body = stream.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
    if not header or len(body) < HEADER.unpack(header)[0]:
        raise EOFError
    return body


def describe(error: BaseException) -> str:
    """One line: the error's type and message, and the last line of the user's file in its trace."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    try:
        message = str(error)[:300]
    # an exception's own __str__ may raise
    except Exception:
        message = "(it cannot say what)"
    return f"{type(error).__name__}: {message}".replace("\n", " ") + where


# --- the result of a function ---


def reply(result: Any, count: int, judge: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The reply to a call: a verdict for each value of the result, or the fault of the whole.

    If the result is a generator, its exceptions pass through.

    Args:
        count: the number of completions.
        judge: makes a verdict of a value; the default is `verdict`.

    >>> reply((1, True), 2), reply(0.5, 2)["failed"]["kind"], reply([0.5], 2)["failed"]["kind"]
    ({'verdicts': [1.0, 1.0]}, 'type', 'length')
    """
    expected = f"for {count} completions: expected a list with a number or None for each"
    if isinstance(result, str | bytes | dict | set | frozenset) or not _iterable(result):
        message = f"returned {type(result).__name__} {expected}"
        return {"failed": {"kind": "type", "message": message}}
    values = list(result)
    if len(values) != count:
        message = f"returned {len(values)} rewards {expected}"
        return {"failed": {"kind": "length", "message": message}}
    return {"verdicts": [(judge or verdict)(v) for v in values]}


def _iterable(result: Any) -> bool:
    try:
        iter(result)
    # a number, None, a tensor without axes raise
    except TypeError:
        return False
    return True


def verdict(value: Any) -> float | dict[str, str] | None:
    """A reward as a finite float, as None, or as its fault. NumPy's and torch's numbers count."""
    if value is None:
        return None
    try:
        value = getattr(value, "item", lambda: value)()
        number = None if isinstance(value, str | bytes) else float(value)
    except Exception:
        number = None
    if number is None:
        return {"kind": "type", "message": f"expected a number or None, got {type(value).__name__}"}
    if not math.isfinite(number):
        return {"kind": "nan", "message": f"returned {number}"}
    if abs(number) > LARGEST:
        message = f"returned {number:g}; rewards are float32, and squared: at most {LARGEST:g}"
        return {"kind": "huge", "message": message}
    return number


class WrongLength(ValueError):
    """A function logged a list that is longer or shorter than the list of completions."""


class Log:
    """The log of one call on `count` completions, by TRL's two functions."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.metrics: dict[str, list[float]] = {}
        self.extras: dict[str, list[Any]] = {}

    def metric(self, name: str, value: Any) -> None:
        """`log_metric(name, value)`: a number of the step. It ignores what is not finite."""
        number = float(getattr(value, "item", lambda: value)())
        self.metrics.setdefault(str(name), []).extend([number] if math.isfinite(number) else [])

    def extra(self, column: str, values: Any) -> None:
        """`log_extra(column, values)`: a value for each completion, stored with the samples."""
        values = list(values)
        if len(values) != self.count:
            raise WrongLength(
                f"log_extra({column!r}): {len(values)} values for {self.count} completions"
            )
        self.extras[str(column)] = [_plain(v) for v in values]

    def reply(self) -> dict[str, Any]:
        """The metrics and extras that there are, as JSON."""
        means = {k: math.fsum(v) / len(v) for k, v in self.metrics.items() if v}
        return {k: v for k, v in (("metrics", means), ("extras", self.extras)) if v}


def _plain(value: Any) -> Any:
    """A value as JSON: numbers, booleans and null as they are, the rest as text."""
    value = getattr(value, "item", lambda: value)()
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


# --- the arguments of a function ---

GIVEN = ("prompts", "completions", "completion_ids", "log_metric", "log_extra")


def adapted(function: Any) -> Callable[..., Any]:
    """A reward as a function of TRL's signature. A class is instantiated; `from_verl` adapts verl's
    `compute_score`.

    Raises:
        TypeError: an object that cannot be called, or a class that needs arguments.
    """
    if inspect.isclass(function):
        function = function()
    if not callable(function):
        raise TypeError(f"{type(function).__name__} is no function")
    return from_verl(function) if "solution_str" in _parameters(function) else function


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function; none for a built-in without a signature."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def needs(function: Callable[..., Any]) -> list[str]:
    """The columns that a function requires: its `needs`, or its parameters without a default."""
    own = getattr(function, "needs", None)
    if own is not None:
        return list(own)
    every = _parameters(function).values()
    named = [p for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return [p.name for p in named if p.default is p.empty and p.name not in GIVEN]


def accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments in `given` that a function takes.

    It takes those that it names; with `**columns` all but the loggers, which it must name.
    """
    parameters = _parameters(function)
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {
        name: value
        for name, value in given.items()
        if name in parameters or (rest and name not in ("log_metric", "log_extra"))
    }


def from_verl(compute_score: Callable[..., Any]) -> Callable[..., list[Any]]:
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info)`, plain or async,
    as a function of TRL's signature.

    `ground_truth` is the row's `answer`. If it returns a dict, `score` is the reward and the other
    entries are logged.
    """

    def score(
        prompts,
        completions,
        completion_ids=None,
        *,
        answer,
        data_source=None,
        extra_info=None,
        log_extra=None,
        **columns,
    ):
        none = [None] * len(completions)
        rows = zip(data_source or none, completions, answer, extra_info or none, strict=True)
        results = []
        for source, completion, gold, extra in rows:
            given = {"data_source": source, "solution_str": _text(completion)}
            given |= {"ground_truth": gold, "extra_info": extra}
            results.append(compute_score(**accepted(compute_score, given)))
        if any(map(inspect.isawaitable, results)):
            results = _awaited(_all(results))
        if log_extra is not None:
            _log_entries(results, log_extra)
        return [r["score"] if isinstance(r, dict) else r for r in results]

    return score


async def _all(awaitables: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*awaitables)


def _log_entries(results: Sequence[Any], log_extra: Callable[[str, list[Any]], None]) -> None:
    entries = [r if isinstance(r, dict) else {} for r in results]
    for name in dict.fromkeys(k for e in entries for k in e if k != "score"):
        log_extra(name, [e.get(name) for e in entries])


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "\n".join(
        str(m.get("content") or "") for m in completion if m.get("role", "assistant") == "assistant"
    )


# --- one call ---


def answer(
    function: Callable[..., Any], call: tuple, judge: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """The reply to one call of an adapted function; never raises."""
    prompts, completions, completion_ids, columns = call
    # count first: the function may change its lists
    count = len(completions)
    log = Log(count)
    given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    given |= {**columns, "log_metric": log.metric, "log_extra": log.extra}
    try:
        result = function(**accepted(function, given))
        if inspect.isawaitable(result):
            result = _awaited(result)
        return reply(result, count, judge) | log.reply()
    except WrongLength as error:
        return {"failed": {"kind": "length", "message": str(error)}}
    except Exception as error:
        return {"failed": {"kind": "raised", "message": describe(error)}}


def _awaited(awaitable: Any) -> Any:
    """The result of an awaitable. If this thread has a running loop, as in a notebook, another
    thread waits for it."""

    async def whole() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(whole())).result()


# --- the process ---


def load(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of the Python file at `path`, adapted. The file may import its
    neighbours."""
    spec = importlib.util.spec_from_file_location("user_reward", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_reward"] = module
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec.loader.exec_module(module)
    return adapted(getattr(module, name))


def _leave_with(parent: int) -> None:
    """End this process when its parent has gone, even if the user's function hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(path: str, name: str, memory: str = "0") -> None:
    """Load the function, send hello, answer calls until the parent has gone."""
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    calls, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # the user's print goes to standard error, not between the frames
    os.dup2(2, 1)
    try:
        function = load(path, name)
    except BaseException as error:
        failed = {"kind": "raised", "message": describe(error)}
        return write_frame(replies, json.dumps({"failed": failed}).encode())
    write_frame(replies, json.dumps({"needs": needs(function)}).encode())
    while True:
        try:
            call = read_frame(calls)
        except EOFError:
            return
        # SIGPROF ends the process, C code and all
        signal.setitimer(signal.ITIMER_PROF, *LIMIT.unpack_from(call))
        reply = answer(function, pickle.loads(call[LIMIT.size :]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_frame(replies, json.dumps(reply).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
